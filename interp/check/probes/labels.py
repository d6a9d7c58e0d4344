"""L: the loss compares each output with the next token, once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.check.bench import Bench, DoesNotApply
from headwise.interp.check.report import Finding

SHIFTED_INSIDE, SHIFTED_OUTSIDE = ("labels", "label", "lm_labels"), ("targets", "target", "y")


def labels(bench: Bench):
    target = bench.target
    if target.forward is not None:
        raise DoesNotApply("forward= is given, which returns no loss")
    name = next((n for n in (*SHIFTED_INSIDE, *SHIFTED_OUTSIDE) if n in target.parameters), None)
    if name is None:
        raise DoesNotApply("it takes no labels")
    if target.alphabet is None or not bench.per_output or bench.x.ndim != 2 or len(bench.positions) != bench.length:
        raise DoesNotApply("labels of a token model only")
    if bench.out.shape[-1] <= int(target.alphabet.max()):
        raise DoesNotApply("the output has no logits over the vocabulary")
    x = bench.x
    ids = (
        target.perturb(x, torch.ones_like(x, dtype=torch.bool).cpu(), 61) if target.stream == "decoder_input_ids" else x
    )
    outside = name in SHIFTED_OUTSIDE
    given = torch.cat([x[:, 1:], x[:, :1]], 1) if outside else ids
    try:
        raw = target.raw(x, **{name: given})
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise DoesNotApply(f"{name}= raised {type(error).__name__}: {str(error)[:100]}") from error
    loss = _loss(raw)
    if loss is None:
        raise DoesNotApply("it returns no scalar loss")
    logits = bench.run(x)
    shifted_once = 0 if outside else 1
    values = {shift: _cross_entropy(logits, given, shift) for shift in (-1, 0, 1, 2, 3)}
    close = [shift for shift, value in values.items() if abs(value - float(loss)) <= 1e-3 * max(1.0, abs(value))]
    promised = 0 if target.stream == "decoder_input_ids" or not bench.expect.is_causal() else shifted_once
    if promised in close:
        return f"the loss of {name} is the cross-entropy {'as given' if promised == 0 else 'with the next token'}"
    if not close:
        raise DoesNotApply("the loss is no plain cross-entropy of these logits")
    shift = close[0]
    says = {
        0: "each output is compared with its own input token: the labels are not shifted",
        1: "the labels are shifted inside although they come shifted",
        2: "the labels are shifted twice: each output is compared with the token after next",
        -1: "the labels are shifted the wrong way: each output is compared with the token before",
    }
    sentence = says.get(shift, f"the labels are shifted by {shift}")
    yield Finding(
        "labels",
        sentence[0].upper() + sentence[1:] + ".",
        "L",
        "",
        effect=abs(values[promised] - float(loss)) / max(1e-9, abs(values[promised])),
        smallest={"batch": bench.batch, "length": bench.length},
        cause=f"the loss equals cross_entropy(logits[:, :T − {max(shift, 0)}], {name}[:, {max(shift, 0)}:])",
        sure="certain",
        fix=f"compare logits[:, :-1] with {name}[:, 1:]" if not outside else f"compare logits with {name} as they come",
    )
    return f"the loss of {name}"


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
