"""Where heads look, counted cell by cell; and the map on which those that look alike lie together."""

import numpy as np
import pytest

from headwise import capture, load
from headwise.interp.analysis.comparing.compare import compare
from headwise.interp.analysis.comparing.likeness import head_map
from headwise.interp.analysis.comparing.places import KINDS, kinds_of, shares
from headwise.interp.analysis.metrics import sweep
from headwise.interp.errors import InputError
from headwise.models import read_image
from tests.browser.serving import ROOT

VERSE = "And God saw the light, that it was good, and God was glad."


def kind_by_hand(axis, query, key):
    """The kind of a cell of a text, in words."""
    if query == key:
        return "itself"
    if key == query - 1:
        return "before"
    if key == query + 1:
        return "after"
    if key == 0:
        return "first"
    if axis.special is not None and axis.special[key]:
        return "special"
    if axis.labels[query] == axis.labels[key]:
        return "same"
    return "near" if abs(query - key) <= 4 else "far"


@pytest.mark.parametrize("model", ["tiny-encoder", "tiny-decoder"])
def test_shares_cell_by_cell(model):
    cap = capture(load(model), VERSE)
    table = shares(cap)
    call, axis = cap.find(1), cap.axes["input"]
    first = 1 if model == "tiny-decoder" else 0  # a decoder's first query has no choice
    wanted = dict.fromkeys(KINDS, 0.0)
    weights = call.weights(2)[0].double()
    for query in range(first, len(axis)):
        for key in range(len(axis)):
            wanted[kind_by_hand(axis, query, key)] += float(weights[query, key]) / (len(axis) - first)
    row = table[(table["layer"] == 1) & (table["head"] == 2)].iloc[0]
    for name in KINDS:
        assert row.get(name, 0.0) == pytest.approx(wanted[name], abs=1e-6), name
    assert table[[name for name in KINDS if name in table]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert row["entropy"] == pytest.approx(sweep(cap).set_index(["layer", "head"])["entropy_normalised"][1, 2])


def test_patches_have_neighbours_in_two_directions():
    cap = capture(load("tiny-vit"), read_image(ROOT / "assets/examples/seven.png"))
    names, kinds = kinds_of(cap.calls[0])
    assert names == ("itself", "first", "beside", "far")
    corner, inner = 1, 1 + 7 + 1  # [CLS] comes first; seven patches a row
    assert (kinds[corner] == names.index("beside")).sum() == 3 and (kinds[inner] == names.index("beside")).sum() == 8
    assert kinds[inner, corner] == names.index("beside") and kinds[inner, 0] == names.index("first")
    assert kinds[1 + 6, 1 + 7] == names.index("far")  # the end of a row and the start of the next do not touch


def test_heads_that_look_alike_lie_together():
    found = head_map(capture(load("tiny-encoder"), VERSE))
    table = found.table.set_index(["layer", "head"])
    assert found.method == "pca" and len(table) == 24
    assert "position before" in found.groups[table["group"][0, 0]].name  # heads of layer 0 as they were started
    assert "position after" in found.groups[table["group"][0, 3]].name
    sizes = table["group"].value_counts()
    assert [group.count for group in found.groups] == [sizes[number] for number in range(len(found.groups))]
    for number, group in enumerate(found.groups):
        members = table[table["group"] == number]
        assert group.shares["near"] == pytest.approx(members["near"].mean())


def test_two_runs_on_one_map():
    cap = capture(load("tiny-attention-only"), VERSE)
    table = head_map(compare(cap, cap)).table
    one, other = (table[table["side"] == side].set_index(["layer", "head"])[["x", "y"]] for side in ("one", "other"))
    assert np.allclose(one, other)  # the same head is at the same place
    small = head_map(compare(cap, capture(load("tiny-decoder"), VERSE))).table
    assert small["side"].value_counts().to_dict() == {"other": 32, "one": 8}
    place = small.set_index(["side", "layer", "head"])[["x", "y"]]
    nearest = (place.loc["other"] - place.loc[("one", 0, 1)]).pow(2).sum(axis=1).idxmin()
    assert nearest == (0, 1)  # the two previous-token heads


def test_many_heads_are_laid_out_by_their_neighbours():
    cap = capture(load("smollm2-135m"), "The cat sat on the mat.")
    found = head_map(cap)
    assert found.method == "tsne" and len(found.table) == 270 and np.isfinite(found.table[["x", "y"]]).all(None)
    assert len(head_map(cap, groups=6).groups) == 6


def test_too_few_heads_and_no_such_stack_are_refused():
    with pytest.raises(InputError, match="no stack 'cross'"):
        head_map(capture(load("tiny-decoder"), VERSE), "cross")
    with pytest.raises(InputError, match="at least 3 heads"):
        head_map(capture(load("bart-phonemes"), ("knight", None)))
