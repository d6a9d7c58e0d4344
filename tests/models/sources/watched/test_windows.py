"""Windows, blocks and global tokens of other libraries: their weights are those they tell themselves, heads are
switched off as the output projection would, and our own mechanisms compute the same from the same weights."""

import pytest
import torch
import transformers
from torch import Tensor, nn

from headwise import anatomy, capture, edits, masks, wrap
from headwise.interp.run.capture import rerun
from headwise.models.variants.bigbird import BigBird, Scattered
from headwise.models.variants.longformer import Longformer

local_attention = pytest.importorskip("local_attention")

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 99}
LED = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 99, "attention_window": 4,
}  # fmt: skip
T5 = {
    "d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "vocab_size": 99, "local_radius": 4,
    "decoder_start_token_id": 0, "global_block_size": 5,
}  # fmt: skip
BIRD = {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 2, "max_position_embeddings": 128}
BIRD |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LENGTH = 50  # no multiple of a window or a block
IDS = torch.randint(3, 99, (2, LENGTH), generator=torch.Generator().manual_seed(0))
REAL = torch.ones_like(IDS)
REAL[1, 37:] = 0
CENTRAL = torch.zeros_like(IDS)
CENTRAL[:, 0] = CENTRAL[1, 5] = 1
PADDING = {"alone": {}, "padded": {"attention_mask": REAL}}


def build(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    module = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**options)).eval()
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.25)  # attention far from uniform
    return module


def real_of(inputs: dict) -> Tensor:
    return inputs.get("attention_mask", torch.ones_like(IDS)).bool()


def check_weights(calls, told: list[Tensor], real: Tensor) -> None:
    """Calls against dense weights (B, H, Q, K) of the library's own, at real queries."""
    assert len(calls) == len(told)
    for call, own in zip(calls, told, strict=True):
        for head in range(call.heads):
            there = own[:, head, : call.queries, : call.keys]
            assert torch.allclose(call.weights(head)[real], there[real], atol=1e-5)
        assert torch.allclose(call.weights(0, (3, 9)), call.weights(0)[:, 3:9], atol=1e-6)


def banded(weights: Tensor, center: Tensor, window: int, length: int, rows: Tensor | None = None) -> Tensor:
    """Longformer's own attentions (B, H, T, G + 2w + 1), and those of global tokens (B, H, T, G) → (B, H, T, T)."""
    whole, many = torch.zeros(*weights.shape[:3], length + 4 * window), weights.shape[-1] - 2 * window - 1
    for query in range(weights.shape[2]):
        whole[:, :, query, query + window : query + 3 * window + 1] = weights[:, :, query, many:]
    whole = whole[..., 2 * window : 2 * window + length][:, :, :length]
    for sample, marks in enumerate(center):
        for index, place in enumerate(marks.nonzero().flatten().tolist()):
            whole[sample, :, :, place] += weights[sample, :, :length, index]
        for index, place in enumerate(marks.nonzero().flatten().tolist()):
            whole[sample, :, place] = rows[sample, :, :length, index]
    return whole


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("central", [None, CENTRAL], ids=["windows", "globals"])
def test_longformer_tells_its_own_weights(padding, central):
    module = build("Longformer", **SIZE, attention_window=[4, 8])
    inputs = PADDING[padding] | ({} if central is None else {"global_attention_mask": central})
    cap = capture(wrap(module, kind="encoder"), {"input_ids": IDS, **inputs})
    assert not cap.unseen and cap.fidelity == 0
    own = module(IDS, **inputs, output_attentions=True)
    center = torch.zeros_like(IDS) if central is None else central
    rows = own.global_attentions or [None] * 2
    told = [banded(w, center, reach, LENGTH, r) for w, r, reach in zip(own.attentions, rows, (2, 4), strict=True)]
    check_weights(cap.calls, told, real_of(inputs))
    if not inputs:
        assert [call.mask for call in cap.calls] == [masks.Window(2, 2), masks.Window(4, 4)]


def test_led_tells_its_own_weights():
    module = build("LED", **LED)
    inputs = {"input_ids": IDS, "attention_mask": REAL, "global_attention_mask": CENTRAL}
    cap = capture(wrap(module, kind="encoder-decoder"), inputs | {"decoder_input_ids": IDS[:, :7]})
    assert not cap.unseen
    own = module(**inputs, decoder_input_ids=IDS[:, :7], output_attentions=True)
    both = zip(own.encoder_attentions, own.encoder_global_attentions, strict=True)
    told = [banded(w, CENTRAL, 2, LENGTH, r) for w, r in both]
    check_weights([call for call in cap.calls if call.stack == "encoder"], told, REAL.bool())


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_bigbird_tells_its_own_weights(padding, training):
    module, inputs = build("BigBird", **SIZE, **BIRD).train(training), PADDING[padding]
    cap = capture(wrap(module, kind="encoder"), {"input_ids": IDS, **inputs})
    assert not cap.unseen and len(cap.calls) == 2
    own = module(IDS, **inputs, output_attentions=True)  # its seed is its layer's, so the draw is the same
    told = [weights.clone() for weights in own.attentions]
    if not training:  # the first block is met three times, and the library tells the weight of one
        for weights in told:
            assert not torch.allclose(weights[0].sum(-1), torch.ones(()), atol=1e-2)
            weights[:, :, 4:48, :4] *= 3
    check_weights(cap.calls, told, real_of(inputs))


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("how", ["local", "transient-global"])
def test_longt5_tells_its_own_weights(padding, how):
    module, inputs = build("LongT5", **T5, encoder_attention_type=how), PADDING[padding]
    fed = {"input_ids": IDS, "decoder_input_ids": IDS[:, :7], **inputs}
    cap = capture(wrap(module, kind="encoder-decoder"), fed)
    assert not cap.unseen
    calls = [call for call in cap.calls if call.stack == "encoder"]
    own, told = module(**fed, output_attentions=True).encoder_attentions, []
    for weights in own:  # (B, N, H, b, 3b + G)
        near, side = weights[..., :15].transpose(1, 2), weights[..., 15:].transpose(1, 2).flatten(2, 3)
        whole = torch.zeros(2, 4, 50, 60)
        for block in range(10):
            whole[:, :, 5 * block : 5 * block + 5, 5 * block : 5 * block + 15] = near[:, :, block]
        told.append(torch.cat([whole[..., 5:55], side], -1))
    check_weights(calls, told, real_of(inputs))
    assert [call.keys for call in calls] == [60 if how == "transient-global" else 50] * 2
    if how == "transient-global":
        assert calls[0].key_axis.labels[49:52] == (calls[0].query_axis.labels[-1], "summary 0", "summary 1")


@pytest.mark.parametrize(
    "name, options, path",
    [
        ("Longformer", SIZE | {"attention_window": 4}, "encoder.layer.0.attention.output.dense"),
        ("BigBird", SIZE | BIRD, "encoder.layer.0.attention.output.dense"),
        ("LongT5", T5, "encoder.block.0.layer.0.LocalSelfAttention.o"),
        ("LongT5", T5 | {"encoder_attention_type": "transient-global"},
         "encoder.block.0.layer.0.TransientGlobalSelfAttention.o"),
    ],
)  # fmt: skip
def test_a_head_is_switched_off_as_the_output_projection_would(name, options, path):
    module = build(name, **options)
    inputs = {"input_ids": IDS, "attention_mask": REAL}
    inputs |= {"Longformer": {"global_attention_mask": CENTRAL}, "LongT5": {"decoder_input_ids": IDS[:, :7]}}.get(
        name, {}
    )
    cap = capture(wrap(module, kind="encoder-decoder" if name == "LongT5" else "encoder"), inputs)
    stack = cap.calls[0].stack
    off = [rerun(cap, [edits.ZeroHead(0, 1, stack=stack)]), rerun(cap, [edits.Zero(edits.Pattern(0, 1, stack=stack))])]
    module.get_submodule(path).weight.data[:, 8:16] = 0
    wanted = module(**inputs).last_hidden_state
    real = REAL.bool() if wanted.shape[1] == LENGTH else slice(None)
    for edited in off:
        assert torch.allclose(edited.logits[real], wanted[real], atol=1e-4)
    assert not torch.allclose(cap.logits[real], wanted[real], atol=1e-3)


@pytest.mark.parametrize("name, more", [("Longformer", {"attention_window": 4}), ("BigBird", BIRD)])
def test_their_stream_falls_apart_into_heads(name, more):
    inputs = {"input_ids": IDS} | ({"global_attention_mask": CENTRAL} if name == "Longformer" else {})
    found = anatomy(wrap(build(name, **SIZE, **more), kind="encoder"), inputs)
    assert not found.refused and found.proof.total < 1e-5 and found.proof.heads < 1e-5
    writes = [branch for branch in found.stream().writes if branch.kind == "attention"]
    assert [[heads.count for heads in branch.parts] for branch in writes] == [[4], [4]]


@pytest.mark.parametrize("globals", [0, 1, 3])
def test_our_longformer_is_hugging_faces_on_its_weights(globals):
    theirs = build("Longformer", **SIZE, attention_window=[4, 4]).encoder.layer[0].attention.self
    ours = Longformer(32, 4, window=2, globals=globals, own=True)
    copied = {k: v for k, v in theirs.state_dict().items() if globals or "global" not in k}
    ours.load_state_dict(copied, strict=False)
    ours.output = nn.Identity()
    x, real = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(1)), torch.ones(2, 24)
    real[1, 17:] = 0
    code = (real - 1) * 10_000
    code[:, :globals] = 10_000
    wanted = theirs(x, code, code < 0, code > 0, globals > 0)[0]
    got = ours(x, mask=real.bool()[:, None, None], causal=False)
    assert torch.allclose(got[real.bool()], wanted[real.bool()], atol=1e-4)
    assert torch.allclose(ours(x[:, :21], causal=False), ours(x, mask=_first(21), causal=False)[:, :21], atol=1e-5)


def _first(count: int) -> Tensor:
    return (torch.arange(24) < count)[None, None, None]


def test_our_bigbird_is_hugging_faces_on_its_weights():
    module = build("BigBird", **SIZE, **BIRD).train()  # where it draws its random blocks
    theirs, inside = [], module.encoder.layer[0].attention.self
    inside.register_forward_hook(lambda module, args, out: theirs.append((args[0], out[0])))
    call, *_ = capture(wrap(module, kind="encoder"), {"input_ids": IDS[:, :48]}).calls
    x, wanted = theirs[-1]
    pattern = Scattered(4, random=call.mask.right.lists, last=1, causal=False)
    ours = BigBird(32, 4)
    ours.load_state_dict(inside.state_dict(), strict=False)
    got = pattern.output(*ours.project(x))
    assert torch.allclose(got.transpose(1, 2).flatten(2), wanted, atol=1e-4)
    assert all(torch.equal(pattern.mask(48).dense(48, h=h), call.mask.dense(48, h=h)) for h in range(4))


WINDOWS = [
    {"causal": True},
    {"causal": False},
    {"causal": True, "exact_windowsize": True},
    {"causal": False, "exact_windowsize": True, "look_backward": 2},
    {"causal": True, "shared_qk": True, "use_rotary_pos_emb": False},
    {"causal": False, "look_forward": 0, "scale": 0.3},
]


class Holding(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = local_attention.LocalAttention(window_size=8, dim=16, autopad=True, **options)

    def forward(self, x, mask=None, attn_bias=None):
        return self.attention(*x.unbind(1), mask=mask, attn_bias=attn_bias)


@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize("extra", ["plain", "mask", "bias"])
def test_local_attention_is_seen(options, extra):
    module, more = Holding(**options).eval(), {}
    x = torch.randn(2, 3, 4, 29, 16, generator=torch.Generator().manual_seed(0))
    if extra == "mask":
        more["mask"] = torch.ones(2, 29, dtype=torch.bool)
        more["mask"][1, 5:20] = False  # a whole window sees nothing real
    if extra == "bias":
        keys = 8 * (1 + options.get("look_backward", 1) + options.get("look_forward", 0 if options["causal"] else 1))
        more["attn_bias"] = torch.randn(4, 8, keys, generator=torch.Generator().manual_seed(1))
    cap = capture(wrap(module, kind="encoder"), {"x": x, **more})
    assert not cap.unseen and len(cap.calls) == 1
    (call,) = cap.calls
    wanted = module(x, **more)
    rows = ~call.empty_rows(0)[:, None, :, None]
    assert torch.allclose((call.out - wanted) * rows, torch.zeros(()), atol=1e-5)
    assert bool(rows.all()) or extra == "mask"
    edited = rerun(cap, [edits.ZeroHead(0, 2)])
    heads = torch.tensor([0, 1, 3])
    assert torch.allclose(edited.logits[:, heads], wanted[:, heads], atol=1e-6)
    assert not (edited.logits * rows)[:, 2].any()
    reach = masks.Causal() if options["causal"] else masks.Bidirectional()
    assert not (call.weights(1)[0] * ~reach.dense(29, call.keys)).any()


def test_xpos_is_refused_in_a_sentence():
    module = Holding(causal=True, use_xpos=True).eval()
    cap = capture(wrap(module, kind="encoder"), {"x": torch.randn(1, 3, 2, 16, 16)})
    assert not cap.calls and "xPos" in str(cap.unseen[0])
