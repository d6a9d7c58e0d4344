"""Real weights: proven, equal to what forward hooks and Hugging Face's hidden states say, and read on any input."""

from collections import Counter

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from headwise.interp.run.anatomy import Rotary, anatomy
from headwise.interp.run.capture import capture
from headwise.models import load

TEXT = "When Mary and John went to the store, John gave a drink to"
SPEECH = torch.sin(torch.arange(16_000) / 20) * torch.linspace(0, 0.5, 16_000)

WRITES = {  # name → the input, the streams with their writes, style, readout
    "tiny-decoder": (TEXT, {"decoder": {"attention": 4, "mlp": 4}}, "pre-LN", "direct"),
    "tiny-attention-only": (TEXT, {"decoder": {"attention": 2}}, "pre-LN", "direct"),
    "tiny-encoder": (TEXT, {"encoder": {"attention": 4, "mlp": 4}}, "post-LN", "nonlinear"),
    "tiny-classifier": (TEXT, {"encoder": {"attention": 4, "mlp": 4}}, "post-LN", "nonlinear"),
    "tiny-encoder-decoder": (
        "transformer",
        {"decoder": {"attention": 3, "cross": 3, "mlp": 3}, "encoder": {"attention": 3, "mlp": 3}},
        "post-LN",
        "direct",
    ),
    "tiny-vit": ("picture", {"encoder": {"attention": 4, "mlp": 4}}, "pre-LN", "direct"),
    "smollm2-135m": (TEXT, {"decoder": {"attention": 30, "mlp": 30}}, "pre-LN", "direct"),
    "minilm-l6": (TEXT, {"encoder": {"attention": 6, "mlp": 6}}, "post-LN", "none"),
    "splade-tiny": (TEXT, {"encoder": {"attention": 2, "mlp": 2}}, "post-LN", "nonlinear"),
    "dinov2-small": ("picture", {"encoder": {"attention": 12, "mlp": 12}}, "pre-LN", "none"),
    "whisper-tiny-en": (
        "speech",
        {"decoder": {"attention": 4, "cross": 4, "mlp": 4}, "encoder": {"attention": 4, "mlp": 4}},
        "pre-LN",
        "direct",
    ),
    "bart-phonemes": (
        "transformer",
        {"decoder": {"attention": 1, "cross": 1, "mlp": 1}, "encoder": {"attention": 1, "mlp": 1}},
        "post-LN",
        "direct",
    ),
}


@pytest.fixture(scope="module", params=WRITES)
def known(request):
    """(name, subject, a raw input)."""
    raw = WRITES[request.param][0]
    if raw == "picture":
        raw = Image.fromarray(load_sample_images().images[0])
    return request.param, load(request.param), (SPEECH, " Good morning to you") if raw == "speech" else raw


def test_it_is_proven(known):
    name, subject, raw = known
    _, streams, style, readout = WRITES[name]
    found = anatomy(subject)
    assert not found.refused and found.readout.kind == readout and found.stream().style == style
    assert {s.name: dict(Counter(w.kind for w in s.writes)) for s in found.streams} == streams
    assert found.proof.exact and found.proof.worst <= 1e-5 and found.proof.smallest > 1e-4
    assert all(w.heads for s in found.streams for w in s.writes if w.calls)
    assert all(len(s.blocks) == streams[s.name]["attention"] for s in found.streams)

    cap = capture(subject, raw, stream=True)
    assert cap.stream.proof.exact and cap.stream.proof.total <= 1e-5
    plain = capture(subject, raw)
    assert torch.equal(cap.logits, plain.logits)
    for ours, lazy in zip(cap.stream.states(), plain.stream.states(), strict=True):
        assert torch.equal(ours, lazy)
    stacks = {c.stack for c in cap.calls if c.kind == "self"}
    assert {s.name for s in found.streams} == stacks


def test_writes_are_what_forward_hooks_see(known):
    """The module that makes each write is hooked. (A layer scale is a module of its own in DINOv2.)"""
    _, subject, raw = known
    reading = capture(subject, raw, stream=True).stream
    seen, hooks = {}, []
    for stream in reading.anatomy.streams:
        for write in stream.writes:
            module = subject.module.get_submodule(write.path)
            hooks.append(module.register_forward_hook(lambda m, a, out, k=write.path: seen.__setitem__(k, out)))
    with torch.no_grad():
        inputs = subject.encode(raw)
        subject.module(**inputs.kwargs)
    for hook in hooks:
        hook.remove()
    for stream in reading.anatomy.streams:
        for write, tensor in reading.writes(stream.name):
            theirs = seen[write.path]
            torch.testing.assert_close(tensor, theirs.reshape(tensor.shape), atol=1e-5, rtol=1e-5)


def test_hidden_states_are_hugging_faces():
    """SmolLM2: after the embedding and after each block; Hugging Face gives the last one after the final norm."""
    subject = load("smollm2-135m")
    reading = capture(subject, TEXT, stream=True).stream
    with torch.no_grad():
        theirs = subject.module(**subject.encode(TEXT).kwargs, output_hidden_states=True)
    blocks = reading.blocks()
    assert len(blocks) == len(theirs.hidden_states) == 31
    for ours, own in zip(blocks[:-1], theirs.hidden_states[:-1], strict=True):
        assert torch.equal(ours, own)
    assert torch.equal(reading.unembed(blocks[-1]), theirs.logits)
    lens = subject.module.lm_head(subject.module.model.norm(blocks[12]))  # a logit lens by hand
    torch.testing.assert_close(reading.unembed(blocks[12]), lens, atol=0, rtol=0)
    norm = reading.anatomy.readout.final_norm
    assert norm.kind == "rms" and torch.equal(norm.weight.float(), subject.module.model.norm.weight)
    assert reading.anatomy.readout.weight.data_ptr() == subject.module.lm_head.weight.data_ptr()


def test_post_norm_states_are_those_after_the_norm():
    subject = load("minilm-l6")
    reading = capture(subject, TEXT, stream=True).stream
    with torch.no_grad():
        theirs = subject.module(**subject.encode(TEXT).kwargs, output_hidden_states=True).hidden_states
    for ours, own in zip(reading.blocks(), theirs, strict=True):
        assert torch.equal(ours, own)


def test_bfloat16_is_exact_where_it_adds():
    """Sixty additions round in bfloat16: each is exact bit for bit, and the sum is so to some of its steps."""
    subject = load("smollm2-135m", dtype=torch.bfloat16)
    found = anatomy(subject)
    eps = torch.finfo(torch.bfloat16).eps
    assert not found.refused and found.proof.exact and found.proof.total <= 4 * eps * 60**0.5
    assert found.proof.heads <= 4 * eps and all(w.heads for w in found.stream().writes if w.calls)
    assert found.readout.kind == "direct" and found.proof.logits <= 4 * eps


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("smollm2-135m", Rotary("half", 64)),
        ("tiny-decoder", Rotary("half", 32)),
        ("minilm-l6", None),
        ("whisper-tiny-en", None),
        ("tiny-vit", None),
    ],
)
def test_rotary_pairs(name, wanted):
    found = anatomy(load(name))
    assert set(found.rotary.values()) == ({wanted} if wanted else set())
    if wanted:
        keys = {key for w in found.stream().writes for key in w.calls}
        assert found.rotary.keys() == keys
