"""How a model is decoded step by step: as its caller says, or by what it does.

A way is tried on one input: half of it at once, two positions by themselves, the rest at once. It is one where what a
step left behind, given to the next, goes on where the sequence stopped. An argument whose name speaks of a cache is
taken for one wherever it is heeded; anything else has to agree with the full run somewhere, lest a context or a mask be
taken for a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.gaps import ACROSS_SHAPES, gap
from headwise.interp.check.target.modes import BASE
from headwise.interp.check.target.resetting import resetting
from headwise.interp.check.target.steps import Stepping, worth_trying
from headwise.interp.check.target.streams import Batch

if TYPE_CHECKING:
    from headwise.interp.check.target.target import Target


@dataclass(frozen=True)
class Tried:
    """What came of a way: positions after the first part that agree with the full run, of how many; does what was
    before matter to them?"""

    agreed: int
    of: int
    matters: bool
    first: bool  # the first part, which has nothing before it, agrees


def stepping(target: Target, x: Batch, full: Tensor, unit: int, *, tries: int = 60) -> Stepping:
    """The way this model is decoded. ``full`` (B, T', F) is its answer to all of ``x``, an output for each ``unit`` of
    inputs. Raises DoesNotApply where none of the first ``tries`` ways is one."""
    if target.step is not None:
        return Stepping("step", target.stepped, reset=resetting(target))
    if target.forward is not None:
        raise DoesNotApply("no step(model, x, cache) is given beside forward=")
    if target.hugging:
        return _hugging(target, x)
    best, most = None, 0.0
    for count, way in enumerate(worth_trying(target, x)):
        if count >= tries:
            break
        try:
            tried = _tried(target, x, full, way=way, unit=unit)
        except Refused:
            continue
        if not tried.matters or (way.single and not tried.first):
            continue  # it is not heeded, or something else under a name that speaks of steps
        if tried.agreed == tried.of:
            return way
        worth = tried.agreed / tried.of + (0.5 if way.named else 0.0)
        if (way.named or tried.agreed) and worth > most:
            best, most = way, worth
    if best is None:
        raise DoesNotApply(
            "no step(model, x, cache) is given, and no argument takes up what the model returns: name one with step="
        )
    return best


def _hugging(target: Target, x: Batch) -> Stepping:
    if "past_key_values" not in target.parameters and not target.open:
        raise DoesNotApply("the module takes no past_key_values")
    try:
        first = target.raw(x.cut(0, 2), use_cache=True)
    except Refused as refusal:
        if isinstance(refusal.error, TypeError):
            raise DoesNotApply(f"the module takes no use_cache ({refusal})") from refusal
        raise
    if getattr(first, "past_key_values", None) is None:
        raise DoesNotApply("the module returns no past_key_values")

    def step(chunk, state, mask=None, **more):
        held = {} if state is None else {"past_key_values": state}
        out = target.raw(chunk, mask, use_cache=True, **held, **more)
        return out, out.past_key_values

    call = "output = model(x, use_cache=True, past_key_values=cache); cache = output.past_key_values"
    return Stepping("past_key_values", step, call, masked=True)


# -- trying a way -----------------------------------------------------------------------------------------------------
def _tried(target: Target, x: Batch, full: Tensor, *, way: Stepping, unit: int) -> Tried:
    length = full.shape[1]
    half = max(1, length // 2)
    chunks = [n for n in ((1,) * min(length, 6) if way.single else (half, 1, 1, length - half - 2)) if n > 0]
    tolerance = ACROSS_SHAPES.get(full.dtype, 2e-4)
    made = _outputs(target, way, x, [n * unit for n in chunks])
    fresh = _outputs(target, way, x.cut(chunks[0] * unit, unit), [unit])[0]
    wanted = full[:, : sum(chunks)].split(chunks, 1)
    close = [gap(a, b).amax(0) <= tolerance for a, b in zip(wanted, made, strict=False)]
    return Tried(
        agreed=sum(int(c.sum()) for c in close[1:]),
        of=max(1, sum(chunks[1:])),
        matters=float(gap(fresh, made[1]).max()) > tolerance,
        first=bool(close[0].all()),
    )


def _outputs(target: Target, way: Stepping, x: Batch, chunks: list[int]) -> list[Tensor]:
    """Of each chunk, until one is refused. Raises Refused where there are not two."""
    state, at, outs = None, 0, []
    with target.untouched(), target.in_mode(BASE):
        for n in chunks:
            chunk = x.cut(at, n)
            try:
                raw, state = way.step(chunk, state)
                outs.append(target.read(raw, chunk))
            except Refused:
                if len(outs) < 2:
                    raise
                break
            at += n
    return outs
