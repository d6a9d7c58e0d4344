"""The graph of one answer: runs of all, none and some edges against plain runs, path patches by hand, and what is
known."""

import pytest
import torch

from headwise import capture, load, rerun
from headwise.interp.analysis.circuits.graph import graph
from headwise.interp.analysis.circuits.wires import wires
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.edits import HeadOutput, Query, Replace, Residual
from headwise.interp.run.sweeping import Cancelled

PAIRS = {
    "tiny-decoder": ("The people of the United", "The people of the world"),
    "tiny-attention-only": ("The people of the United", "The people of the world"),
    "tiny-encoder": ("and god said let there be [MASK]", "and man said let there be [MASK]"),  # norms after each write
    "tiny-classifier": ("a good film", "a bad film"),
    "tiny-xlnet": ("The people of the United [MASK]", "The people of the world [MASK]"),  # one stream reads another
    "tiny-encoder-decoder": (("nation", "N EY"), ("motion", "N EY")),  # two streams, sums and norms
}
IOI = "When Mary and John went to the store, {} gave a drink to"


@pytest.fixture(scope="module")
def runs():
    found = {}

    def of(model):
        if model not in found:
            subject = load(model)
            found[model] = tuple(capture(subject, text) for text in PAIRS[model])
        return found[model]

    return of


@pytest.fixture(scope="module")
def decoder(runs):
    clean, other = runs("tiny-decoder")
    return clean, other, wires(clean, other, target(clean))


def edge(found, sender: str, receiver: str, into: str = "") -> tuple[int, int]:
    """(reader, writer) by their names."""
    reader = next(
        n for n, r in enumerate(found.readers) if r.into == into and receiver in map(str, r.nodes)
    )  # fmt: skip
    return reader, next(n for n, w in enumerate(found.writers) if str(w.node) == sender)


@pytest.mark.parametrize("model", PAIRS)
def test_all_edges_are_the_run_and_no_edge_is_the_other(runs, model):
    clean, other = runs(model)
    aim = target(clean)
    found = wires(clean, other, aim)
    everything = found.possible.float()
    assert float(found.run(everything)) == pytest.approx(aim.value(clean), abs=1e-4)
    assert float(found.run(everything * 0)) == pytest.approx(aim.value(other), abs=1e-4)


def test_a_head_that_everybody_hears_and_that_hears_nothing_is_a_resampled_head(decoder):
    """All edges but those into one head are a run in which this head says what it says in the other."""
    clean, other, found = decoder
    wired = found.possible.float()
    for into in "qkv":
        wired[edge(found, "embedding", "head 1·2", into)[0]] = 0
    theirs = other.calls[1].out[:, 2]
    by_hand = target(clean).value(rerun(clean, [Replace(HeadOutput(1, 2), theirs)]))
    assert abs(by_hand - target(clean).value(clean)) > 1e-3
    assert float(found.run(wired)) == pytest.approx(by_hand, abs=1e-4)


def test_one_edge_from_the_other_run_is_a_path_patch_by_hand(decoder):
    """Head 0·0 as the query of head 1·2 alone reads it: a run of the stream that the query would read, then a run with
    that query (Goldowsky-Dill et al. 2023, §2)."""
    clean, _, found = decoder
    wired = found.possible.float()
    reader, writer = edge(found, "head 0·0", "head 1·2", "q")
    wired[reader, writer] = 0
    own = found.writers[writer]
    state = clean.stream.blocks()[1] - own.clean + own.base
    query = rerun(clean, [Replace(Residual(1), state)]).calls[1].query_vectors(2)
    by_hand = target(clean).value(rerun(clean, [Replace(Query(1, 2), query)]))
    assert abs(by_hand - target(clean).value(clean)) > 1e-4
    assert float(found.run(wired)) == pytest.approx(by_hand, abs=1e-4)


def test_one_edge_alone_is_what_it_adds_to_the_other_run(decoder):
    """From the embedding to the answer: the other run's end with this embedding in the place of its own."""
    clean, other, found = decoder
    wired = found.possible.float() * 0
    wired[edge(found, "embedding", "answer")] = 1
    end = other.stream.blocks()[-1] + clean.stream.embedding() - other.stream.embedding()
    by_hand = target(clean).value(rerun(other, [Replace(Residual(3, "after"), end)]))
    assert float(found.run(wired)) == pytest.approx(by_hand, abs=1e-4)


def test_the_gradient_by_an_edge_is_that_of_small_steps(decoder):
    _, _, found = decoder
    wired = (0.5 * found.possible).requires_grad_()
    (gradient,) = torch.autograd.grad(found.run(wired, grad=True), wired)
    for place in (edge(found, "embedding", "head 0·0", "v"), edge(found, "MLP 1", "MLP 3")):
        values = []
        for step in (-0.02, 0.02):
            moved = wired.detach().clone()
            moved[place] += step
            values.append(float(found.run(moved)))
        assert float(gradient[place]) == pytest.approx((values[1] - values[0]) / 0.04, rel=0.05, abs=1e-3)


def test_several_wirings_at_once_are_those_one_by_one(decoder):
    found = decoder[2]
    wired = found.possible.float().repeat(3, 1, 1)
    wired[1, 3] = 0
    wired[2, :, 5] = 0
    alone = torch.stack([found.run(one) for one in wired])
    assert torch.allclose(found.runs(wired), alone, atol=1e-4) and len(set(alone.tolist())) == 3


# -- circuits ---------------------------------------------------------------------------------------------------------
def test_a_circuit_says_what_a_run_of_it_says(runs):
    clean, other = runs("tiny-decoder")
    found = graph(clean, other)
    assert found.restored >= 0.8 and len(found.edges) < 0.1 * found.possible
    network = wires(clean, other, target(clean))
    wired = network.possible.float() * 0
    for one in found.edges:
        wired[edge(network, str(one.sender), str(one.receivers[0]), one.into)] = 1
    value = float(network.run(wired))
    assert value == pytest.approx(found.value, abs=1e-3)
    strongest = found.edges[0]
    wired[edge(network, str(strongest.sender), str(strongest.receivers[0]), strongest.into)] = 0
    assert strongest.effect == pytest.approx(value - float(network.run(wired)), abs=1e-3)
    assert strongest.position == len(clean.axes["input"]) - 1  # where the inputs differ
    assert found.nodes[0].kind == "embedding" and found.nodes[-1].kind == "logits"
    table = found.table()
    assert len(table) == len(found.edges) and table["effect"].abs().is_monotonic_decreasing
    assert f"restore {found.restored:.0%}" in found.sentence


def test_a_part_of_the_other_input_is_no_part_of_the_graph(runs):
    """With everything the same but the last token, nothing can pass at the others."""
    clean, other = runs("tiny-decoder")
    assert {one.position for one in graph(clean, other).edges} == {len(clean.axes["input"]) - 1}


def test_smollm2_names_who_gets_the_drink(smollm2_folder):
    """Indirect object identification (Wang et al. 2023, Figure 2): the second name is noticed at its place, heads bring
    that to the last word, and decide the queries of those that write the name."""
    subject = load("smollm2-135m")
    clean, other = (capture(subject, IOI.format(name)) for name in ("John", "Mary"))
    found = graph(clean, other, "Mary", "John")
    assert found.restored >= 0.8 and len(found.edges) <= 60
    told = {(str(one.sender), str(node), one.into) for one in found.edges for node in one.receivers}
    assert any(into == "q" and end.startswith("head 23·") for _, end, into in told)
    assert {clean.axes["input"].labels[one.position] for one in found.edges} <= {" John", " to"}
    assert found.edges[0].sender.kind == "embedding" and found.edges[0].position == 9


# -- refusals ---------------------------------------------------------------------------------------------------------
def test_what_cannot_be_drawn_is_said_in_a_sentence(runs):
    clean, other = runs("tiny-decoder")
    with pytest.raises(InputError, match="hardly anything"):
        graph(clean, clean)
    with pytest.raises(InputError, match="7 and 4 positions"):
        graph(clean, capture(clean.subject, "The people"))
    with pytest.raises(InputError, match="the same"):
        graph(clean, other, "world", "world")
    with pytest.raises(Cancelled):
        graph(clean, other, cancel=lambda: True)
    both = clean.subject.encode("The people of the United")
    both = {name: torch.cat([value, value]) for name, value in both.kwargs.items()}
    with pytest.raises(InputError, match="one sample"):
        graph(capture(clean.subject, both))


def test_a_search_leaves_nothing_behind(runs):
    clean, other = runs("tiny-attention-only")
    before = capture(clean.subject, PAIRS["tiny-attention-only"][0]).logits
    told = []
    graph(clean, other, progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0
    assert torch.equal(capture(clean.subject, PAIRS["tiny-attention-only"][0]).logits, before)
    assert all(p.grad is None for p in clean.subject.module.parameters())
