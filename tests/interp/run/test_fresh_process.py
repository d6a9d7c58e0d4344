"""What only a fresh process shows: the first flex_attention of all, when torch's compiler is not loaded yet; and Keras,
whose backend is chosen as it is imported."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BEGINNING = """
import sys, torch, warnings
warnings.filterwarnings("ignore")
torch.manual_seed(0)
from headwise.interp.masks import Causal
from headwise.interp.run.capture import capture
from headwise.interp.subject import Inputs, Subject, tensors_only
"""
FLEX_MODULE = """
class Attention(torch.nn.Module):
    def __init__(self, causal=True):
        super().__init__()
        self.qkv, self.causal = torch.nn.Linear(32, 96), causal

    def forward(self, x):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        mask = None
        if self.causal:
            mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, x.shape[1], x.shape[1], device="cpu")
        return flex_attention(q, k, v, block_mask=mask).transpose(1, 2).flatten(2)
"""


def run(script, **environment):
    """A script in a fresh interpreter; what it raises fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + textwrap.dedent(script)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_first_flex_attention_of_a_process():
    run(
        FLEX_MODULE
        + """
assert "torch._dynamo" not in sys.modules
module = Attention()
x = torch.randn(2, 7, 32)
cap = capture(Subject(module, tensors_only(module), "flex", "decoder"), {"x": x})
q, k, _ = module.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
theirs = (q @ k.mT / 4).masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf).softmax(-1)
(call,) = cap.calls
assert call.seen == "flex" and (call.band(0, 7) - theirs).abs().max() < 1e-5
assert cap.fidelity < 1e-5
assert torch._dynamo.eval_frame._stance.stance == "default"
assert not torch.nn.modules.module._global_forward_hooks
assert not torch.nn.modules.module._global_forward_pre_hooks
assert not torch.nn.modules.module._global_forward_hooks_with_kwargs
again = capture(Subject(module, tensors_only(module), "flex", "decoder"), {"x": x})
assert torch.equal(again.calls[0].band(0, 7), call.band(0, 7))
"""
    )


def test_the_first_flex_attention_of_a_hugging_face_model_with_a_cache():
    run("""
import transformers
sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48)
config = transformers.LlamaConfig(**sizes, vocab_size=99)
auto = transformers.AutoModelForCausalLM
twin = auto.from_config(config, attn_implementation="eager").eval()
ids = torch.randint(2, 98, (2, 11))
with torch.no_grad():
    past = twin(input_ids=ids[:, :4], use_cache=True).past_key_values
    theirs = twin(input_ids=ids, output_attentions=True).attentions
module = auto.from_config(config, attn_implementation="flex_attention").eval()
module.load_state_dict(twin.state_dict())
assert module.config._attn_implementation == "flex_attention"
subject = Subject(module, tensors_only(module), "flex", "decoder")
cap = capture(subject, {"input_ids": ids[:, 4:], "past_key_values": past, "use_cache": True})
assert past.get_seq_length() == 4
for call, reference in zip(cap.calls, theirs, strict=True):
    assert call.seen == "flex" and (call.band(0, 7) - reference[:, :, 4:]).abs().max() < 1e-5
""")


@pytest.mark.parametrize("causal", [True, False])
def test_the_first_check_of_a_flex_model(causal):
    run(
        FLEX_MODULE
        + f"""
from headwise.interp.check import check
assert "torch._dynamo" not in sys.modules
report = check(torch.nn.Sequential(torch.nn.Embedding(50, 32), Attention({causal}), torch.nn.Linear(32, 50)), Causal())
assert bool(report.findings) is {not causal}, str(report)
if report.findings:
    assert "1" in str(report.findings[0]) and "no causal mask" in str(report), str(report)
"""
    )


# -- Keras -----------------------------------------------------------------------------------------
KERAS = """
import keras
keras.utils.set_random_seed(0)

def build(causal, floats=False):
    x = inputs = keras.Input((None, 32) if floats else (None,), dtype="float32" if floats else "int32", name="tokens")
    x = x if floats else keras.layers.Embedding(50, 32, name="embed")(x)
    for i in range(2):
        attended = keras.layers.MultiHeadAttention(4, 8, name=f"attention_{i}")(x, x, use_causal_mask=causal)
        x = keras.layers.LayerNormalization(name=f"norm_{i}")(x + attended)
    return keras.Model(inputs, keras.layers.Dense(50, name="head")(x), name="tiny")
"""
keras = pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="pip install keras")


@keras
def test_a_keras_model_is_captured_as_it_is():
    run(
        KERAS
        + """
module = build(True)
ids = torch.randint(0, 50, (3, 9))
before = keras.layers.Layer.__call__
cap = capture(Subject(module, lambda raw: Inputs({}, args=(raw,)), "tiny", "decoder"), ids)
assert keras.layers.Layer.__call__ is before
assert [(c.name, c.layer, c.kind, c.shape) for c in cap.calls] == [
    ("attention_0", 0, "self", (3, 4, 9, 9)), ("attention_1", 1, "self", (3, 4, 9, 9))
], cap.calls
assert not cap.unseen and cap.fidelity <= 1e-5
x = module.get_layer("embed")(ids)
for i, call in enumerate(cap.calls):
    layer = module.get_layer(f"attention_{i}")
    with torch.no_grad():
        out, theirs = layer(x, x, use_causal_mask=True, return_attention_scores=True)
        x = module.get_layer(f"norm_{i}")(x + out)
    assert (call.band(0, 9) - theirs).abs().max() <= 1e-5
assert call.pattern == Causal()
""",
        KERAS_BACKEND="torch",
    )


@keras
def test_the_residual_stream_of_keras_blocks():
    run(
        KERAS
        + """
from headwise.interp.run.anatomy import anatomy
x = inputs = keras.Input((None,), dtype="int32")
x = keras.layers.Embedding(50, 32)(x)
for i in range(3):
    normed = keras.layers.LayerNormalization(name=f"before_{i}")(x)
    x = x + keras.layers.MultiHeadAttention(4, 8, name=f"attention_{i}")(normed, normed, use_causal_mask=True)
    hidden = keras.layers.Dense(64, activation="gelu")(keras.layers.LayerNormalization()(x))
    x = x + keras.layers.Dense(32)(hidden)
module = keras.Model(inputs, keras.layers.Dense(50)(keras.layers.LayerNormalization()(x)))
subject = Subject(module, lambda raw: Inputs({}, args=(raw,)), "pre-LN", "decoder")
found = anatomy(subject, torch.randint(0, 50, (2, 14)))
assert not found.refused and found.proof.exact and found.proof.worst <= 1e-5, (found, found.proof)
assert [w.kind for w in found.stream().writes] == ["attention", "mlp"] * 3, found.stream().writes
assert all(w.heads for w in found.stream().writes[::2]) and found.readout.kind == "direct"
cap = capture(subject, torch.randint(0, 50, (3, 9)), stream=True)
assert cap.stream.proof.exact and cap.stream.proof.total <= 1e-5 and len(cap.residuals) == 4
post = anatomy(Subject(build(True), subject.encode, "post-LN", "decoder"), torch.randint(0, 50, (2, 14)))
assert post.stream().style == "post-LN" and post.proof.worst <= 1e-5 and len(post.stream().writes) == 2, post
""",
        KERAS_BACKEND="torch",
    )


@keras
def test_keras_layers_inside_a_module_and_attention_to_another_sequence():
    """Keys of Keras' attention are its values where no keys are given."""
    run(
        KERAS
        + """
class Mixed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = keras.layers.MultiHeadAttention(2, 8, name="reader")
        self.own = torch.nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x, y):
        out, self.made = self.block(x, y, return_attention_scores=True)
        out = self.block(x, value=out, key=x)
        return self.own(out, out, out)[0]

module = Mixed()
x, y = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
module(x, y)
cap = capture(Subject(module, tensors_only(module), "mixed", "custom"), {"x": x, "y": y})
reader, again, own = cap.calls
assert (reader.name, reader.kind, reader.shape) == ("block", "cross", (2, 2, 5, 7)), reader
assert (again.name, again.kind) == ("block", "self")
assert (own.name, own.kind) == ("own", "self")
assert (reader.band(0, 5) - module.made).abs().max() <= 1e-5
""",
        KERAS_BACKEND="torch",
    )


@keras
@pytest.mark.parametrize("floats", [True, False])
def test_a_keras_model_is_checked_as_it_is(floats):
    run(
        KERAS
        + f"""
from headwise.interp.check import check
right, wrong = check(build(True, {floats}), Causal()), check(build(False, {floats}), Causal())
assert not right.findings and "clean" in str(right), str(right)
assert len(wrong.findings) == 1 and wrong.findings[0].module == "attention_0", str(wrong)
""",
        KERAS_BACKEND="torch",
    )
