"""Heads in words: known heads come back, and each score is one that was computed another way."""

import pytest
import torch
from PIL import Image
from torch import nn

from headwise import capture, load
from headwise.interp.analysis.circuits.roles import COLUMNS, ROLES, roles
from headwise.interp.analysis.metrics import induction, sweep
from headwise.interp.attention.axes import Axis
from headwise.interp.errors import InputError
from headwise.interp.run.capture import rerun
from headwise.interp.run.edits import MeanHead
from headwise.interp.run.sweeping import Cancelled
from headwise.interp.subject import Inputs, Subject, tensors_only

IOI = "When Mary and John went to the store, John gave a drink to"


class Given(nn.Module):
    """Attention whose weights are those it is given."""

    def forward(self, weights):
        return weights.log().softmax(-1) @ torch.eye(weights.shape[-1])


def by_hand(rows, labels, family="encoder"):
    weights = torch.tensor(rows)[None, None]  # one sample, one head
    inputs = Inputs({"weights": weights}, {"input": Axis(labels)})
    return capture(Subject(Given(), tensors_only(Given()), "given", family), inputs)


@pytest.fixture(scope="module")
def smol():
    return capture(load("smollm2-135m"), IOI)


@pytest.fixture(scope="module")
def found(smol):
    return roles(smol, " Mary", " John")


def one(table, role, layer, head):
    return table[(table["role"] == role) & (table["layer"] == layer) & (table["head"] == head)]


def test_four_tokens_by_hand():
    """a b a b; each row is told what it gives."""
    rows = [[0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7], [0.5, 0.1, 0.2, 0.2], [0.1, 0.7, 0.1, 0.1]]
    table = roles_without_answer(by_hand(rows, ("a", "b", "a", "b")))
    same = table[table["role"] == "duplicate token"]
    assert same["score"].item() == pytest.approx((0.7 + 0.7 + 0.5 + 0.7) / 4)
    assert same["evidence"].item() == "on this text it gives 65% of its weight to another place of the same token"
    assert set(table["role"]) == {"duplicate token"}

    rows = [[0.1, 0.8, 0.1], [0.3, 0.1, 0.6], [0.9, 0.05, 0.05]]
    table = roles_without_answer(by_hand(rows, ("a", "b", "c"))).set_index("role")
    assert table["score"]["next token"] == pytest.approx((0.8 + 0.6) / 2)  # the last has none after it
    assert table["score"]["first token"] == pytest.approx((0.3 + 0.9) / 2)
    assert "gives 60% of its weight to a, the first position" in table["evidence"]["first token"]


def roles_without_answer(cap):
    table = roles(cap)
    assert list(table) == COLUMNS
    assert "no scores of tokens" in table.attrs["untested"][-1]
    return table


def test_the_textbook_circuit():
    cap = capture(load("tiny-attention-only"), "The people of the United States")
    table = roles(cap)
    scores = induction(cap.subject).set_index(["layer", "head"])["induction"]
    previous = sweep(cap).set_index(["layer", "head"])["previous"][0, 1]
    assert one(table, "previous token", 0, 1)["score"].item() == pytest.approx(previous)
    assert previous > 0.8
    heads = table[table["role"] == "induction"]
    assert set(zip(heads["layer"], heads["head"], strict=True)) == set(scores[scores >= 0.4].index)
    assert one(table, "induction", 1, 3)["score"].item() == pytest.approx(scores[1, 3])


def test_scores_on_random_tokens_are_taken_where_they_are_there():
    cap = capture(load("tiny-attention-only"), "The people")
    scores = induction(cap.subject)
    scores["induction"] = 0.0
    scores.loc[(scores["layer"] == 0) & (scores["head"] == 2), "induction"] = 0.5
    table = roles(cap, scores=scores)
    assert list(table[table["role"] == "induction"]["head"]) == [2]


def test_who_moves_the_name_against_products_by_hand(smol, found):
    """What 23·3 puts onto ·John from where it stands: weights as Hugging Face's eager attention has them, values and
    output projection as its modules do, the last norm x · scale · weight (RMSNorm)."""
    module, kept = smol.subject.module, {}
    layer = module.model.layers[23].self_attn
    hooks = [
        layer.v_proj.register_forward_hook(lambda m, a, out: kept.update(v=out)),
        module.model.norm.register_forward_pre_hook(lambda m, a: kept.update(end=a[0])),
    ]
    implementation = module.config._attn_implementation
    module.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            weights = module(**smol.inputs.kwargs, output_attentions=True).attentions[23][0, 3, -1].double()
    finally:
        module.set_attn_implementation(implementation)
        for hook in hooks:
            hook.remove()
    john = smol.subject.encode("to John").kwargs["input_ids"][0, 1].item()
    places = [3, 9]
    values = kept["v"][0, :, 64:128].double()  # heads 3 to 5 share key/value head 1
    moved = (weights[places] @ values[places]) @ layer.o_proj.weight[:, 3 * 64 : 4 * 64].double().mT
    scale = (kept["end"][0, -1].double().pow(2).mean() + module.model.norm.variance_epsilon).rsqrt()
    reads = module.lm_head.weight.double() - module.lm_head.weight.double().mean(0)  # over the mean logit
    put = float(moved * scale * module.model.norm.weight.double() @ reads[john])
    row = smol.logits[0, -1].double()
    mary = smol.subject.encode("to Mary").kwargs["input_ids"][0, 1].item()

    told = one(found, "copy suppression", 23, 3)
    assert put < -2
    assert told["score"].item() == pytest.approx(-put / float(row[mary] - row.mean()), rel=1e-3)
    effect = rerun(smol, [MeanHead(23, 3)]).logits[0, -1]
    change = float(effect[mary] - effect[john] - row[mary] + row[john])
    said = (
        f"from ·to (13) it gives {float(weights[places].sum()):.0%} of its weight to ·John and puts {put:+.2f} logits "
    )
    said += f"onto ·John from there; replaced by its mean, ·Mary − ·John changes by {change:+.2f}"
    assert told["evidence"].item() == said.replace("-", "−")


def test_known_heads_of_a_real_model(found):
    assert not one(found, "name mover", 23, 0).empty
    assert not one(found, "copy suppression", 24, 4).empty
    assert not one(found, "induction", 18, 6).empty and not one(found, "duplicate token", 14, 3).empty
    assert (found["score"] >= found["role"].map(lambda role: ROLES[role].least)).all()
    assert found["layer"].is_monotonic_increasing


@pytest.mark.parametrize(
    "model, raw, heads, why",
    [
        (
            "tiny-encoder",
            "He came to [MASK].",
            {("previous token", 0, 0), ("next token", 0, 3)},
            "gelu",
        ),
        ("tiny-classifier", "A moving film.", {("previous token", 0, 0)}, "answers with a class"),
        ("tiny-vit", Image.new("L", (28, 28)), set(), "Patches lie in two directions"),
        ("tiny-encoder-decoder", ("knight", None), set(), "does not read"),
    ],
)
def test_every_kind_of_model_says_what_was_not_looked_for(model, raw, heads, why):
    cap = capture(load(model), raw)
    table = roles(cap)
    assert heads <= set(zip(table["role"], table["layer"], table["head"], strict=True))
    assert any(why in sentence for sentence in table.attrs["untested"])


def test_an_answer_that_is_its_own_alternative_is_refused(smol):
    with pytest.raises(InputError, match="are the same"):
        roles(capture(load("tiny-decoder"), "The people"), " people", " people")


def test_it_can_be_stopped_and_says_how_far_it_is():
    cap, told = capture(load("tiny-attention-only"), "The people"), []
    roles(cap, progress=told.append)
    assert told == sorted(told) and told[-1] == 1
    with pytest.raises(Cancelled):
        roles(cap, cancel=lambda: len(told) > 0)
