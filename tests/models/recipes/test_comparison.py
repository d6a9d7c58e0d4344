"""The variants beside each other: what is written is what was measured, and is measured again where weights changed."""

import json
import re

import pytest

from headwise.assets import ASSETS
from headwise.models.recipes import comparison, recall
from headwise.models.recipes.variants import RUNS, held_out_losses
from headwise.models.sources.bundled import load_bundled

COST = {"tokens_per_second": 1234.5, "spread": 1.25, "bytes": 3 * 2**20}


def row(loss: float, told: float) -> dict:
    return {
        "title": "Some",
        "parameters": 7,
        "loss": {"512": loss, "2048": loss + 1},
        **COST,
        "recall": {str(border): told for border in recall.BORDERS},
    }


def test_a_table_by_hand():
    lines = comparison.table({"one": row(3.25, 0.5), "other": row(4, 0.031)}).splitlines()
    assert lines[0].split("|")[2:5] == [" loss, 512 ", " loss, 2,048 ", " tokens/s "]
    assert lines[2] == "| Some | 3.250 | 4.250 | 1,234 | 3 MiB | 50% | 50% | 50% | 50% | 50% |"
    assert len({line.count("|") for line in lines[:4]}) == 1 and "by chance 3%" in " ".join(lines)


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    """(folder, names as they are measured, how many are timed together): two models, measured in no time."""
    names, timed = [], []
    monkeypatch.setattr(comparison, "ASSETS", tmp_path)
    monkeypatch.setattr(comparison, "FILE", tmp_path / "variants.json")
    monkeypatch.setattr(comparison, "RUNS", {name: RUNS[name] for name in ("tiny-full", "tiny-lstm")})

    def measured(run):
        names.append(run.name)
        return {key: value for key, value in row(len(names), 0.25).items() if key not in COST}

    monkeypatch.setattr(comparison, "measured", measured)
    monkeypatch.setattr(comparison, "costs", lambda runs: timed.append(len(runs)) or {r.name: COST for r in runs})
    for name in comparison.RUNS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
        (tmp_path / name / "README.md").write_text(f"# {name}\n\nWhat it is.\n", encoding="utf-8")
    return tmp_path, names, timed


def test_it_goes_on_where_it_was_and_measures_new_weights_again(measuring):
    folder, names, timed = measuring
    text = comparison.compared(lambda line: None)
    assert names == ["tiny-full", "tiny-lstm"] and list(comparison.rows()) == names
    comparison.compared(lambda line: None)
    assert len(names) == 2 and timed == [2]
    (folder / "tiny-full" / "model.safetensors").write_bytes(b"other")
    again = comparison.compared(lambda line: None)
    assert names == ["tiny-full", "tiny-lstm", "tiny-full"] and again != text and timed == [2, 2]
    for name in comparison.RUNS:
        card = (folder / name / "README.md").read_text("utf-8")
        assert card.startswith(f"# {name}\n\nWhat it is.\n\n{comparison.HEADING}") and card.endswith(f"{again}\n")
        assert card.count(comparison.HEADING) == 1


def test_all_are_measured_and_their_cards_hold_the_table():
    known = comparison.rows()
    assert list(known) == list(RUNS)
    text = comparison.table(known)
    assert all(text in (ASSETS / name / "README.md").read_text("utf-8") for name in RUNS)
    assert json.loads(comparison.FILE.read_text("utf-8")) == known
    for name, one in known.items():
        assert one["parameters"] == sum(p.numel() for p in load_bundled(name)[0].parameters()) <= 1.5e6
        told = re.search(r"^loss, 512 tokens +([\d.]+)", (ASSETS / name / "README.md").read_text("utf-8"), re.MULTILINE)
        assert float(told[1]) == pytest.approx(one["loss"]["512"], abs=2e-4)


def test_what_the_mechanisms_recall_is_what_they_reach():
    """Full attention recalls at any distance; a window of 32 in two layers ends at 64; so does a state of fixed size,
    sooner or later."""
    known = {name: one["recall"] for name, one in comparison.rows().items()}
    assert min(known["tiny-full"].values()) > 0.99
    assert known["tiny-longformer"]["64"] > 0.9 > 0.1 > known["tiny-longformer"]["256"]
    assert known["tiny-lstm"]["16"] > 0.9 > 0.1 > known["tiny-lstm"]["4096"]
    for far in ("1024", "4096"):
        assert known["tiny-performer"][far] > known["tiny-reformer"][far] > known["tiny-transformer-xl"][far]


def test_a_held_out_loss_again():
    module, tokenizers, _ = load_bundled("tiny-lstm")
    losses = held_out_losses(module, tokenizers["text"])
    known = comparison.rows()["tiny-lstm"]["loss"]
    assert known == pytest.approx({str(window): nats for window, (nats, _) in losses.items()}, abs=1e-4)
