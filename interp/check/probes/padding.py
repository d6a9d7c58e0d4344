"""B with padding: what stands under it, how much there is, and on which side, must not matter to real positions."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.causes import explain, proven
from headwise.interp.check.describe import Shown, finding, nowhere
from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.experiments import Bed, Held
from headwise.interp.check.findings import Verdict, found, of, reworded, verdict
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import Evidence, locate
from headwise.interp.check.probes.padded_alone import alone
from headwise.interp.check.probes.padded_answer import looked_up
from headwise.interp.check.probes.padded_nan import broken
from headwise.interp.check.probes.padded_source import source
from headwise.interp.check.probes.sides import Padded, Side, position_ids, side
from headwise.interp.check.report import Finding, edges
from headwise.interp.check.target import BASE, Batch, Mode, other_modes
from headwise.interp.check.told import masks_queries
from headwise.interp.masks import Dense, Order, Packed


def padding(bench: Bench):
    """Of the outputs at each position, and of a model's one answer."""
    before = len(bench.findings)
    done = yield from _padding(bench)
    if bench.target.inner is not None and len(bench.findings) == before:
        with bench.answering():
            done = yield from _padding(bench)
    return done


def _padding(bench: Bench):
    target = bench.target
    bench.only_without(besides=("window", "prefix", "state", "labels"))
    used, before = [], len(bench.findings)
    if target.decodes_a_source and target.feed.source_name == "input_ids" and "attention_mask" in target.parameters:
        used.append((yield from source(bench)))
        if len(bench.findings) > before:
            return used[0]
    if target.padding.name is None and (target.decodes_a_source or target.feed.pad_id is None):
        if used:
            return used[0]
        raise DoesNotApply("no argument says what is padding: name one with padding_mask=, or give pad_id=")
    _applies(bench)
    _settle_dtype(bench)
    done: list[str] = []
    for name in ("right", "left") if bench.options.padding is None else (bench.options.padding,):
        if name == "left" and not target.padding.tells_sides:
            continue
        made = side(name, (bench.batch, bench.length), bench.x.device)
        try:
            one = yield from _one_side(bench, made)
        except Refused as refusal:
            if name == "left" or done:
                bench.notes.append(f"padding on the {name} raised {refusal.kind}: {str(refusal)[:120]}")
                continue
            raise DoesNotApply(
                f"{target.padding.name} of shape {tuple(made.mask.shape)} raised {refusal.kind}: {str(refusal)[:120]}"
            ) from refusal
        done.append(name)
        if one:
            break
    return "; ".join([*used, f"content under it and samples alone, on the {' and the '.join(done)}"])


def _applies(bench: Bench) -> None:
    if not bench.target.feed.cuts:
        raise DoesNotApply("the input is one whole, not a padded sequence")


def _settle_dtype(bench: Bench) -> None:
    """Integers first; bool for modules that take nothing else."""
    if bench.target.padding.name is None:
        return
    made = side("right", (bench.batch, bench.length), bench.x.device)
    try:
        bench.run(bench.x, made.mask, **position_ids(bench, made))
    except Refused:
        bench.target.padding.boolean = True


def _one_side(bench: Bench, made: Side):
    """Yields what is found; returns True when something was."""
    target = bench.target
    x, mask, extra = bench.x, made.mask, position_ids(bench, made)
    real = made.mask.bool().cpu()
    if target.padding.name is None:  # the model tells padding by pad_id
        x, mask = target.feed.hidden(x, made.mask.bool()), None
    elif target.padding.ambiguous:
        _settle_polarity(bench, made, extra)
    base = bench.run(x, mask, **extra)
    if base.shape[1] != bench.out.shape[1]:
        yield _truncated(bench, made, base)
        return True
    where = bench.real_outputs(real)
    padded = Padded(made, x, mask=mask, extra=extra, base=base, where=where)
    if base.is_floating_point() and bool((~base.isfinite()).any(-1)[where].any()):
        yield broken(bench, padded)
        return True
    wrong = looked_up(bench, padded) or (None if mask is None else _modes(bench, padded))
    if wrong is not None:
        yield wrong
        return True
    if not _comparable(bench, made):
        return False
    differs = yield from alone(bench, padded)
    if not differs and mask is not None and (wrong := _of_one(bench, padded)) is not None:
        yield wrong
    return differs or wrong is not None


def _comparable(bench: Bench, made: Side) -> bool:
    """May a sample be compared with itself elsewhere in the row, or in another batch? Not where the promise fixes what
    each sample, or each position of the row, may see; chunks of equal size go with the sample."""
    expect = bench.expect
    fixed = [m for kind in (Packed, Dense, Order) for m in expect.parts(kind)]
    return expect.batch is None and (made.name == "right" or not fixed)


def _of_one(bench: Bench, padded: Padded) -> Finding | None:
    """A padded sample in a batch of one gives what it gives among others."""
    target, b = bench.target, bench.batch - 1
    if b == 0:
        return None
    extra = {name: value[b:] for name, value in padded.extra.items()}
    effect, what = math.inf, f"gives another answer than in a batch of {bench.batch}"
    try:
        with target.alone(b, bench.batch):
            out = bench.run(padded.x[b:], padded.mask[b:], **extra)
        if out.shape == padded.base[b:].shape:
            effect, _ = bench.across(padded.base[b:], out, padded.where[b:].to(out.device))
    except Refused as refusal:
        what = f"raises {refusal.brief()}, in a batch of {bench.batch} it runs"
    smallest = {"batch": 1, "length": bench.length, "padding": bench.length - padded.made.lengths[b]}
    return found("padding-of-one", probe="B", effect=effect, smallest=smallest, what=what) if effect else None


def _modes(bench: Bench, padded: Padded) -> Finding | None:
    """Content under the padding, in every mode; and all modes must agree on real positions."""
    leaks: dict[Mode, tuple[float, Batch] | None] = {}
    for mode in (BASE, *other_modes(bench.target)):
        if mode.ones:
            continue
        try:
            leaks[mode] = _content(bench, padded.made, padded.x, mode, extra=padded.extra, where=padded.where)
        except Refused:
            continue
    if any(leaks.values()):
        return _leak(bench, padded, leaks)
    return _disagree(bench, padded, [m for m in leaks if m != BASE and not m.train])


def _settle_polarity(bench: Bench, made: Side, extra: dict) -> None:
    """A mask called ``mask`` or ``padding_mask`` says nothing about its polarity: take the one that hides the
    padding.
    """
    argument = bench.target.padding
    if argument.settled:
        return
    argument.settled = True
    if bench.target.forward is not None:
        return
    real = made.mask.bool().cpu()
    for keeps in (True, False):
        argument.keeps = keeps
        try:
            if _content(bench, made, bench.x, BASE, extra=extra, where=real) is None:
                bench.notes.append(
                    f"{argument.name} was taken as 1 = {'real' if keeps else 'padding'}: so it hides the padding"
                )
                return
        except Refused:
            continue
    argument.keeps = True


def _content(bench: Bench, made: Side, x: Batch, mode: Mode, *, extra: dict, where: Tensor):
    """(effect, other input) when other content under the padding changes real positions in ``mode``."""
    base = bench.run(x, made.mask, mode, **extra)
    hidden = ~made.mask.bool().cpu()
    worst = None
    for seed, scale in ((21, 1.0), (22, 100.0)):
        other = bench.target.feed.perturb(x, hidden, seed=seed, scale=scale)
        out = bench.run(other, made.mask, mode, **extra)
        if out.shape != base.shape:
            continue
        keep = where if base.shape[1] == where.shape[1] else torch.ones(base.shape[:2], dtype=torch.bool)
        effect = float(gap(base, out, keep.to(base.device)).max())
        if effect > bench.rounding and (worst is None or effect > worst[0]):
            worst = (effect, other)
    return worst


def _leak(bench: Bench, padded: Padded, leaks: dict) -> Finding:
    made, b = padded.made, bench.batch - 1
    bad = [m for m in leaks if leaks[m] is not None]
    mode = BASE if BASE in bad else bad[0]
    effect, other = leaks[mode]
    expect = Expectation(tuple(m & made.promise for m in bench.expect.masks))
    evidence = _located(bench, expect, padded, other, mode)
    picture = None
    if evidence.observed is not None:
        rows = made.mask[b].bool().cpu()[:, None]
        title = of("real", module=evidence.module, b=b)
        picture = edges(evidence.observed & rows, evidence.expected & rows, title)
    smallest = {"batch": 1, "length": bench.length, "padding": bench.length - made.lengths[b]}
    shown = Shown("B", effect, smallest, picture=picture, mode=mode)
    leak = finding(
        padding_verdict(evidence, expect, made, b),
        evidence,
        shown,
        then="padding" if bench.per_output else "answer",
        side=made.name,
    )
    good = [m for m in leaks if leaks[m] is None]
    if not good:
        return leak
    return reworded(
        leak, "padding-dropped-in-a-mode", mode="; ".join(map(str, bad)), here=mode, other=f"holds in {good[0]}"
    )


def _located(bench: Bench, expect: Expectation, padded: Padded, other: Batch, mode: Mode) -> Evidence:
    """Where the content under the last sample's padding enters. Position ids go with every padded run."""
    target, made = bench.target, padded.made
    fixed = target.feed.fixed
    held = Held(~made.mask.bool().cpu(), padded.where, bench.positions)
    with target.beside(lambda batch: {**fixed(batch), **padded.extra}):
        evidence = locate(Bed(target, padded.x, other, held, mask=made.mask, mode=mode), expect, bench.batch - 1)
    return evidence or nowhere(bench)


def padding_verdict(evidence: Evidence, expect: Expectation, made: Side, b: int) -> Verdict:
    explained = explain(evidence, expect, ~expect.reach(None, made.mask.shape[1], b))
    if evidence.inside == "outside attention":
        if explained.cls != "outside-attention":
            return explained
        return replace(verdict("padding-read", why=explained.cause), sure=explained.sure)
    if explained.cls in ("mask-convention", "layout", "dtype"):
        return explained
    real, kind = made.mask[b].bool().cpu(), "padding-seen"
    if evidence.observed is not None:
        if bool(evidence.observed[real][:, ~real].any()) and not bool(evidence.observed[real][:, real].any()):
            kind = "padding-inverted"
        elif evidence.call is not None and masks_queries(evidence.call):
            kind = "padding-on-queries"
    return proven(verdict(kind), evidence)


def _truncated(bench: Bench, made: Side, base: Tensor) -> Finding:
    return found(
        "padding-drops-positions",
        probe="T",
        effect=1.0,
        smallest={"batch": bench.batch, "length": bench.length},
        side=made.name,
        positions=base.shape[1],
        without=bench.out.shape[1],
    )


def _disagree(bench: Bench, padded: Padded, modes: list[Mode]) -> Finding | None:
    """With padding, all modes must agree on real positions."""
    base = padded.base
    for mode in modes:
        out = bench.run(padded.x, padded.mask, mode, **padded.extra)
        if out.shape != base.shape:
            here, there = tuple(out.shape[:2]), tuple(base.shape[:2])
            return found(
                "padding-shapes-differ", probe="T", effect=1.0, mode=str(mode), base=BASE, here=here, there=there
            )
        worst, _ = bench.across(base, out, padded.where.to(base.device))
        if worst:
            return found("padding-modes-differ", probe="T", effect=worst, mode=str(mode), base=BASE)
    return None
