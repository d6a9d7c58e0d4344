"""An AttentionCall against the textbook formula, computed whole and dense here."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.scores import Computed, Modified, Seen
from headwise.interp.masks import Bidirectional, Causal, Dense

INF = math.inf


def computed(q, k, v, scale, given=None, causal=False, name="attn"):
    return AttentionCall(name, "self", Computed(q, k, scale, given, causal), v)


def textbook(q, k, scale, attn_mask=None, is_causal=False):
    """Scores and softmax(q·kᵀ·scale + mask), (B, H, Q, K) float32, rows that see nothing zero."""
    scores = (
        torch.einsum("bhqd,bhkd->bhqk", q.float(), k.repeat_interleave(q.shape[1] // k.shape[1], 1).float()) * scale
    )
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).tril().logical_not(), -INF)
    if attn_mask is not None:
        bias = (
            torch.zeros(attn_mask.shape).masked_fill(~attn_mask, -INF) if attn_mask.dtype == torch.bool else attn_mask
        )
        scores = scores + bias.float()
    return scores, scores.softmax(-1).nan_to_num(0)


@st.composite
def calls(draw, masks=("none", "causal", "bool", "float", "shared", "keys")):
    """A random call of random sizes, its scores and its weights by the textbook."""
    torch.manual_seed(draw(st.integers(0, 999)))
    batch, kv, group = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    queries, keys, width = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    q, k, v = (
        torch.randn(batch, kv * group, queries, width),
        torch.randn(batch, kv, keys, width),
        torch.randn(batch, kv, keys, 4),
    )
    kind = draw(st.sampled_from(masks))
    mask = {
        "none": None,
        "causal": None,
        "bool": torch.rand(batch, kv * group, queries, keys) > 0.4,  # some rows see nothing
        "float": torch.randn(batch, kv * group, queries, keys),
        "shared": torch.rand(queries, keys) > 0.4,
        "keys": torch.rand(batch, 1, 1, keys) > 0.2,
    }[kind]
    scale = draw(st.sampled_from([1.0, 0.3, 1 / math.sqrt(width)]))
    call = computed(q, k, v, scale, mask, kind == "causal")
    return call, *textbook(q, k, scale, mask, kind == "causal")


quick = settings(max_examples=50, deadline=None)


@quick
@given(calls(), st.integers(0, 9), st.integers(0, 9))
def test_weights_and_scores(drawn, start, stop):
    call, scores, weights = drawn
    for head in range(call.heads):
        torch.testing.assert_close(call.weights(head), weights[:, head])
        torch.testing.assert_close(call.scores(head), scores[:, head])
        torch.testing.assert_close(call.weights(head, (start, stop)), weights[:, head, start:stop])
        torch.testing.assert_close(call.scores(head, slice(start, stop)), scores[:, head, start:stop])
    assert torch.equal(call.weights(-1), call.weights(call.heads - 1))


@quick
@given(calls())
def test_rows_sum_to_one_or_are_empty_and_named(drawn):
    call, scores, _ = drawn
    for head in range(call.heads):
        empty = call.empty_rows(head)  # (B, Q)
        assert torch.equal(empty, (scores[:, head] == -INF).all(-1))
        torch.testing.assert_close(call.weights(head).sum(-1), 1 - empty.float())


@quick
@given(calls(masks=("none", "causal", "float")))
def test_out_is_what_sdpa_returns(drawn):
    call, _, weights = drawn
    v = call.v.repeat_interleave(call.heads // call.kv_heads, 1)
    torch.testing.assert_close(call.out, weights @ v, atol=1e-5, rtol=1e-5)


@quick
@given(calls())
def test_value_weighted(drawn):
    call, _, weights = drawn
    v = call.v.repeat_interleave(call.heads // call.kv_heads, 1)
    for head in range(call.heads):
        torch.testing.assert_close(call.value_weighted(head), weights[:, head] * v[:, head].norm(dim=-1)[:, None])


@quick
@given(
    calls(),
    st.integers(1, 10),
    st.sampled_from(["max", "mean"]),
    st.sampled_from(["weights", "scores", "value_weighted"]),
)
def test_image_is_brute_force_pooling(drawn, size, pool, quantity):
    call, _, _ = drawn
    full = getattr(call, quantity)(call.heads - 1)[call.batch - 1]  # (Q, K)
    rows, columns = call.factor(size)
    image = call.image(call.heads - 1, size, pool, quantity=quantity, batch=call.batch - 1)
    assert image.shape == (math.ceil(call.queries / rows), math.ceil(call.keys / columns))
    assert max(image.shape) <= size
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            cell = full[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns]
            expected = cell.max() if pool == "max" else cell.mean()
            torch.testing.assert_close(image[r, c], expected)


@quick
@given(calls())
def test_bands_together_are_the_whole(drawn):
    call, _, weights = drawn
    at = 0
    for start, stop, band in call.bands():
        assert start == at
        torch.testing.assert_close(band, weights[:, :, start:stop])
        at = stop
    assert at == call.queries


def test_bands_stay_within_their_memory(monkeypatch):
    monkeypatch.setattr(
        "headwise.interp.attention.call.BAND_BYTES", 4 * 2 * 3 * 11 * 2
    )  # two rows of (B=2, H=3, K=11) float32
    q, k = torch.randn(2, 3, 7, 4), torch.randn(2, 3, 11, 4)
    call = computed(q, k, k, 0.5)
    bands = list(call.bands())
    assert [(start, stop) for start, stop, _ in bands] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    torch.testing.assert_close(torch.cat([b for _, _, b in bands], 2), textbook(q, k, 0.5)[1])
    whole = torch.full((9, 12), -INF)  # 7 × 11 in cells of 3 × 4, pooled over the bands' borders
    whole[:7, :11] = textbook(q, k, 0.5)[1][0, 1]
    torch.testing.assert_close(call.image(1, 3), whole.view(3, 3, 3, 4).amax((1, 3)))


def test_a_region_is_pooled_by_its_own_size():
    """Queries 3 … 7 in cells of 3 and 2, keys 1 … 4 in cells of 2."""
    q, k = torch.randn(1, 1, 9, 4), torch.randn(1, 1, 9, 4)
    call, region = computed(q, k, k, 0.5), (3, 8, 1, 5)
    assert call.factor(2, region) == (3, 2) and call.factor(2) == (5, 5)
    part = call.weights(0)[0, 3:8, 1:5]
    expected = [[part[rows, keys].max() for keys in (slice(0, 2), slice(2, 4))] for rows in (slice(0, 3), slice(3, 5))]
    assert torch.equal(call.image(0, 2, region=region), torch.tensor(expected))


def test_by_hand():
    """q = (1, 2), k = (0, ln 3): scores 0 and ln 3 → 1/4, 3/4; then 0 and 2·ln 3 → 1/10, 9/10."""
    q, k = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[0.0], [math.log(3)]]]])
    call = computed(q, k, k, 1.0)
    torch.testing.assert_close(call.weights(0), torch.tensor([[[0.25, 0.75], [0.1, 0.9]]]))


@pytest.mark.parametrize("queries, keys", [(3, 5), (5, 3)])
def test_is_causal_is_top_left_where_queries_and_keys_differ(queries, keys):
    q, k = torch.randn(1, 2, queries, 4), torch.randn(1, 2, keys, 4)
    call = computed(q, k, k, 0.5, causal=True)
    torch.testing.assert_close(call.out, F.scaled_dot_product_attention(q, k, k, is_causal=True, scale=0.5))
    torch.testing.assert_close(torch.stack([call.weights(h) for h in range(2)], 1) @ k, call.out)
    assert call.mask == Causal()


def test_mask_and_bias_say_what_was_given():
    q, k = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 6, 5)
    allowed = torch.rand(2, 1, 4, 6) > 0.5
    additive = torch.randn(1, 3, 4, 6).masked_fill(~allowed[:1], torch.finfo(torch.float32).min)

    def mask(given):
        return computed(q, k, k, 1.0, given)

    assert mask(None).mask == Bidirectional()
    assert mask(None).bias is None
    assert mask(allowed).mask == Dense(allowed)
    assert mask(allowed).bias is None
    assert torch.equal(mask(additive).bias, additive)
    assert torch.equal(mask(additive).mask.dense(4, 6, h=2), allowed[0, 0])
    half = torch.zeros(4, 6, dtype=torch.bfloat16).masked_fill(~allowed[0, 0], -10_000.0)  # rounds to −9,984
    assert torch.equal(mask(half).mask.dense(4, 6), allowed[0, 0])


def test_overwritten_keys_raise_instead_of_lying():
    q, k = torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4)
    call = computed(q, k, k, 1.0, name="layers.0")
    call.weights(0)
    k[..., 0] += 1
    for look in (call.weights, call.scores, call.image, call.value_weighted, call.empty_rows):
        with pytest.raises(RuntimeError, match=r"layers\.0.*in place"):
            look(0)
    with pytest.raises(RuntimeError, match="in place"):
        _ = call.out


def test_inference_tensors_are_taken_as_they_are():
    with torch.inference_mode():
        q = torch.randn(1, 1, 3, 4)
    assert computed(q, q, q, 1.0).weights(0).shape == (1, 3, 3)


def test_seen_weights_are_given_back():
    scores = torch.randn(2, 3, 4, 5)
    scores[0, 0, 1, 2] = -INF
    seen = scores.softmax(-1)
    call = AttentionCall("attn", "self", Seen(scores, seen))
    assert (call.shape, call.kv_heads) == ((2, 3, 4, 5), 3)
    assert torch.equal(call.weights(1, (1, 3)), seen[:, 1, 1:3])
    assert torch.equal(call.scores(0), scores[:, 0])
    assert not call.mask(0, 0, 1, 2)
    assert call.mask(1, 0, 1, 2)
    with pytest.raises(ValueError, match="values were not seen"):
        call.value_weighted(0)
    with pytest.raises(ValueError, match="values were not seen"):
        _ = call.out


def test_nbytes_is_what_is_kept():
    q, k = torch.zeros(2, 4, 5, 8, dtype=torch.bfloat16), torch.zeros(2, 2, 7, 8, dtype=torch.bfloat16)
    assert computed(q, k, k, 1.0).nbytes == 2 * (2 * 4 * 5 * 8 + 2 * 2 * 2 * 7 * 8)


def test_grown_counts_each_axis_by_its_own_length():
    """q 2·4·8, k and v 2·3·8 numbers, for 4 queries and 3 keys: twice the queries and three times the keys."""
    q, k = torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 3, 8)
    grown = 4 * (64 * 2 + 48 * 3)
    masks = ((None, 0), (torch.zeros(4, 3), 12 * 6), (torch.zeros(1, 1, 1, 3), 3 * 3), (torch.zeros(4, 1), 4 * 2))
    for additive, more in masks:
        call = computed(q, k, k, 1.0, additive)
        assert call.grown(8, 9) == grown + 4 * 48 * 3 + 4 * more
        assert call.grown(4, 3) == call.nbytes
    made = Modified(q, k, 1.0, lambda scores, b, h, query, key: scores)
    assert AttentionCall("attn", "self", made).grown(8, 9) == grown
    seen = Seen(torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4))
    assert AttentionCall("attn", "self", seen).grown(8, 9) == 2 * 4 * 24 * 6


def test_scores_that_a_function_makes():
    """A function that hides later keys, with two query heads a key head: the textbook's causal attention."""
    q, k, v = torch.randn(3, 4, 5, 3), torch.randn(3, 2, 5, 3), torch.randn(3, 2, 5, 6)

    def modify(scores, b, h, query, key):
        assert scores.shape == (len(b), len(h), len(query), len(key))
        return scores.masked_fill(key > query[:, None], -INF)

    call = AttentionCall("attn", "self", Modified(q, k, 0.5, modify), v)
    scores, weights = textbook(q, k, 0.5, is_causal=True)
    torch.testing.assert_close(call.scores(3, (1, 4)), scores[:, 3, 1:4])
    torch.testing.assert_close(call.weights(2), weights[:, 2])
    torch.testing.assert_close(call.out, weights @ v.repeat_interleave(2, 1))
    assert torch.equal(call.mask.dense(5, 5), Causal().dense(5))


def test_a_mask_is_obeyed_by_construction_where_it_was_given_as_one():
    q, causal = torch.randn(1, 1, 3, 4), Causal().dense(3)
    assert computed(q, q, q, 1.0, causal=True).obeys(Causal())
    assert computed(q, q, q, 1.0, causal).obeys(Dense(causal))
    assert not computed(q, q, q, 1.0).obeys(Causal())
    bias = torch.zeros(3, 3).masked_fill(~causal, -10_000.0)  # hides by a number only: somebody must look
    assert not computed(q, q, q, 1.0, bias).obeys(Dense(causal))
    scores = torch.zeros(1, 1, 3, 3).masked_fill(~causal, -INF)
    assert not AttentionCall("attn", "self", Seen(scores, scores.softmax(-1))).obeys(Dense(causal))


def test_only_what_the_module_gave_is_told():
    q = torch.randn(1, 1, 3, 4)
    assert computed(q, q, q, 1.0).told
    assert not AttentionCall("attn", "self", Modified(q, q, 1.0, lambda scores, *index: scores)).told
    assert not AttentionCall("attn", "self", Seen(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3))).told


def test_errors_say_what_to_do():
    q = torch.randn(1, 2, 3, 4)
    call = computed(q, q, q, 1.0)
    with pytest.raises(IndexError, match="heads 0 … 1, got 2"):
        call.weights(2)
    with pytest.raises(ValueError, match="step"):
        call.weights(0, slice(0, 3, 2))
    with pytest.raises(ValueError, match="'max' or 'mean'"):
        call.image(0, pool="sum")
    with pytest.raises(ValueError, match="quantity"):
        call.image(0, quantity="logits")
