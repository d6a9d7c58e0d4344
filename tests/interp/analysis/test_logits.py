"""Direct contributions against products by hand, and what must add up adds up."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import capture, load
from headwise.interp.analysis.logits import by_position, logit_attribution, strongest
from headwise.interp.analysis.targets import Target
from headwise.interp.errors import InputError

IOI = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def smol():
    return capture(load("smollm2-135m"), IOI)


@pytest.fixture(scope="module")
def small():
    return capture(load("tiny-decoder"), "The people of the United States")


def test_parts_add_up_to_the_logit_difference(smol):
    table = logit_attribution(smol, "Mary", "John")
    row = smol.logits[0, -1]
    ids = smol.subject.encode("to Mary John").kwargs["input_ids"][0, 1:].tolist()
    own = float(row[ids[0]] - row[ids[1]])
    assert table.attrs["own"] == pytest.approx(own, abs=1e-4)
    assert table["value"].sum() == pytest.approx(own, abs=1e-4)
    assert abs(table.attrs["remainder"]) < 1e-4
    assert (table["part"] == "head").sum() == 270 and (table["part"] == "mlp").sum() == 30


def test_a_head_and_an_mlp_against_products_by_hand(smol):
    """Llama's parts: o_proj's columns are the heads', the last norm is x · scale · weight (RMSNorm)."""
    module, kept = smol.subject.module, {}
    layer = module.model.layers[23]
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda m, a: kept.update(z=a[0])),
        layer.mlp.register_forward_hook(lambda m, a, out: kept.update(mlp=out)),
        module.model.norm.register_forward_pre_hook(lambda m, a: kept.update(end=a[0])),
    ]
    with torch.no_grad():
        module(**smol.inputs.kwargs)
    for hook in hooks:
        hook.remove()
    ids = smol.subject.encode("to Mary John").kwargs["input_ids"][0, 1:].tolist()
    norm = module.model.norm
    scale = (kept["end"][0, -1].double().pow(2).mean() + norm.variance_epsilon).rsqrt()
    towards = (module.lm_head.weight[ids[0]] - module.lm_head.weight[ids[1]]).double() * norm.weight.double() * scale
    head = kept["z"][0, -1, 3 * 64 : 4 * 64].double() @ layer.self_attn.o_proj.weight[:, 3 * 64 : 4 * 64].double().mT
    table = logit_attribution(smol, "Mary", "John")
    found = table[(table["layer"] == 23) & (table["head"] == 3)]["value"].item()
    assert found == pytest.approx(float(head @ towards), abs=1e-5)
    found = table[(table["part"] == "mlp") & (table["block"] == 23)]["value"].item()
    assert found == pytest.approx(float(kept["mlp"][0, -1].double() @ towards), abs=1e-5)


def test_the_name_mover_fetches_from_the_name(smol):
    """The head that writes most of " Mary" looks at " Mary" (Wang et al. 2023, §3.1)."""
    table = by_position(smol, "Mary", "John")
    assert table.loc[table["value"].idxmax(), "token"] == " Mary"
    heads = logit_attribution(smol, "Mary", "John")
    fetched = heads[heads["part"] == "head"]["value"].sum()
    assert table["value"].sum() == pytest.approx(fetched, abs=1e-4)
    assert table.attrs["rest"] == pytest.approx(table.attrs["own"] - fetched, abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(token=st.integers(0, 2047), against=st.integers(0, 2047), position=st.integers(0, 7))
def test_parts_add_up_whatever_is_asked(small, token, against, position):
    if token == against:
        against = None
    target = Target(token, against, position)
    table = logit_attribution(small, target)
    assert table["value"].sum() == pytest.approx(target.value(small), abs=2e-5)


def test_an_encoder_decoder_has_cross_heads_that_fetch_from_the_source():
    cap = capture(load("tiny-encoder-decoder"), "through")
    table = logit_attribution(cap)
    assert table["value"].sum() == pytest.approx(table.attrs["own"], abs=1e-5)
    assert {"decoder", "cross"} <= set(table["stack"])
    assert set(by_position(cap)["sequence"]) == {"self", "cross"}


def test_the_rest_is_summed_by_kind(smol):
    table = logit_attribution(smol, "Mary", "John")
    short = strongest(table, 5)
    assert short["value"].sum() == pytest.approx(table["value"].sum(), abs=1e-9)
    assert short["name"].str.contains("other heads").any() and len(short) < 12


def test_what_has_no_direct_readout_is_refused_with_the_reason():
    with pytest.raises(InputError, match="cannot be split into direct contributions"):
        logit_attribution(capture(load("tiny-encoder"), "The capital of France is [MASK] ."))


def test_log_probabilities_do_not_add_up(small):
    with pytest.raises(InputError, match="not to log-probabilities"):
        logit_attribution(small, Target(3, None, 1, measure="log-probability"))


def test_an_answer_that_is_its_own_alternative_is_refused(smol):
    with pytest.raises(InputError, match="the same"):
        logit_attribution(smol, "Mary", "Mary")


def test_all_parts_are_those_of_transformerlens(smol):
    """TransformerLens 4.3 on the same weights and text, by its cache and the final norm held still
    (benchmarks/transformerlens.py wrote the figures)."""
    peer = json.loads((Path(__file__).parent / "transformerlens.json").read_text("utf-8"))
    assert peer["text"] == IOI
    table = logit_attribution(smol, "Mary", "John")
    assert table.attrs["own"] == pytest.approx(peer["plain"], abs=1e-4)
    heads = table[table["part"] == "head"]
    found = {f"L{layer}H{head}": value for layer, head, value in heads[["layer", "head", "value"]].to_numpy()}
    assert found.keys() == peer["attribution of heads"].keys()
    assert max(abs(found[name] - value) for name, value in peer["attribution of heads"].items()) < 1e-4
    whole = {f"{block}_mlp_out": v for block, v in table[table["part"] == "mlp"][["block", "value"]].to_numpy()}
    whole |= {f"{block}_attn_out": value for block, value in heads.groupby("layer")["value"].sum().items()}
    whole["embed"] = table[table["part"] == "embedding"]["value"].sum()
    assert whole.keys() == peer["attribution"].keys()
    assert max(abs(whole[name] - value) for name, value in peer["attribution"].items()) < 1e-4
