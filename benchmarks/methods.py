"""How faithful each method of attribution is on inputs that its model never saw: a table for the README.

    python benchmarks/methods.py [--count 200] [--only reviews]

On held-out film reviews (tiny-classifier) and held-out digits (tiny-vit), the model's own answer is attributed by every
method that applies. Comprehensiveness: how much of the answer's chance is lost without the first 1, 5, 10, 20, 50 % of
the units, the mean of the five; more is better. Sufficiency: how much is lost with only these; less is better (DeYoung
et al. 2020). Random orders are the floor. Seconds are those of the attribution alone, on as many threads as torch has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from headwise.interp.analysis.attribution import METHODS, explain, features, why_not
from headwise.interp.analysis.attribution.faithfulness import faithfulness, random_orders
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.capture import capture
from headwise.models import load
from headwise.models.recipes.data import load_digits, load_reviews

MODELS = {"reviews": "tiny-classifier", "digits": "tiny-vit"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="inputs of each kind")
    parser.add_argument("--only", choices=MODELS, help="one kind alone")
    options = parser.parse_args()
    for kind in [options.only] if options.only else MODELS:
        print(table(kind, *measured(kind, options.count)), flush=True)


def inputs(kind: str) -> Iterator[Any]:
    """Held-out inputs, evenly over the whole set."""
    if kind == "reviews":
        yield from (snippet.text for snippet in load_reviews()[1])
        return
    pictures, labels = load_digits()[1]
    by_digit = [pictures[labels == digit] for digit in range(10)]
    for number in range(max(map(len, by_digit))):
        for some in by_digit:
            if number < len(some):
                yield Image.fromarray((some[number] * 255).round().astype(np.uint8))


def measured(kind: str, count: int) -> tuple[dict[str, list[tuple]], int]:
    """For each method, and for random orders, a line (comprehensiveness, sufficiency, better than random, seconds) an
    input; and how many inputs there were."""
    subject, lines, done = load(MODELS[kind]), {"random order": []}, 0
    for raw in inputs(kind):
        try:
            cap = capture(subject, raw)
            wanted = target(cap)
            floor = random_orders(features(cap), wanted)
        except InputError as error:  # one word alone has no order, a text too long for the model no answer
            print(f"left out: {error}", file=sys.stderr)
            continue
        lines["random order"].append((float(floor.comprehensiveness.mean()), float(floor.sufficiency.mean()), None, 0))
        for method in METHODS:
            if why_not(cap, method) is None:
                one = explain(cap, method, wanted)
                test = faithfulness(one, randoms=floor)
                line = (test.comprehensiveness, test.sufficiency, test.better_than_random, one.seconds)
                lines.setdefault(method, []).append(line)
        done += 1
        print(f"\r{kind} {done}", end="", file=sys.stderr)
        if done == count:
            break
    return lines, done


def table(kind: str, lines: dict[str, list[tuple]], count: int) -> str:
    rows = [
        f"\n{count} held-out {kind} ({MODELS[kind]}, {torch.get_num_threads()} threads)\n",
        "| method | comprehensiveness ↑ | sufficiency ↓ | beats random orders | seconds |",
        "|---|---|---|---|---|",
    ]
    means = {method: [mean(column) for column in zip(*found, strict=True)] for method, found in lines.items()}
    for method in sorted(means, key=lambda name: -means[name][0]):
        lost, left, better, seconds = means[method]
        told = f"{better:.0%} | {seconds:.3f}" if better is not None else "| "
        rows.append(f"| {method} | {lost:.3f} | {left:.3f} | {told} |")
    return "\n".join(rows)


def mean(column: tuple) -> float | None:
    return None if None in column else float(np.mean(column))


if __name__ == "__main__":
    main()
