"""What editing costs: every head of SmolLM2-135M removed in turn on a 16-token prompt, in three ways and one run.

    python benchmarks/edits.py [NAME] [--heads 270]

- plain      as many plain forward passes
- rerun      ``rerun(cap, edits)``: resolved on a capture that exists, one run an edit
- capture    ``capture(subject, text, edits=…)``: a plain run resolves the edit, a second one makes it
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from headwise import capture, edits, load, rerun

TEXT = "When Mary and John went to the store, John gave a drink to"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="smollm2-135m", help="a model that `load` knows")
    parser.add_argument("--heads", type=int, default=270, help="of the model's first layers on")
    options = parser.parse_args()
    subject = load(options.name)
    cap = capture(subject, TEXT)
    places = [(call.layer, head) for call in cap.stack() for head in range(call.heads)][: options.heads]

    def timed(work) -> float:
        work(*places[0])  # warm
        began = time.perf_counter()
        for place in places:
            work(*place)
        return time.perf_counter() - began

    def plain(layer: int, head: int) -> None:
        with torch.no_grad():
            subject.module(**cap.inputs.kwargs)

    ways = {
        "plain": plain,
        "rerun": lambda layer, head: rerun(cap, (edits.ZeroHead(layer, head),)).logits_at(-1),
        "capture": lambda layer, head: capture(subject, TEXT, (edits.ZeroHead(layer, head),)).logits_at(-1),
    }
    print(f"{subject.name}, {len(cap.axes['input'])} tokens, {len(places)} heads removed one at a time")
    seconds = {name: timed(work) for name, work in ways.items()}
    for name, value in seconds.items():
        times = value / seconds["plain"], value / seconds["capture"]
        print(f"{name:10} {value:8.1f} s {times[0]:6.2f} × plain {times[1]:6.2f} × capture")


if __name__ == "__main__":
    main()
