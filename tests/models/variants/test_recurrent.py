"""Transformer-XL, relative attention, ALiBi, T5's buckets and grouped queries: what they equal, steps, no leak."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import capture, check, masks, wrap
from headwise.interp.attention.report import gap
from headwise.models.architectures.blocks import Attention
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.variants import mechanism
from headwise.models.variants.grouped import Grouped
from headwise.models.variants.positions import T5, Buckets, Pairs, Slopes, bucket, slopes
from headwise.models.variants.relative import Distances, Relative, skewed
from headwise.models.variants.transformer_xl import Recurrence, TransformerXL
from tests.models.variants.decoding import assert_padding_changes_nothing, assert_steps_are_the_forward, some_ids

H, D = 2, 8


def tensors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_pair(by: Pairs, q: torch.Tensor, keys: int) -> torch.Tensor:
    """What is added to the scores, one query and one key at a time."""
    rows = [
        [by.added(q[:, :, i : i + 1], torch.tensor([i + by.before]), torch.tensor([j])) for j in range(keys)]
        for i in range(q.shape[2])
    ]
    return torch.cat([torch.cat([cell.expand(1, H, 1, 1) for cell in row], 3) for row in rows], 2)


mechanisms = st.one_of(
    st.builds(Pairs, causal=st.booleans()),
    st.builds(Slopes, causal=st.booleans(), each=st.just((0.5, 0.25))),
    st.builds(Buckets, causal=st.booleans(), table=st.just(tensors(8, H)), furthest=st.integers(8, 40)),
    st.builds(Distances, causal=st.booleans(), distances=st.integers(1, 40).map(lambda reach: tensors(H, reach, D))),
    st.builds(
        Recurrence,
        causal=st.booleans(), segment=st.integers(1, 40), memory=st.integers(0, 40),
        distances=st.just(tensors(H, 80, D)), u=st.just(tensors(H, D, seed=1)), v=st.just(tensors(H, D, seed=2)),
    ),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(by=mechanisms, length=st.integers(1, 24))
def test_output_is_full_attention_with_what_is_added_pair_by_pair(by, length):
    q, k, v = tensors(3, 1, H, length, D)
    mask = by.mask(length).dense(length, length)
    added = torch.zeros(1) if type(by) is Pairs else by_pair(by, q, length)
    scores = by.content(q) @ k.mT * D**-0.5 + added
    wanted = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v
    got = by.output(q, k, v)
    assert torch.allclose(got, wanted, atol=1e-5)
    assert gap(by.form(q, k), v, got) < 1e-5


@pytest.mark.parametrize("rows, keys", [(1, 1), (1, 5), (4, 4), (3, 7), (7, 3)])
def test_skewing_is_the_naive_relative_form(rows, keys):
    q, embedded = (
        tensors(1, H, rows, D),
        tensors(H, keys + rows - 1, D, seed=1),
    )  # distances from keys − 1 down to 1 − rows
    naive = torch.zeros(1, H, rows, keys)
    for i in range(rows):
        for j in range(keys):
            naive[..., i, j] = (q[:, :, i] * embedded[:, rows - 1 - i + j]).sum(-1)
    assert torch.allclose(skewed(q @ embedded.mT), naive, atol=1e-6)


def test_long_texts_go_in_bands():
    q, k, v = tensors(3, 1, H, 600, D)  # more than two bands
    for by in (Slopes(each=(0.5, 0.25)), Distances(distances=tensors(H, 50, D)), Pairs()):
        bias = torch.zeros(1)
        if type(by) is not Pairs:
            bias = by.added(q, torch.arange(600), torch.arange(600))
        scores = (q @ k.mT * D**-0.5 + bias).masked_fill(~masks.Causal().dense(600), -torch.inf)
        assert torch.allclose(by.output(q, k, v), scores.softmax(-1) @ v, atol=1e-5)


# -- against the field ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16])
def test_slopes_are_those_of_bloom(heads):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 5), heads, torch.float32).view(heads, 5)  # slope × position of the key
    assert torch.allclose(theirs[:, 1], torch.tensor(slopes(heads)))
    by, q = Slopes(each=slopes(heads)), tensors(1, heads, 5, D)
    ours = by.added(q, torch.arange(5), torch.arange(5)).masked_fill(~masks.Causal().dense(5), -torch.inf)
    same = theirs[:, None].expand(-1, 5, -1).masked_fill(~masks.Causal().dense(5), -torch.inf)
    assert torch.allclose(ours.softmax(-1), same.softmax(-1), atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("buckets, furthest", [(32, 128), (8, 20), (16, 300)])
def test_buckets_are_those_of_t5(causal, buckets, furthest):
    from transformers.models.t5.modeling_t5 import T5Attention

    back = torch.arange(-500, 500)
    theirs = T5Attention._relative_position_bucket(-back, not causal, buckets, furthest)
    assert torch.equal(bucket(back, buckets, furthest, causal), theirs)


def test_one_group_a_head_is_full_attention_and_groups_repeat():
    torch.manual_seed(0)
    x, plain, grouped = tensors(2, 9, 16), Attention(16, 4), Grouped(16, 4, groups=2)
    for part in ("query", "output"):
        getattr(plain, part).load_state_dict(getattr(grouped, part).state_dict())
    for part in ("key", "value"):
        for name, t in getattr(grouped, part).named_parameters():
            repeated = t.unflatten(0, (2, 4)).repeat_interleave(2, 0).flatten(0, 1)
            getattr(getattr(plain, part), name).data.copy_(repeated)
    assert torch.allclose(grouped(x, causal=True), plain(x, causal=True), atol=1e-6)
    alone = Grouped(16, 4, groups=4)
    alone.load_state_dict(plain.state_dict())
    assert torch.allclose(alone(x, causal=True), plain(x, causal=True), atol=1e-6)


# -- Transformer-XL ------------------------------------------------------------------------------------------------
def recurrent(segment: int, memory: int) -> TransformerXL:
    torch.manual_seed(0)
    module = TransformerXL(16, H, segment, memory)
    for bias in (module.about_content, module.about_distance):
        torch.nn.init.normal_(bias)
    return module


def test_with_memory_a_layer_is_full_attention_over_the_joined_segments():
    x = tensors(2, 12, 16)
    whole, parts = recurrent(segment=12, memory=0), recurrent(segment=6, memory=6)
    parts.load_state_dict(whole.state_dict())
    joined = whole(x, causal=True)
    assert torch.allclose(parts(x, causal=True), joined, atol=1e-6)
    assert torch.allclose(parts(x[:, 6:], past=x[:, :6]), joined[:, 6:], atol=1e-6)  # the first segment's states given


@settings(max_examples=30, deadline=None)
@given(segment=st.integers(1, 12), memory=st.integers(0, 12), length=st.integers(1, 30))
def test_one_pass_is_segment_after_segment_with_the_memory_of_the_last(segment, memory, length):
    module, x = recurrent(segment, memory), tensors(1, length, 16)
    outs = []
    for start in range(0, length, segment):
        before = x[:, max(0, start - memory) : start]
        outs.append(module(x[:, start : start + segment], past=before))
    assert torch.allclose(module(x, causal=True), torch.cat(outs, 1), atol=1e-5)


class Next(torch.nn.Module):
    """One layer after a segment that was there before."""

    def __init__(self, attention: TransformerXL, memory: torch.Tensor):
        super().__init__()
        self.attention, self.memory = attention, memory

    def forward(self, x):
        return self.attention(x, past=self.memory)


def test_the_keys_of_the_memory_are_named():
    cap = capture(wrap(Next(recurrent(4, 3), tensors(1, 3, 16)), kind="decoder"), {"x": tensors(1, 4, 16, seed=1)})
    (call,) = cap.calls
    assert call.kind == "self" and call.mask == masks.Causal(3)
    assert call.key_axis.labels == ("memory −3", "memory −2", "memory −1", *call.query_axis.labels)
    assert call.weights(0)[:, 0, :4].sum() == pytest.approx(1)


OPTIONS = {
    "transformer_xl": {"segment": 5, "memory": 4},
    "relative": {"reach": 12},
    "alibi": {},
    "t5": {"buckets": 8, "furthest": 20},
    "grouped": {"groups": 1},
}


def decoder(name: str) -> VariantDecoder:
    torch.manual_seed(0)
    positions = "rotary" if name == "grouped" else "none"
    config = VariantConfig(
        name, 13, context=300, layers=2, heads=2, width=16, positions=positions, options=OPTIONS[name]
    )
    module = VariantDecoder(config).eval()
    for name, t in module.named_parameters():
        if name.rpartition(".")[2] in ("table", "distances", "about_content", "about_distance"):
            torch.nn.init.normal_(t)
    return module


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("chunks", [(1,) * 41, (7, 1, 20, 13), (41,)], ids=len)
def test_steps_are_the_forward(name, chunks):
    assert_steps_are_the_forward(decoder(name), some_ids(41, 2), chunks)


def test_a_memory_is_no_longer_than_it_says():
    _, (_, states) = decoder("transformer_xl").step(torch.zeros(1, 33, dtype=torch.long))
    assert [state.k.shape[2] for state in states] == [4 + 33 % 5] * 2


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_and_its_calls_are_true(name, side):
    assert_padding_changes_nothing(decoder(name), side)


@pytest.mark.parametrize("name", OPTIONS)
def test_no_leak_is_found_and_a_planted_one_is(name, monkeypatch):
    options = {"expect": masks.Causal(), "step": lambda model, ids, cache: model.step(ids, cache)}
    report = check(decoder(name), **options)
    assert report.ok, report
    kind = mechanism(name)
    honest = kind.bound
    monkeypatch.setattr(kind, "bound", lambda self, causal: honest(self, False))
    found = check(decoder(name), **options)
    assert not found.ok and any(f.module == "blocks.0.attention" for f in found.findings), found


def test_a_memory_that_is_one_token_late_is_found(monkeypatch):
    """Steps that forget the oldest key of the memory no longer give what the whole text gives."""
    from headwise.models.variants.steps import Memory

    honest = Memory.last
    monkeypatch.setattr(Memory, "last", lambda self, count: honest(self, max(0, count - 1)))
    step = {"step": lambda model, ids, cache: model.step(ids, cache)}
    found = check(decoder("transformer_xl"), masks.Causal(), **step)
    assert any(f.cls == "cache" for f in found.findings), found


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: TransformerXL(16, 2, segment=0), "segments of 1 token or more.*got 0 and 64"),
        (lambda: TransformerXL(16, 2, memory=-1), "memory of 0 or more; got 64 and -1"),
        (lambda: Relative(16, 2, reach=0), "reach expects a number of distances, 1 or more; got 0"),
        (lambda: Grouped(16, 4, groups=3), "divides the 4 heads; got 3"),
        (lambda: T5(16, 2, buckets=2), "4 buckets or more, and furthest no smaller; got 2 and 128"),
        (
            lambda: TransformerXL(16, 2, 4)(torch.zeros(1, 5, 16), past=torch.zeros(1, 2, 16)),
            "at most 4 tokens.*got 5 tokens",
        ),
    ],
)
def test_bad_input_is_one_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_text_shorter_than_a_segment_is_causal_attention_in_it():
    by = Recurrence(segment=50, memory=50, distances=torch.zeros(H, 100, D), u=torch.zeros(H, D), v=torch.zeros(H, D))
    q, k, v = tensors(3, 1, H, 7, D)
    assert torch.allclose(by.output(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=1e-6)
