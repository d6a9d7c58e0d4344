"""Attention that says itself what it computed, through ``interp.attention.report``: one operation."""

from __future__ import annotations

from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.report import Mechanism, gap, tolerance
from headwise.interp.attention.scores import Scores, Seen

APART = (
    "its weights × values are not its own output: they differ by {gap:.1e} of the largest output, so the weights it "
    "tells are not shown"
)


def attention(tap, func, q: Tensor, k: Tensor, v: Tensor, by: Mechanism) -> Tensor:
    """The operation, recorded, with what is changed at this place. Weights that do not make the output are refused."""
    here = tap.recorder.changes_here()
    name, kind = tap.place()
    if here is None:
        out = func(q, k, v, by)
        form = by.form(q.detach(), k.detach())
        if (why := untrue(form, v.detach(), out.detach())) is not None:
            tap.recorder.refuse(name, tap.recorder.root.get_submodule(name), why)
            return out
    else:
        form, v, out = changed(here, q, k, v, by)
    tap.recorder.add(AttentionCall(name, kind, form, v.detach()))
    return out


def changed(here, q: Tensor, k: Tensor, v: Tensor, by: Mechanism) -> tuple[Scores, Tensor, Tensor]:
    """Attention with what is done to it → (how its scores are known, values, output (B, H, Q, Dv))."""
    q, k, v = here.changed("query", q), here.changed("key", k), here.changed("value", v)
    form, stepwise = by.form(q.detach(), k.detach()), None
    if here.masks or here.reaches_weights:
        stepwise = here.attended(by.form(q, k), v)
    if stepwise is None:
        return form, v, here.changed("output", by.output(q, k, v))
    scores, weights, out = stepwise
    apart = getattr(form, "apart", None)
    seen = Seen(scores.detach(), weights.detach(), factors=form.factors, how=form.how, apart=apart)
    return seen, v, here.changed("output", out.to(v.dtype))


def untrue(form: Scores, v: Tensor, out: Tensor) -> str | None:
    """Why the weights are not to be shown, or None: weights × values must be the output of the same attention."""
    far = gap(form, v, out)
    return None if far <= tolerance(out.dtype) else APART.format(gap=far)
