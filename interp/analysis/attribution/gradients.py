"""Which input tokens a prediction rests on: integrated gradients over the input embeddings (Sundararajan et al.
2017), by captum.

Captum's layer methods hook modules, which other threads' runs would pass through too. Here the embedding is
replaced for this thread alone, at ``F.embedding``, so captum sees a plain function of one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from headwise.interp.errors import InputError
from headwise.interp.run.outputs import primary
from headwise.interp.run.parts import token_table
from headwise.interp.subject import Inputs, Subject


@dataclass(frozen=True, eq=False)
class Attribution:
    """``scores`` (T,): what each token adds to the target's logit. ``gap``: how far their sum is from the change of
    the logit that they explain, relative to it; the method's own check, 0 is exact."""

    scores: Tensor
    target: int  # token id whose logit is explained
    position: int  # output position
    gap: float


class _Embedded(TorchFunctionMode):
    """Inside, looking up tokens in this table gives these vectors."""

    def __init__(self, table: Tensor, vectors: Tensor):
        super().__init__()
        self.table, self.vectors = table, vectors

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.embedding and args[1].data_ptr() == self.table.data_ptr():
            return self.vectors
        return func(*args, **(kwargs or {}))


def attribute(subject: Subject, raw, position: int = -1, target: int | None = None, steps: int = 64) -> Attribution:
    """Integrated gradients of one logit with respect to the input tokens, against an all-zero embedding.

    ``position`` is the output looked at, ``target`` a token id there, by default the one the model predicts. The
    sum of the scores is logit(text) − logit(zero baseline), up to ``gap``. Raises InputError for subjects without
    token ids and logits.
    """
    from captum.attr import IntegratedGradients

    inputs: Inputs = raw if isinstance(raw, Inputs) else subject.encode(raw)
    ids = inputs.kwargs.get("input_ids")
    if not isinstance(ids, Tensor) or subject.vocab_size is None:
        raise InputError(f"{subject.name} reads no token ids, so there are no tokens to attribute to.")
    table = token_table(subject.module, subject.vocab_size)
    if table is None:
        raise InputError(f"{subject.name} has no token embedding of {subject.vocab_size} rows.")
    embedded = F.embedding(ids, table)  # (1, T, C)

    def logit(vectors: Tensor) -> Tensor:
        """(S, T, C) → (S,)"""
        results = []
        for one in vectors.unbind():
            with _Embedded(table, one[None]):
                results.append(primary(subject.module(**inputs.kwargs))[0, position])
        logits = torch.stack(results)  # (S, V)
        return logits if target is None else logits[:, target]

    if target is None:
        with torch.no_grad():
            target = int(logit(embedded).argmax())
    with torch.enable_grad():
        scores, gap = IntegratedGradients(logit).attribute(
            embedded,
            baselines=torch.zeros_like(embedded),
            n_steps=steps,
            internal_batch_size=8,
            return_convergence_delta=True,
        )
    scores = scores[0].sum(-1).detach()  # (T,)
    return Attribution(scores, target, position % ids.shape[1], float(gap.abs().max() / (scores.sum().abs() + 1e-12)))
