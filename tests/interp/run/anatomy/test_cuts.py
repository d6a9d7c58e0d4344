"""A correct anatomy is cut, and the check fails: adding up is no proof that all parts are there."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from headwise.interp.run.anatomy.describe import anatomy_of
from headwise.interp.run.anatomy.discover import trace
from headwise.interp.run.anatomy.doubts import breaks, doubts
from headwise.interp.run.anatomy.streams import Chain, chains
from headwise.interp.subject import Inputs
from headwise.models import wrap
from tests.interp.run.anatomy.made import disturbed

SMALL = {"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 60}
GPT = {"n_layer": 4, "n_embd": 32, "n_head": 4, "vocab_size": 60, "n_positions": 64}
ROTARY = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "gpt2": (AutoModelForCausalLM, GPT),
    "gpt_neox": (AutoModelForCausalLM, {**SMALL, "bos_token_id": 1, "eos_token_id": 2}),
    "llama": (AutoModelForCausalLM, ROTARY),
    "gemma2": (AutoModelForCausalLM, {**ROTARY, "query_pre_attn_scalar": 8}),
    "olmo2": (AutoModelForCausalLM, ROTARY),
    "falcon": (AutoModelForCausalLM, {**SMALL, "bos_token_id": 1, "eos_token_id": 2}),
    "bert": (AutoModelForMaskedLM, SMALL),
    "distilbert": (AutoModelForMaskedLM, {"n_layers": 4, "dim": 32, "n_heads": 4, "hidden_dim": 48, "vocab_size": 60}),
    "t5": (AutoModelForSeq2SeqLM, {"num_layers": 3, "d_model": 32, "num_heads": 4, "d_kv": 8, "d_ff": 48}),
    "vit": (AutoModel, {**SMALL, "image_size": 32, "patch_size": 8}),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def traced(request):
    """(subject, graph, calls, the correct chains) of one architecture."""
    name = request.param
    auto, options = MODELS[name]
    options = {k: v for k, v in options.items() if not (name == "vit" and k == "vocab_size")}
    torch.manual_seed(0)
    subject = wrap(disturbed(auto.from_config(AutoConfig.for_model(name, **options))), name=name)
    ids = torch.randint(5, 60, (2, 14))
    given = {"pixel_values": torch.randn(2, 3, 32, 32)} if name == "vit" else {"input_ids": ids}
    given |= {"decoder_input_ids": ids[:, :11]} if name == "t5" else {}
    graph, calls = trace(subject, Inputs(given))
    return subject, graph, calls, chains(graph)[0]


def said(traced, found):
    """What the check says of these chains: all its reasons."""
    subject, graph, calls, _ = traced
    return anatomy_of(subject, graph, calls, found, ()).refused


def test_the_correct_one_passes(traced):
    subject, graph, calls, found = traced
    made = anatomy_of(subject, graph, calls, found, ())
    assert made.streams and not made.refused and made.proof.exact and made.proof.worst <= 1e-5


def test_without_its_mlps(traced):
    first, *rest = traced[3]
    cut = replace(first, writes=[w for w in first.writes if w.kind != "mlp"])
    assert len(cut.writes) < len(first.writes)
    assert any("do not add up" in reason for reason in said(traced, [cut, *rest]))


def test_without_one_write(traced):
    first, *rest = traced[3]
    assert any("do not add up" in reason for reason in said(traced, [replace(first, writes=first.writes[1:]), *rest]))


def halves(chain):
    """The two streams a chain comes out as when the step in its middle is not seen as one. Each adds up."""
    middle = len(chain.line) // 2
    while chain.line[middle] not in [w.after for w in chain.writes]:
        middle += 1
    state = chain.line[middle]
    before = [w for w in chain.writes if w.after in chain.line[: middle + 1]]
    after = [w for w in chain.writes if w not in before]
    first = Chain(chain.origin, chain.line[: middle + 1], before, chain.early, chain.blocks, chain.style)
    return first, Chain([state], chain.line[middle:], after, [], chain.blocks, chain.style)


def test_cut_in_two(traced):
    first, *rest = traced[3]
    early, late = halves(first)
    assert any("not whole" in reason for reason in said(traced, [late, early, *rest]))


@pytest.mark.parametrize("half", [0, 1])
def test_one_half_of_its_chain(traced, half):
    first, *rest = traced[3]
    assert any("not whole" in reason for reason in said(traced, [halves(first)[half], *rest]))


def test_with_a_hidden_write(traced):
    """A write that is counted twice, as one that is not there would be."""
    first, *rest = traced[3]
    extra = replace(first.writes[-1])
    assert any("do not add up" in r for r in said(traced, [replace(first, writes=[*first.writes, extra]), *rest]))


def test_a_whole_block_as_one_write(traced):
    """As in x + block(x): the state before the last write is taken for a write itself."""
    _, graph, _, (first, *rest) = traced
    state = first.line[0]
    wrong = replace(first.writes[-1], value=state)
    assert any("x + block(x)" in r for r in doubts(graph, replace(first, writes=[*first.writes[:-1], wrong]), [first]))
    assert not breaks(graph, [first, *rest])
