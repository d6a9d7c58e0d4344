"""Reformer of Hugging Face and of reformer-pytorch: calls whose weights are those they tell themselves, heads switched
off as the output projection would, and our own Reformer on Hugging Face's weights."""

import pytest
import torch
import transformers
from torch import Tensor, nn

from headwise import capture, check, edits, masks, wrap
from headwise.interp.run.capture import rerun
from headwise.models.variants.reformer import Reformer, hashed
from headwise.models.variants.reversible import through

HEADS, LENGTH, CHUNK = 4, 50, 4
IDS = torch.randint(3, 99, (2, LENGTH), generator=torch.Generator().manual_seed(0))
RIGHT, LEFT = torch.ones_like(IDS), torch.ones_like(IDS)
RIGHT[1, 37:] = 0
LEFT[1, :9] = 0
PADDING = {"alone": {}, "right": {"attention_mask": RIGHT}, "left": {"attention_mask": LEFT}}


def reformer(layers: tuple[str, ...], decoder: bool = True, after: int = 0, **options) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ReformerConfig(
        vocab_size=99, hidden_size=32, num_attention_heads=HEADS, attention_head_size=8, feed_forward_size=48,
        attn_layers=list(layers), axial_pos_embds=False, max_position_embeddings=128, is_decoder=decoder, hash_seed=0,
        lsh_attn_chunk_length=CHUNK, local_attn_chunk_length=CHUNK, num_buckets=8, num_hashes=2,
        lsh_num_chunks_after=after, local_num_chunks_after=after, lsh_attention_probs_dropout_prob=0.0,
        local_attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0, **options,
    )  # fmt: skip
    module = transformers.ReformerModel(config).eval()
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.25)  # attention far from uniform
    return module


def local(weights: Tensor, before: int, after: int) -> Tensor:
    """Hugging Face's own attentions (B, H, N, c, m) of neighbouring chunks → (B, H, T, T), chunk by chunk."""
    count = weights.shape[2]
    whole = torch.zeros(*weights.shape[:2], count * CHUNK, count * CHUNK)
    for number in range(count):
        rows = slice(number * CHUNK, (number + 1) * CHUNK)
        for index, step in enumerate(range(-before, after + 1)):
            first = (number + step) % count * CHUNK
            part = weights[:, :, number, :, index * CHUNK : (index + 1) * CHUNK]
            whole[:, :, rows, first : first + CHUNK] += part
    return whole


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("decoder", [True, False], ids=["decoder", "encoder"])
@pytest.mark.parametrize("length", [LENGTH, 9, 8, 4, 3])
def test_both_kinds_are_calls(padding, decoder, length):
    module = reformer(("local", "lsh"), decoder, 0 if decoder else 1)
    given = {k: v[:, :length] for k, v in PADDING[padding].items()}
    cap = capture(wrap(module, kind="decoder" if decoder else "encoder"), {"input_ids": IDS[:, :length], **given})
    assert not cap.unseen and cap.fidelity == 0
    assert [call.shape for call in cap.calls] == [(2, HEADS, length, length)] * 2
    real = given.get("attention_mask", torch.ones_like(IDS[:, :length])).bool()
    for call in cap.calls:
        weights = call.weights(1)
        assert torch.allclose(weights.sum(-1)[real], torch.ones(int(real.sum())), atol=5e-3)
        if decoder:
            assert not weights.triu(1).any()


@pytest.mark.parametrize("decoder", [True, False], ids=["decoder", "encoder"])
def test_local_weights_are_its_own(decoder):
    after = 0 if decoder else 1
    module = reformer(("local", "local"), decoder, after)
    cap = capture(wrap(module, kind="decoder" if decoder else "encoder"), {"input_ids": IDS[:, :48]})
    own = module(IDS[:, :48], output_attentions=True).attentions
    for call, weights in zip(cap.calls, own, strict=True):
        wanted = local(weights, 1, after)
        for head in range(HEADS):
            assert torch.allclose(call.weights(head), wanted[:, head], atol=1e-5)


@pytest.mark.parametrize("length", [16, 48])
def test_hashed_weights_are_its_own(length):
    """Its attentions of all rounds, laid out by the buckets it returns, weighted as its outputs are."""
    module = reformer(("lsh",))
    made = []
    inner = module.encoder.layers[0].attention.self_attention
    inner.register_forward_hook(lambda module, args, out: made.append(out))
    module(IDS[:, :length], output_attentions=True)
    probs, buckets = made[-1].attention_probs, made[-1].buckets  # (B, H, R·N, c, 2c), (B, H, R, T)
    call = capture(wrap(module, kind="decoder"), {"input_ids": IDS[:, :length]}).calls[0]
    order = buckets.flatten(2).argsort(dim=-1, stable=True) % length
    whole = torch.zeros(2, HEADS, 2, length, length)
    for b in range(2):
        for h in range(HEADS):
            slots = order[b, h].view(-1, CHUNK)
            for number, queries in enumerate(slots):
                keys = torch.cat([slots[number - 1], queries])
                rows = whole[b, h, number * CHUNK // length]
                for place, query in enumerate(queries.tolist()):
                    rows[query].index_add_(0, keys, probs[b, h, number, place])
    for number in range(2):
        one = call.form.round(number).weights(0, length, slice(None))
        assert torch.allclose(one, whole[:, :, number], atol=1e-5)


def test_a_head_is_switched_off_as_the_output_projection_would():
    for kind in ("lsh", "local"):
        module = reformer((kind,))
        inputs = {"input_ids": IDS, "attention_mask": RIGHT}
        cap = capture(wrap(module, kind="decoder"), inputs)
        off = [rerun(cap, [edits.ZeroHead(0, 1)]), rerun(cap, [edits.Zero(edits.Pattern(0, 1))])]
        module.encoder.layers[0].attention.output.dense.weight.data[:, 8:16] = 0
        wanted = module(**inputs).last_hidden_state[RIGHT.bool()]
        for edited in off:
            assert torch.allclose(edited.logits[RIGHT.bool()], wanted, atol=1e-4)
        assert not torch.allclose(cap.logits[RIGHT.bool()], wanted, atol=1e-3)


def test_decoding_with_a_cache_says_what_it_is():
    module = reformer(("lsh", "local"), use_cache=True)
    past = module(IDS[:, :3], use_cache=True).past_buckets_states
    cap = capture(wrap(module, kind="decoder"), {"input_ids": IDS[:, 3:4], "past_buckets_states": past})
    assert len(cap.unseen) == 2 and all("decodes with a cache here" in str(u) for u in cap.unseen)


def test_hugging_faces_reformer_is_not_strictly_causal():
    report = check(wrap(reformer(("lsh",)), kind="decoder"), masks.Causal(), inputs={"input_ids": IDS[:, :16]})
    assert not report.ok and report.findings


def ours_of(theirs: nn.Module) -> Reformer:
    """Our Reformer with the weights and the rotations of a ``ReformerAttention``. In float64: in float32 the score of
    −100,000 that it gives a token with itself makes outputs of tokens that meet nobody else inexact by 0.2 %."""
    inner = theirs.self_attention
    ours = Reformer(32, HEADS, buckets=8, rounds=2, chunk=CHUNK, published=True)
    ours.query.weight, ours.value.weight, ours.output.weight = (
        inner.query_key.weight, inner.value.weight, theirs.output.dense.weight,
    )  # fmt: skip
    for part in (ours.query, ours.value, ours.output):
        part.bias.data.zero_()
    torch.manual_seed(0)  # its hash_seed
    ours.rotations = torch.randn(HEADS, 8, 2, 4, dtype=torch.float64)
    return ours.double()


@pytest.mark.parametrize("causal", [True, False])
def test_our_reformer_is_hugging_faces_on_its_weights(causal):
    theirs = reformer(("lsh",), causal).double().encoder.layers[0].attention
    ours = ours_of(theirs)
    x = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(1)).double()
    real = torch.ones(2, 24, dtype=torch.bool)
    assert torch.equal(
        hashed(ours.split(ours.query(x)), ours.rotations) + torch.tensor([0, 8])[:, None],
        theirs.self_attention(x).buckets,
    )
    real[1, 17:] = False
    for mask in (None, real):
        wanted = theirs.output(theirs.self_attention(x, attention_mask=mask).hidden_states)
        got = ours(x, mask=None if mask is None else mask[:, None, None], causal=causal)
        assert torch.allclose(got[real], wanted[real], atol=1e-4)


def test_our_reversible_layers_are_hugging_faces():
    encoder = reformer(("lsh", "lsh", "lsh")).double().encoder
    pairs = []
    for layer in encoder.layers:
        attention, feed = layer.attention, layer.feed_forward
        ours = ours_of(attention)
        pairs.append((lambda x, a=attention, o=ours: o(a.layer_norm(x), causal=True), feed))
    x = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(1)).double()
    wanted = encoder(x).hidden_states
    got = encoder.layer_norm(torch.cat(through(pairs, x, x), -1))
    assert torch.allclose(got, wanted, atol=1e-4)


OPTIONS = [
    {}, {"n_hashes": 3, "random_rotations_per_head": True}, {"attn_chunks": 2}, {"one_value_head": True},
]  # fmt: skip


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("length", [64, 32, 16, 8])
def test_reformer_pytorch_tells_its_own_weights(causal, options, length):
    library = pytest.importorskip("reformer_pytorch")
    torch.manual_seed(0)
    inner = library.LSHSelfAttention(
        32, heads=HEADS, bucket_size=8, causal=causal, return_attn=True, **{"n_hashes": 2, **options}
    ).eval()
    module, told = nn.Sequential(inner), []
    inner.callback = lambda weights, buckets: told.append(weights)
    x = torch.randn(2, length, 32, generator=torch.Generator().manual_seed(1)) * 2
    cap = capture(wrap(module, kind="custom"), x)
    assert not cap.unseen and cap.fidelity == 0
    (call,) = cap.calls
    for head in range(HEADS):
        assert torch.allclose(call.weights(head), told[0][:, head], atol=1e-5)


def test_a_reformer_lm_is_captured_and_edited():
    library = pytest.importorskip("reformer_pytorch")
    torch.manual_seed(0)
    module = library.ReformerLM(
        num_tokens=99, dim=32, dim_head=8, depth=2, max_seq_len=64, heads=HEADS, bucket_size=8, n_hashes=2, causal=True
    ).eval()
    cap = capture(wrap(module, kind="decoder"), {"x": IDS[:, :32].repeat(1, 2)})
    assert not cap.unseen and len(cap.calls) == 2 and cap.fidelity == 0
    same = rerun(cap, [edits.ZeroHead(1, 0)])
    module.reformer.layers.blocks[1].f.net.fn.to_out.weight.data[:, :8] = 0
    wanted = capture(wrap(module, kind="decoder"), {"x": IDS[:, :32].repeat(1, 2)}).logits
    assert torch.allclose(same.logits, wanted, atol=1e-4) and not torch.allclose(cap.logits, wanted, atol=1e-3)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"n_local_attn_heads": 2}, "some of its heads are local windows"),
        ({"num_mem_kv": 16}, "reads keys beside its own text"),
        ({"attend_across_buckets": False}, "keep to its own bucket"),
        ({"allow_duplicate_attention": False}, "count each pair once"),
    ],
)
def test_what_is_not_told_is_said(options, said):
    library = pytest.importorskip("reformer_pytorch")
    module = nn.Sequential(library.LSHSelfAttention(32, heads=HEADS, bucket_size=8, causal=True, **options)).eval()
    cap = capture(wrap(module, kind="custom"), torch.randn(2, 32, 32))
    assert not cap.calls and any(said in str(u) for u in cap.unseen), cap.unseen
