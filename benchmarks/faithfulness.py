"""What Quantus (Hedström et al. 2023) says of the faithfulness of given scores on two bundled models, for the tests.

    pip install quantus==0.6.0      # in an environment of its own: it brings OpenCV
    python benchmarks/faithfulness.py [tests/interp/analysis/attribution/quantus.json]

Its Pixel-Flipping (Bach et al. 2015) takes parts of an input away one by one and writes down the chance of the answer:
the highest scores first, which is our deletion curve, and with the scores' signs turned the lowest first, which is our
insertion curve read from its end. The scores are drawn at random, rounded, and written beside. The models are only run
here, through hooks on their own modules.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import quantus
import torch
from torch import Tensor, nn

from headwise.models import load, read_image

REVIEW = "A moving and wonderfully acted film, full of wit and warmth."
ROOT = Path(__file__).parents[1]
DIGIT = ROOT / "assets/examples/seven.png"
PLACE = ROOT / "tests/interp/analysis/attribution/quantus.json"
LAST = -1e6  # a score by which a part is taken away after all others


class Embedded(nn.Module):
    """A classifier as a function of the vectors (B, T, C) that it looks up for one text."""

    def __init__(self, module: nn.Module, ids: Tensor, **more: Tensor):
        super().__init__()
        self.module, self.ids, self.more = module, ids, more
        self.table = next(m for m in module.modules() if isinstance(m, nn.Embedding))

    def forward(self, vectors: Tensor) -> Tensor:
        hook = self.table.register_forward_hook(lambda *_: vectors)
        copies = len(vectors)
        try:
            more = {name: one.expand(copies, -1) for name, one in self.more.items()}
            return _logits(self.module(self.ids.expand(copies, -1), **more))
        finally:
            hook.remove()


def _logits(output) -> Tensor:
    return output if isinstance(output, Tensor) else output["logits"]


def flipped(model: nn.Module, x: Tensor, answer: int, scores: np.ndarray, size: int) -> list[float]:
    """The chance of the answer after each part, of ``size`` numbers, that Pixel-Flipping takes away: the highest of
    ``scores``, laid out like ``x``, first."""
    metric = quantus.PixelFlipping(
        features_in_step=size, perturb_baseline=0.0, normalise=False, disable_warnings=True, abs=False
    )
    (curve,) = metric(
        model=model.eval(), x_batch=x.numpy(), y_batch=np.array([answer]), a_batch=scores[None], channel_first=True,
        softmax=True, device="cpu",
    )  # fmt: skip
    return [round(float(value), 7) for value in curve]


def of_picture() -> dict:
    subject = load("tiny-vit")
    x = subject.encode(read_image(DIGIT)).kwargs["pixel_values"]
    answer = int(_logits(subject.module(x)).argmax())
    grid, patch = subject.module.config.grid, subject.module.config.patch
    scores = np.round(np.random.default_rng(0).standard_normal(grid * grid), 4)
    laid = np.kron(scores.reshape(grid, grid), np.ones((patch, patch)))[None].repeat(x.shape[1], 0)
    size = patch * patch * x.shape[1]
    curves = {
        "highest first": flipped(subject.module, x, answer, laid, size),
        "lowest first": flipped(subject.module, x, answer, -laid, size),
    }
    return {"model": "tiny-vit", "answer": answer, "scores": scores.tolist(), "baseline": "zero", **curves}


def of_text() -> dict:
    subject = load("tiny-classifier")
    inputs = subject.encode(REVIEW)
    kwargs = dict(inputs.kwargs)
    model = Embedded(subject.module, kwargs.pop("input_ids"), **kwargs)
    x = model.table(model.ids).detach()
    answer = int(_logits(subject.module(model.ids, **kwargs)).argmax())
    special = np.array(inputs.axes["input"].special)
    scores = np.where(special, 0, np.round(np.random.default_rng(1).standard_normal(len(special)), 4))
    curves = {}
    for name, sign in (("highest first", 1), ("lowest first", -1)):
        laid = np.where(special, LAST, sign * scores)[:, None].repeat(x.shape[2], 1)
        curves[name] = flipped(model, x, answer, laid, x.shape[2])[: int((~special).sum())]
    return {"model": "tiny-classifier", "answer": answer, "scores": scores.tolist(), "baseline": "zero", **curves}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", nargs="?", default=PLACE, type=Path)
    place = parser.parse_args().place
    place.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        found = {"quantus": quantus.__version__, "text": REVIEW, "cases": [of_picture(), of_text()]}
    place.write_text(json.dumps(found) + "\n", "utf-8")
    for case in found["cases"]:
        print(case["model"], case["highest first"][:4], case["lowest first"][:4])


if __name__ == "__main__":
    main()
