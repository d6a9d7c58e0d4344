"""One score taken apart, against products made by hand and against the queries and keys that plain forward hooks see
in Hugging Face's own modules."""

import math

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from headwise import capture, edits, load, rerun, wrap
from headwise.interp.analysis.neuron import looks_most, neuron, rotary_pairs
from headwise.interp.drawing.matrix import FORBIDDEN
from headwise.interp.drawing.neurons import neuron_map, part_names, position_name, steps
from headwise.interp.errors import InputError
from headwise.interp.run.sites import Scores
from tests.interp.run.test_parity import COMMON, GPT, GROUPED, T5, build
from tests.interp.run.test_products import ByHand

IDS = {"input_ids": torch.randint(2, 98, (1, 7), generator=torch.Generator().manual_seed(0))}


class Two(nn.Module):
    """Attention whose queries and keys are given: one head, two dimensions."""

    def forward(self, q, k, mask=None):
        return nn.functional.scaled_dot_product_attention(q, k, k, mask, scale=0.5)


Q = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
K = torch.tensor([[2.0, 1.0], [-4.0, 0.5], [0.0, 2.0]])


def two(mask=None):
    given = {"q": Q[None, None], "k": K[None, None]} | ({} if mask is None else {"mask": mask})
    return capture(wrap(Two()), given)


def test_by_hand():
    """Query (3, −1) and key (−4, 0.5): 0.5 · (−12) and 0.5 · (−0.5), −6.25 in all; the others score 2.5 and −1."""
    found = neuron(two(), 0, 0, query=1, key=1)
    assert found.table.to_dict("list") == {
        "dimension": [0, 1],
        "q": [3.0, -1.0],
        "k": [-4.0, 0.5],
        "value": [-6.0, -0.25],
        "share": [-0.96, -0.04],
    }
    assert (found.scale, found.total, found.bias, found.score, found.remainder) == (0.5, -6.25, 0.0, -6.25, 0.0)
    whole = math.exp(2.5) + math.exp(-6.25) + math.exp(-1)
    assert found.weight == pytest.approx(math.exp(-6.25) / whole, rel=1e-5)
    assert found.rank == 3 and found.at(0).rank == 1 and neuron(two(), 0, 0, query=1).key == 0
    assert looks_most(found.call, 0, key=1) == 0  # −1.5 of (2, −1.5, 2) against −6.25 of (2.5, −6.25, −1)


def test_a_pair_is_two_lengths_and_an_angle():
    """|(3, −1)| · |(2, 1)| · cos = 5; the key lies 45° further on: atan2(1, 2) − atan2(−1, 3)."""
    found = neuron(two(), 0, 0, query=1, key=0, pairs=[(0, 1)])
    (row,) = found.table.to_dict("records")
    assert (row["dimension"], row["partner"]) == (0, 1)
    assert row["q"] == pytest.approx(math.sqrt(10)) and row["k"] == pytest.approx(math.sqrt(5))
    assert row["angle"] == pytest.approx(45.0)
    assert row["value"] == pytest.approx(2.5) == 0.5 * row["q"] * row["k"] * math.cos(math.radians(row["angle"]))


def test_bias_and_mask():
    bias = torch.tensor([[0.0, 0.0, 0.0], [0.25, -2.0, 1.0]])
    found = neuron(two(bias), 0, 0, query=1, key=1)
    assert (found.total, found.bias, found.score, found.remainder) == (-6.25, -2.0, -8.25, 0.0)
    hidden = torch.tensor([[True, True, True], [True, False, True]])
    for mask in (hidden, torch.zeros(2, 3).masked_fill(~hidden, torch.finfo(torch.float32).min)):
        found = neuron(two(mask), 0, 0, query=1, key=1)
        assert found.hidden and found.total == -6.25 and found.weight == 0 and found.remainder == 0
        assert steps(found)[-1].end == -6.25
        assert neuron_map(two(mask), found).forbidden.tolist() == [[0, 0], [FORBIDDEN] * 2, [0, 0]]


def test_what_a_score_function_made_is_named():
    from torch.nn.attention.flex_attention import flex_attention

    class Capped(nn.Module):
        def forward(self, q, k):
            return flex_attention(q, k, k, score_mod=lambda s, *_: 2 * torch.tanh(s / 2) + 1, scale=0.5)

    q, k = torch.randn(1, 1, 4, 16), torch.randn(1, 1, 4, 16)
    found = neuron(capture(wrap(Capped()), {"q": q, "k": k}), 0, 0, query=2, key=1)
    plain = float(q[0, 0, 2] @ k[0, 0, 1]) / 2
    assert not found.told and found.total == pytest.approx(plain, abs=1e-5)
    assert found.score == pytest.approx(2 * math.tanh(plain / 2) + 1, abs=1e-5)
    assert found.bias == pytest.approx(found.score - plain, abs=1e-5) and abs(found.remainder) < 1e-5


def test_by_hand_written_attention_too():
    cap = capture(wrap(ByHand(lambda q, k: 0.5 * q @ k.mT)), torch.randn(2, 5, 12))
    found = neuron(cap, 0, 1, query=3, key=2)
    module = cap.subject.module
    torch.testing.assert_close(found.values[2], (0.5 * module.q[0, 1, 3] * module.k[0, 1, 2]).detach().double())
    assert abs(found.bias) < 1e-6 and abs(found.remainder) < 1e-6


# -- Hugging Face -------------------------------------------------------------------------------------------------
def hooked(module: nn.Module, *paths: str, **more) -> list:
    """What modules make of the first sample, by plain forward hooks."""
    made = {}
    hooks = [module.get_submodule(p).register_forward_hook(lambda m, i, out, p=p: made.update({p: out})) for p in paths]
    with torch.no_grad():
        module(**IDS, **more)
    for hook in hooks:
        hook.remove()
    return [made[p] if isinstance(made[p], tuple) else made[p][0] for p in paths]


def rows(x: torch.Tensor, head: int, width: int = 8) -> torch.Tensor:
    return x[:, head * width : (head + 1) * width]


def assert_parts(found, q, k, scale):
    """q (D,), k (K, D) by Hugging Face's modules."""
    np.testing.assert_allclose(found.values.numpy(), (q * k).numpy() * scale, atol=1e-5)
    assert found.scale == pytest.approx(scale)
    error = abs(found.remainder) / max(abs(found.score), float(found.values[found.key].abs().sum()))
    assert error < 1e-6


def test_bert():
    module = build("Bert", COMMON)
    q, k = hooked(module, *(f"encoder.layer.1.attention.self.{name}" for name in ("query", "key")))
    assert_parts(neuron(capture(wrap(module), IDS), 1, 2, query=5, key=3), rows(q, 2)[5], rows(k, 2), 8**-0.5)


def test_gpt2():
    module = build("GPT2", GPT)
    (qkv,) = hooked(module, "h.1.attn.c_attn")
    q, k, _ = qkv.split(32, -1)
    found = neuron(capture(wrap(module), IDS), 1, 2, query=5, key=3)
    assert_parts(found, rows(q, 2)[5], rows(k, 2), 8**-0.5)
    assert found.at(6).hidden and found.at(6).weight == 0


def turned(x: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """Hugging Face's own rotary positions on (T, D)."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    cos, sin = module.rotary_emb(x[None], torch.arange(len(x))[None])
    return apply_rotary_pos_emb(x[None, None], x[None, None], cos, sin)[0][0, 0]


def test_llama_is_rotary_and_shares_keys():
    """Head 3 of four meets key head 1 of two. Pair d, d + 4 turns by the distance: the angle of the pair is that of
    the unturned vectors plus (n − m)·θ_d."""
    module = build("Llama", GROUPED)
    q, k = hooked(module, "layers.1.self_attn.q_proj", "layers.1.self_attn.k_proj")
    plain_q, plain_k = rows(q, 3), rows(k, 1)
    cap = capture(wrap(module), IDS)
    found = neuron(cap, 1, 3, query=5, key=2, pairs=[(d, d + 4) for d in range(4)])
    assert_parts(neuron(cap, 1, 3, query=5, key=2), turned(plain_q, module)[5], turned(plain_k, module), 8**-0.5)
    for d, row in enumerate(found.table.to_dict("records")):
        pair = [d, d + 4]
        a, b = (torch.view_as_complex(x[i, pair].contiguous()) for x, i in ((plain_q, 5), (plain_k, 2)))
        theta = 10_000.0 ** (-2 * d / 8)
        met = b * a.conj() * torch.exp(torch.tensor(1j * (2 - 5) * theta))
        assert row["q"] == pytest.approx(float(a.abs()), rel=1e-4)
        assert row["k"] == pytest.approx(float(b.abs()), rel=1e-4)
        turn = math.degrees(float(met.angle())) - row["angle"]
        assert abs((turn + 180) % 360 - 180) < 0.1
        assert row["value"] == pytest.approx(float(met.real) * 8**-0.5, abs=1e-5)


def test_t5_has_a_bias_and_no_scale():
    module = build("T5", T5, transformers.AutoModelForSeq2SeqLM)
    decoder, first = {"decoder_input_ids": IDS["input_ids"]}, "encoder.block.0.layer.0.SelfAttention"
    q, k, made = hooked(module, f"{first}.q", f"{first}.k", first, **decoder)
    bias = next(t for t in made if isinstance(t, torch.Tensor) and t.shape == (1, 4, 7, 7))
    found = neuron(capture(wrap(module, kind="encoder-decoder"), IDS | decoder), 0, 2, query=5, key=3, stack="encoder")
    assert_parts(found, rows(q, 2)[5], rows(k, 2), 1.0)
    assert found.bias == pytest.approx(float(bias[0, 2, 5, 3]), abs=1e-6) != 0


# -- always -------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts_always_add_up(data):
    torch.manual_seed(data.draw(st.integers(0, 999)))
    kv, group = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    queries, keys = (data.draw(st.integers(2, 8)) for _ in range(2))
    width = data.draw(st.sampled_from([11, 13, 23]))  # no product of heads and positions: those might be channels
    q, k = torch.randn(2, kv * group, queries, width), torch.randn(2, kv, keys, width)
    masks = (None, torch.rand(queries, keys) > 0.3, torch.randn(1, kv * group, queries, keys))
    mask = masks[data.draw(st.integers(0, 2))]

    class One(nn.Module):
        def forward(self, q, k):
            return nn.functional.scaled_dot_product_attention(q, k, k, mask, enable_gqa=True)

    cap = capture(wrap(One()), {"q": q, "k": k})
    pairs = [(d, d + width // 2) for d in range(width // 2)] if data.draw(st.booleans()) else []
    head, query, key = (data.draw(st.integers(0, n - 1)) for n in (kv * group, queries, keys))
    found = neuron(cap, 0, head, query, key, pairs=pairs)
    product = float(q[0, head, query].double() @ k[0, head // group, key].double()) / math.sqrt(width)
    assert sorted(d for part in found.parts for d in part) == list(range(width))
    assert found.table.value.sum() == pytest.approx(found.total) == pytest.approx(product, abs=1e-6)
    assert found.hidden or abs(found.score - found.table.value.sum() - found.bias) < 1e-5
    assert found.table.share.abs().sum() == pytest.approx(1)
    for most, by_size in ((1, True), (3, False), (8, True)):
        made = steps(found, most, by_size)
        assert [a.end for a in made[:-2]] == [b.start for b in made[1:-1]] and made[0].start == 0
        assert made[-1].end == pytest.approx(made[-2].end, abs=1e-5)
        assert sum(s.value for s in made[:-1]) == pytest.approx(made[-1].value, abs=1e-5)


def test_real_weights_add_up(smollm2_folder):
    cap = capture(load(str(smollm2_folder)), "When Mary and John went to the store, John gave a drink to")
    for layer in (0, 14, 29):
        found = neuron(cap, layer, 4, query=13)
        assert abs(found.remainder) < 1e-6 * float(found.values[found.key].abs().sum())


# -- what it is called, and what is not there ---------------------------------------------------------------------
def test_the_map_and_its_names():
    cap = capture(load("tiny-decoder"), "The people of the United States")
    found = neuron(cap, 1, 5, query=4, key=2)
    shown = neuron_map(cap, found)
    assert shown.values.shape == (5, 32) and shown.rows.name == "keys" and shown.columns.name == "dimensions"
    torch.testing.assert_close(shown.values.double(), found.values[:5], atol=1e-6, rtol=0)
    assert shown.queries == cap.axes["input"].labels[:5]
    narrow = neuron_map(cap, found, within=(3, 8), most=2)
    assert (narrow.rows.origin, len(narrow.rows)) == (2, 2)  # the chosen key is always there
    paired = neuron(cap, 1, 5, query=4, key=2, pairs=[(d, d + 1) for d in range(0, 32, 2)])
    assert part_names(paired)[:2] == ("0+1", "2+3") and neuron_map(cap, paired).columns.name == "pairs"
    halves = neuron(cap, 1, 5, query=4, key=2, pairs=[(d, d + 16) for d in range(16)])
    assert part_names(halves) == tuple(map(str, range(16)))
    assert position_name(cap.axes["input"], 4).endswith(" 4")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"layer": 9}, "No attention call in layer 9"),
        ({"stack": "encoder"}, "No attention call in layer 1"),
        ({"head": 8}, "layer 1 has heads 0 … 7; got 8."),
        ({"query": 99}, "queries 0 … 7; got 99."),
        ({"key": -1}, "keys 0 … 7; got -1."),
        ({"pairs": [(0, 40)]}, "dimensions 0 … 31; got 40."),
        ({"pairs": [(0, 1), (1, 2)]}, "pairs expects each dimension once"),
        ({"pairs": [(0, 1, 2)]}, "pairs expects each dimension once"),
    ],
)
def test_what_is_not_there_is_one_sentence(asked, said):
    cap = capture(load("tiny-decoder"), "The people of the United States")
    with pytest.raises(InputError, match=said.replace("[", r"\[").replace("(", r"\(")):
        neuron(cap, **({"layer": 1, "head": 0, "query": 1} | asked))


def test_scores_only_is_one_sentence():
    cap = capture(wrap(ByHand(lambda q, k: -torch.cdist(q, k))), torch.randn(2, 5, 12))
    with pytest.raises(InputError, match="only its scores were seen"):
        neuron(cap, 0, 0, query=1)


def test_rotary_pairs_are_those_that_the_anatomy_proves():
    """Llama pairs d with d + D / 2, GPT-J neighbours, here the first four dimensions of eight; GPT-2 turns nothing."""
    halves, neighbours = tuple((d, d + 4) for d in range(4)), ((0, 1), (2, 3))
    auto = transformers.AutoModelForCausalLM
    turns = (("Llama", GROUPED, halves), ("GPTJ", GPT | {"rotary_dim": 4}, neighbours), ("GPT2", GPT, ()))
    for name, options, pairs in turns:
        cap = capture(wrap(build(name, options, auto)), IDS)
        assert rotary_pairs(cap, cap.calls[1]) == pairs
    found = neuron(capture(wrap(build("GPTJ", GPT | {"rotary_dim": 4}, auto)), IDS), 0, 1, query=5, pairs=neighbours)
    assert found.parts == ((0, 1), (2, 3), (4,), (5,), (6,), (7,))
    assert found.table.partner.isna().tolist() == found.table.angle.isna().tolist() == [False] * 2 + [True] * 4


def test_an_edited_run_is_taken_apart_too():
    """Scores that an edit replaced: the parts are still q·k·scale, and what the edit made of them stands beside."""
    cap = capture(load("tiny-decoder"), "The people of the United States")
    plain = neuron(cap, 1, 5, query=4, key=2)
    edited = neuron(rerun(cap, [edits.Scale(Scores(1, 5), 2.0)]), 1, 5, query=4, key=2)
    assert edited.total == pytest.approx(plain.total, abs=1e-5)
    assert edited.score == pytest.approx(2 * plain.score, abs=1e-4) and abs(edited.remainder) < 1e-5
