"""Edits of the residual stream and of its writes against plain forward hooks, in models of many kinds."""

import threading
from contextlib import contextmanager

import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from headwise.interp.errors import InputError
from headwise.interp.run.acting import read_sites
from headwise.interp.run.capture import Capture, capture, rerun
from headwise.interp.run.edits import Add, HeadOutput, Mean, Pattern, Residual, Scale, Write, Zero, ZeroHead
from headwise.interp.subject import Subject, tensors_only
from headwise.models import load
from tests.interp.attention.kinds import GPT, LLAMA, PAIR, TEXT, ids

TEXT_OF_TWO = "When Mary and John went to the store, John gave a drink to"


def made(name: str, options: dict, family: str, **inputs) -> Capture:
    kind = getattr(tf, name)
    module = kind(kind.config_class(**options)).eval()
    with torch.no_grad():
        for parameter in module.parameters():  # biases and norms begin at 0 and 1, and would hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))
    return capture(Subject(module, tensors_only(module), name, family), inputs or {"input_ids": ids()})


@contextmanager
def hooked(*changes):
    """(module, function of its output) or (module, function of its input, "input"): plain hooks, while inside."""
    handles = []
    for module, change, *given in changes:
        if given:
            handles.append(module.register_forward_pre_hook(lambda m, args, c=change: (c(args[0]), *args[1:])))
        else:
            handles.append(
                module.register_forward_hook(
                    lambda m, args, out, c=change: (c(out[0]), *out[1:]) if isinstance(out, tuple) else c(out)
                )
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def with_hooks(cap: Capture, *changes) -> torch.Tensor:
    with torch.no_grad(), hooked(*changes):
        output = cap.subject.module(**cap.inputs.kwargs)
    return output[0] if isinstance(output, tuple) else output if isinstance(output, torch.Tensor) else output[0]


def head(number: int, width: int, change):
    """Of (B, T, heads · width) one head changed."""

    def changed(z):
        z, part = z.clone(), slice(number * width, (number + 1) * width)
        z[..., part] = change(z[..., part])
        return z

    return changed


def mean(x):
    return x.mean(1, keepdim=True).expand_as(x)


def gpt2():
    cap = made("GPT2LMHeadModel", GPT, "decoder")
    block = cap.subject.module.transformer.h[1]
    return cap, block, block.attn.c_proj, block.attn, block.mlp, 8


def llama():
    cap = made("LlamaForCausalLM", LLAMA, "decoder")
    block = cap.subject.module.model.layers[1]
    return cap, block, block.self_attn.o_proj, block.self_attn, block.mlp, 8


def bert():
    cap = made("BertModel", TEXT, "encoder")
    block = cap.subject.module.encoder.layer[1]
    return cap, block, block.attention.output.dense, block.attention.output.dropout, block.output.dropout, 8


MODELS = [gpt2, llama, bert]


@pytest.mark.parametrize("model", MODELS, ids=lambda f: f.__name__)
def test_what_hooks_do(model):
    cap, block, projection, attention, mlp, width = model()
    shift = torch.linspace(-1, 1, 32)

    def somewhere(x):
        x = x.clone()
        x[:, 3] += shift
        return x

    cases = [
        (Zero(HeadOutput(1, 2)), (projection, head(2, width, torch.zeros_like), "input")),
        (Mean(HeadOutput(1, 2)), (projection, head(2, width, mean), "input")),
        (Zero(Write(1, "attention")), (attention, torch.zeros_like)),
        (Mean(Write(1, "attention")), (attention, mean)),
        (Zero(Write(1, "mlp")), (mlp, torch.zeros_like)),
        (Scale(Write(1, "mlp"), -2.0), (mlp, lambda x: -2 * x)),
        (Add(Residual(1, "before"), shift, positions=3), (block, somewhere, "input")),
        (Add(Residual(1, "after"), shift, positions=3), (block, somewhere)),
    ]
    for edit, hook in cases:
        expected = with_hooks(cap, hook)
        assert (expected - cap.logits).abs().max() > 1e-3, edit
        assert (rerun(cap, [edit]).logits - expected).abs().max() <= 1e-5, edit
    together = rerun(cap, [cases[1][0], cases[4][0], cases[6][0]]).logits
    assert (together - with_hooks(cap, cases[1][1], cases[4][1], cases[6][1])).abs().max() <= 1e-5
    sites = [Residual(1, "before"), Residual(1, "middle"), Residual(1, "after"), Write(0, "mlp"), Write(1, "attention")]
    assert torch.equal(rerun(cap, [Scale(site, 1.0) for site in sites]).logits, cap.logits)


def test_the_middle_of_a_block():
    cap, block, *_ = llama()
    shift = torch.linspace(-1, 1, 32)
    mlp_reads = block.post_attention_layernorm
    taken = {}

    def keep(x):  # the block adds the MLP's answer to what its norm was given
        taken["shifted"] = x + shift
        return taken["shifted"]

    expected = with_hooks(cap, (mlp_reads, keep, "input"), (block, lambda x: x + shift))
    assert (rerun(cap, [Add(Residual(1, "middle"), shift)]).logits - expected).abs().max() <= 1e-5


def test_smollm2(smollm2_folder):
    cap = capture(load("smollm2-135m"), TEXT_OF_TWO)
    layers = cap.subject.module.model.layers
    for edit, hook in [
        (Mean(HeadOutput(12, 4)), (layers[12].self_attn.o_proj, head(4, 64, mean), "input")),
        (Zero(Write(20, "mlp")), (layers[20].mlp, torch.zeros_like)),
        (Zero(Residual(9, "after"), positions=5), (layers[9], lambda x: x * (torch.arange(x.shape[1]) != 5)[:, None])),
    ]:
        expected = with_hooks(cap, hook)[0, -1]
        assert (rerun(cap, [edit]).logits_at(-1)[0] - expected).abs().max() <= 1e-4  # of logits up to 20


def test_every_head_removed_is_attention_removed():
    """Where the output projection has no bias, which would stay."""
    cap, *_ = llama()
    layers = cap.subject.module.model.layers
    expected = with_hooks(cap, *((layer.self_attn, torch.zeros_like) for layer in layers))
    heads = [ZeroHead(layer, number) for layer in range(len(layers)) for number in range(4)]
    writes = [Zero(Write(layer, "attention")) for layer in range(len(layers))]
    for edits in (heads, writes):
        assert (rerun(cap, edits).logits - expected).abs().max() <= 1e-5
    assert (expected - cap.logits).abs().max() > 0.1


@pytest.mark.parametrize("first", [True, False], ids=["norm first", "norm last"])
def test_nn_transformer_encoder(first):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    cap = capture(Subject(model, tensors_only(model), "encoder", "encoder"), {"src": torch.randn(1, 7, 16)})
    for kind, part in (("attention", "dropout1"), ("mlp", "dropout2")):
        expected = with_hooks(cap, (getattr(model.layers[1], part), torch.zeros_like))
        assert (rerun(cap, [Zero(Write(1, kind))]).logits - expected).abs().max() <= 1e-5


def test_both_streams_of_an_encoder_decoder():
    cap = made("BartForConditionalGeneration", PAIR, "encoder-decoder", input_ids=ids(), decoder_input_ids=ids(7))
    encoder, decoder = cap.subject.module.model.encoder.layers[0], cap.subject.module.model.decoder.layers[1]
    cases = [
        (Zero(Write(0, "mlp", "encoder")), (encoder.fc2, torch.zeros_like)),
        (Zero(Write(1, "cross", "decoder")), (decoder.encoder_attn, torch.zeros_like)),
        (Zero(Write(1, "mlp")), (decoder.fc2, torch.zeros_like)),
        (ZeroHead(1, 3, "cross"), (decoder.encoder_attn.out_proj, head(3, 8, torch.zeros_like), "input")),
    ]
    for edit, hook in cases:
        assert (rerun(cap, [edit]).logits - with_hooks(cap, hook)).abs().max() <= 1e-5, edit


def test_gradients_in_the_stream_are_those_of_central_differences():
    cap = made("GPT2LMHeadModel", GPT, "decoder")
    module = cap.subject.module.double().requires_grad_(False)
    cap = capture(Subject(module, tensors_only(module), "gpt2", "decoder"), {"input_ids": ids()})
    sites = [Residual(0, "before"), Residual(1, "middle"), Write(0, "mlp"), Write(1, "attention"), HeadOutput(0, 1)]

    def number(logits):
        return logits[0, -1, 5] - logits[0, -1, 7]

    values, gradients = read_sites(cap, [*sites, Pattern(1, 0)], of=number)
    for site, gradient in gradients.items():
        step = torch.randn_like(values[site])
        up, down = (number(rerun(cap, [Add(site, sign * 1e-5 * step)]).logits) for sign in (1, -1))
        assert float((gradient * step).sum()) == pytest.approx(float(up - down) / 2e-5, rel=1e-5), site
    stream = cap.stream
    assert torch.equal(values[Residual(0, "before")], stream.states()[0])
    assert torch.equal(values[Write(0, "mlp")], next(w for b, w in stream.writes() if (b.block, b.kind) == (0, "mlp")))


@pytest.mark.parametrize(
    "edit, says",
    [
        (Zero(Write(4, "mlp")), r"block that is not there: decoder has 0 … 3\."),
        (Zero(Write(1, "cross")), "no such write: block 1 writes attention, mlp"),
        (Zero(Residual(1, stream="encoder")), "stream that is not there; tiny-decoder has decoder"),
        (Add(Residual(1), torch.ones(3)), r"vector of shape \(3,\)"),
        (Zero(Residual(1), positions=99), "there is no 99"),
    ],
    ids=str,
)
def test_edits_of_what_is_not_there(edit, says):
    cap = capture(load("tiny-decoder"), "The people of the United States")
    with pytest.raises(InputError, match=says):
        rerun(cap, [edit])
    with pytest.raises(InputError, match="before, middle or after"):
        Residual(1, "beside")


def test_a_refused_anatomy_is_one_sentence():
    class Highway(nn.Module):
        """No stream: what attention makes is mixed in by a gate."""

        def __init__(self):
            super().__init__()
            self.qkv, self.gate = nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x):
            q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
            made = ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)
            gate = self.gate(x).sigmoid()
            return gate * made + (1 - gate) * x

    module = Highway()
    cap = capture(Subject(module, tensors_only(module), "highway", "encoder"), {"x": torch.randn(1, 5, 8)})
    with pytest.raises(InputError, match="needs the residual stream of highway, which could not be proven"):
        rerun(cap, [Zero(Write(0, "mlp"))])
    assert (rerun(cap, [ZeroHead(0, 1)]).logits != cap.logits).any()  # its heads are there all the same


def test_twenty_threads_edit_one_model_apart():
    cap = capture(load("tiny-decoder"), "The people of the United States")
    edits = [
        [Mean(HeadOutput(n % 4, n % 8)), Scale(Write(n % 4, "mlp"), n / 10), Zero(Residual(1, "before"), n % 5)]
        for n in range(20)
    ]
    alone = [rerun(cap, some).logits for some in edits]
    found, failures = [None] * 20, []
    start = threading.Barrier(20)

    def work(n):
        try:
            start.wait()
            for _ in range(3):
                found[n] = rerun(cap, edits[n]).logits
                assert torch.equal(found[n], alone[n])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len({tuple(t[0, -1, :5].tolist()) for t in found}) == 20
    with torch.no_grad():
        assert torch.equal(cap.subject.module(**cap.inputs.kwargs)[0], cap.logits[0])


def test_an_exception_in_the_middle_leaves_nothing():
    cap = capture(load("tiny-decoder"), "The people of the United States")
    before = len(_global_forward_hooks), len(_global_forward_pre_hooks)
    for edit in (Add(Write(2, "mlp"), torch.ones(3)), Zero(HeadOutput(3, 0), 99)):
        with pytest.raises(InputError):
            rerun(cap, [Zero(Write(0, "mlp")), edit])
        assert (len(_global_forward_hooks), len(_global_forward_pre_hooks)) == before
        assert torch.equal(rerun(cap, []).logits, cap.logits)
