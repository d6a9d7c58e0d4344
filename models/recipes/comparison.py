"""All variants beside each other: ``headwise evaluate variants`` measures each, prints the table, and writes it into
``assets/variants.json`` and the models' cards.

Speed and memory are those of one core and one forward pass, in time of the processor. A machine may be twice as fast in
one minute as in the next, so all models are timed in turns, round after round, and each keeps its best; ``spread`` is
its slowest round over its best.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from headwise.assets import ASSETS
from headwise.models.recipes import recall
from headwise.models.recipes.variants import MEASURED, RECIPE, RUNS, TOKENS_PER_STEP, Run, held_out_losses
from headwise.models.sources.bundled import load_bundled
from headwise.models.variants.peak import peak_bytes

FILE = ASSETS / "variants.json"
TOKENS = 4096  # of the pass that is timed
ROUNDS = 6
VOCABULARY = 2048  # of tiny-decoder's tokenizer
HEADING = "**Beside the others**"

Row = dict[str, Any]


def rows() -> dict[str, Row]:
    """What was measured last: name → its row."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def compared(progress: Callable[[str], None] = print) -> str:
    """Measure what is not measured yet, or was trained anew, → the table; the file and the cards hold it too."""
    known = rows()
    for name, run in RUNS.items():
        made = _made(name)
        if known.get(name, {}).get("made") != made:
            progress(f"{name} …")
            known = {**rows(), name: {"made": made, **measured(run)}}  # without its speed, so all are timed again
            _keep(known)
    if not all("tokens_per_second" in row for row in known.values()):
        progress("speed and memory of all, in turns …")
        found = costs([RUNS[name] for name in known])
        known = {name: {**row, **found[name]} for name, row in known.items()}
        _keep(known)
    text = table(known)
    for name in RUNS:
        _write(name, text)
    return text


def measured(run: Run) -> Row:
    """What one model can, and what it costs."""
    module, tokenizers, _ = load_bundled(run.name)
    following = run.following(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            "title": run.title,
            "parameters": sum(p.numel() for p in module.parameters()),
            "loss": {str(window): nats for window, (nats, _) in held_out_losses(following, tokenizers["text"]).items()},
            "recall": {str(border): share for border, share in _recall(run).items()},
        }
    finally:
        torch.set_num_threads(threads)


TOLD = """\
Loss in nats a token of the held-out speeches, after the same {steps:,} steps of {batch:,} tokens. Tokens a second of
one core, and the memory that torch holds at the peak (the logits alone are {logits:.0f} MiB), of one pass over
{tokens:,} tokens; the best of {rounds} rounds in turns, of which the slowest took up to {spread:.1f} times as long.
Recalled: the share of values told right so many tokens after their key stood beside them, by models of {layers} layers
and width {width} that learned only this, in {lessons} steps (`models/recipes/recall.py`); by chance {chance:.0%}. One
seed each; no setting was tuned but the LSTM's (four tries, see its card). XLNet spent half of its steps on orders other
than the one that is measured."""


@torch.no_grad()
def costs(runs: Sequence[Run]) -> dict[str, Row]:
    """Name → tokens a second, bytes at the peak, and how far the rounds lie apart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ids = torch.randint(VOCABULARY, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    passes = {run.name: partial(run.following(load_bundled(run.name)[0]), ids) for run in runs}
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    try:
        for turn in range(ROUNDS + 1):
            for name, call in passes.items():
                began = time.process_time()
                call()
                if turn:  # the first lays plans
                    seconds[name].append(time.process_time() - began)
        return {
            name: {
                "tokens_per_second": TOKENS / min(seconds[name]),
                "spread": max(seconds[name]) / min(seconds[name]),
                "bytes": peak_bytes(call),
            }
            for name, call in passes.items()
        }
    finally:
        torch.set_num_threads(threads)


def table(known: dict[str, Row]) -> str:
    """Markdown."""
    borders = recall.BORDERS
    heads = [f"loss, {window:,}" for window in MEASURED] + ["tokens/s", "memory", f"recalled, ≤ {borders[0]}"]
    heads += [f"≤ {border:,}" for border in borders[1:]]
    lines = [_line(["", *heads]), _line(["---", *["---:"] * len(heads)])]
    for row in known.values():
        memory = f"{row['bytes'] / 2**20:,.0f} MiB"
        cells = [
            *(f"{row['loss'][str(window)]:.3f}" for window in MEASURED),
            f"{row['tokens_per_second']:,.0f}",
            memory,
        ]
        lines.append(_line([row["title"], *cells, *(f"{row['recall'][str(border)]:.0%}" for border in borders)]))
    told = TOLD.format(
        steps=RECIPE.steps,
        batch=TOKENS_PER_STEP,
        tokens=TOKENS,
        rounds=ROUNDS,
        logits=TOKENS * VOCABULARY * 4 / 2**20,
        spread=max(row["spread"] for row in known.values()),
        layers=recall.SIZE["layers"],
        width=recall.SIZE["width"],
        lessons=recall.RECIPE.steps,
        chance=1 / recall.VALUES,
    )
    return "\n".join([*lines, "", told])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _made(name: str) -> str:
    """Of what a row tells: the weights, and what was asked."""
    weights = (ASSETS / name / "model.safetensors").read_bytes()
    return hashlib.sha256(weights + repr((recall.RECIPE, recall.TEXTS, TOKENS)).encode()).hexdigest()


def _recall(run: Run) -> dict[int, float]:
    return recall.recalled(run.following(recall.learn(run)))


def _keep(known: dict[str, Row]) -> None:
    ordered = {name: known[name] for name in RUNS if name in known}
    FILE.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def _write(name: str, text: str) -> None:
    """The card's last part."""
    card = ASSETS / name / "README.md"
    before = card.read_text(encoding="utf-8").split(HEADING)[0].rstrip()
    card.write_text(f"{before}\n\n{HEADING}, by `headwise evaluate variants`:\n\n{text}\n", encoding="utf-8")
