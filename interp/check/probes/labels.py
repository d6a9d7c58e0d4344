"""L: the loss compares each output with the next token, once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.findings import found, why
from headwise.interp.check.findings.sentences import WHY
from headwise.interp.check.report import Finding

SHIFTED_INSIDE, SHIFTED_OUTSIDE = ("labels", "label", "lm_labels"), ("targets", "target", "y")


def labels(bench: Bench):
    target, name = bench.target, _argument(bench)
    x, outside = bench.x.first, name in SHIFTED_OUTSIDE
    ids = target.feed.other_ids(x, seed=263) if target.decodes_a_source else x
    given = torch.cat([x[:, 1:], x[:, :1]], 1) if outside else ids
    try:
        raw = target.raw(bench.x, **{name: given})
    except Refused as refusal:
        raise DoesNotApply(f"{name}= raised {refusal.kind}: {str(refusal)[:100]}") from refusal
    loss = _loss(raw)
    if loss is None:
        raise DoesNotApply("it returns no scalar loss")
    logits = bench.run(bench.x)
    values = {shift: _cross_entropy(logits, given, shift) for shift in (-1, 0, 1, 2, 3)}
    close = [shift for shift, value in values.items() if abs(value - float(loss)) <= 1e-3 * max(1.0, abs(value))]
    promised = 0 if target.decodes_a_source or not bench.expect.is_causal() or outside else 1
    if promised in close:
        return f"the loss of {name} is the cross-entropy {'as given' if promised == 0 else 'with the next token'}"
    if not close:
        raise DoesNotApply("the loss is no plain cross-entropy of these logits")
    effect = abs(values[promised] - float(loss)) / max(1e-9, abs(values[promised]))
    yield _shifted(bench, name, close[0], effect)
    return f"the loss of {name}"


def _argument(bench: Bench) -> str:
    """The argument that takes labels. Raises DoesNotApply."""
    target = bench.target
    if target.forward is not None:
        raise DoesNotApply("forward= is given, which returns no loss")
    name = next((n for n in (*SHIFTED_INSIDE, *SHIFTED_OUTSIDE) if n in target.parameters), None)
    if name is None:
        raise DoesNotApply("it takes no labels")
    alphabet, each = target.feed.alphabet, len(bench.positions) == bench.length
    if alphabet is None or not bench.per_output or bench.x.first.ndim != 2 or target.inner or not each:
        raise DoesNotApply("labels of a token model only")
    if bench.out.shape[-1] <= int(alphabet.max()):
        raise DoesNotApply("the output has no logits over the vocabulary")
    return name


def _shifted(bench: Bench, name: str, shift: int, effect: float) -> Finding:
    return found(
        "labels-outside" if name in SHIFTED_OUTSIDE else "labels-inside",
        probe="L",
        module="",
        effect=effect,
        smallest={"batch": bench.batch, "length": bench.length},
        why=why(f"shift-{shift}" if f"shift-{shift}" in WHY else "shift-n", shift=shift),
        argument=name,
        shift=max(shift, 0),
    )


def _loss(raw) -> Tensor | None:
    if isinstance(raw, Tensor):
        return raw if raw.ndim == 0 else None
    found = getattr(raw, "loss", None)
    if isinstance(found, Tensor) and found.numel() == 1:
        return found.reshape(())
    values = raw.values() if isinstance(raw, dict) else raw if isinstance(raw, list | tuple) else ()
    return next((v.reshape(()) for v in values if isinstance(v, Tensor) and v.numel() == 1), None)


def _cross_entropy(logits: Tensor, given: Tensor, shift: int) -> float:
    """Logits (B, T, V) at t against labels at t + shift."""
    length = logits.shape[1]
    if shift >= 0:
        logits, given = logits[:, : length - shift], given[:, shift:]
    else:
        logits, given = logits[:, -shift:], given[:, : length + shift]
    return float(F.cross_entropy(logits.float().flatten(0, 1), given.flatten()))
