"""Translators of the tuned lens: one affine map for each place of the stream, trained to say early what the model says
at its end (Belrose et al. 2023, §3.1).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.subject import Subject


@dataclass(frozen=True, eq=False)
class Translators:
    """x → x + x Aᵣᵀ + bᵣ for each row r of the lens but the last.

    ``weights`` (R − 1, C, C), ``biases`` (R − 1, C) · ``plain`` and ``gained``: KL to the model's own answer on
    held-out text, in nats, of the logit lens and of this one, for each row.
    """

    weights: Tensor
    biases: Tensor
    plain: tuple[float, ...]
    gained: tuple[float, ...]

    def carry(self, row: int, state: Tensor) -> Tensor:
        """A state (…, C) of one row, in the basis of the last."""
        weight, bias = self.weights[row].to(state), self.biases[row].to(state)
        return state + state @ weight.mT + bias


def translators(subject: Subject, rows: int) -> Translators:
    """Those that came with the subject. Raises InputError where none were trained for it."""
    if subject.tuned_lens is None:
        raise InputError(
            f"No tuned lens has been trained for {subject.name}. Use the logit lens, or a bundled decoder."
        )
    found = read_translators(subject.tuned_lens)
    if len(found.weights) != rows - 1:
        raise InputError(
            f"The tuned lens of {subject.name} is for {len(found.weights)} blocks, but this model has {rows - 1}."
        )
    return found


@lru_cache(maxsize=8)
def read_translators(file: Path) -> Translators:
    """From a safetensors file with "weights", "biases" and, as metadata, the held-out figures."""
    with safe_open(file, "pt") as opened:
        figures = json.loads(opened.metadata()["held_out"])
        weights, biases = opened.get_tensor("weights").float(), opened.get_tensor("biases").float()
    return Translators(weights, biases, tuple(figures["logit_lens"]), tuple(figures["tuned_lens"]))


def divergence(end: Tensor, here: Tensor) -> Tensor:
    """KL(end ‖ here) of logits (…, V) → (…) nats."""
    end, here = end.log_softmax(-1), here.log_softmax(-1)
    return torch.nn.functional.kl_div(here, end, reduction="none", log_target=True).sum(-1)
