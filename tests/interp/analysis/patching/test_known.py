"""Known results come back: patching and ablation, which share no code but the sweep, name the same heads."""

import pandas as pd
import pytest

from headwise import ablate, capture, load
from headwise.interp.analysis.patching import patch
from headwise.interp.analysis.targets import target

PROMPTS = (  # the first name, the second, which is said again, and the story
    ("Mary", "John", "When {0} and {1} went to the store, {2} gave a drink to"),
    ("Tom", "James", "When {0} and {1} went to the park, {2} gave a book to"),
    ("Anna", "Paul", "After {0} and {1} went to the school, {2} handed a letter to"),
    ("Kate", "Peter", "Then {0} and {1} were at the office, and {2} offered a cup of tea to"),
)


@pytest.fixture(scope="module")
def effects(smollm2_folder):
    """On average: what a head brings back by patching, and what the answer loses by its ablation."""
    subject = load("smollm2-135m")
    found = []
    for one, other, story in PROMPTS:
        clean, corrupted = (capture(subject, story.format(one, other, again)) for again in (other, one))
        aim = target(clean, f" {one}", f" {other}")
        assert aim.value(clean) > 0 > aim.value(corrupted)  # the model tells who is given something
        patched, ablated = patch(clean, corrupted, "heads", aim), ablate(clean, "heads", "mean", aim)
        assert patched["head"].tolist() == ablated["head"].tolist()
        found.append(pd.DataFrame({"patching": patched["effect"], "ablation": -ablated["effect"]}))
    table = sum(found) / len(found)
    table.index = [f"{row.layer}.{row.head}" for row in patched.itertuples()]
    return table


def test_patching_and_ablation_name_the_same_heads(effects):
    """Ablation adds heads of the first layer, which any text needs and both prompts have alike."""
    later = effects[[not name.startswith("0.") for name in effects.index]]
    named = {kind: set(later[kind].nlargest(4).index) for kind in effects}
    assert named["patching"] == named["ablation"] == set(effects["patching"].nlargest(4).index)
    assert later["patching"].idxmax() == later["ablation"].idxmax()


def test_and_the_same_that_speak_against_it(effects):
    """A head that writes the wrong name: without it the answer is clearer (negative name movers, Wang et al. 2023)."""
    assert effects["ablation"].idxmin() in effects["patching"].nsmallest(3).index
