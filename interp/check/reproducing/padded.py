"""Experiments with padding, and with documents packed into one row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.errors import Refused
from headwise.interp.check.gaps import gap
from headwise.interp.check.probes.sides import Side, position_ids, side
from headwise.interp.check.reproducing.contents import CLEAR
from headwise.interp.check.reproducing.scene import Scene, Script, tried
from headwise.interp.check.reproducing.spelling import index
from headwise.interp.check.reproducing.states import ACROSS, lengths
from headwise.interp.check.target import BASE, Batch, Mode, other_modes


@dataclass(frozen=True, eq=False)
class Row:
    """A batch padded on one side, as the model is given it."""

    made: Side
    x: Batch
    mask: Tensor | None
    extra: dict[str, Tensor]
    out: Tensor  # in the base mode
    each: list[list[int]]  # of each sample, the outputs at real positions

    @property
    def real(self) -> list[int]:
        """Outputs at positions that are real in all samples."""
        return sorted(set.intersection(*map(set, self.each)))

    @property
    def hidden(self) -> Tensor:
        return ~self.made.mask.bool().cpu()


def rows(scene: Scene) -> Iterator[Row]:
    """Padded batches that the model takes, the smallest first."""
    target, bench = scene.target, scene.bench
    if target.padding.name is None and target.feed.pad_id is None:
        return
    for length in lengths(scene)[2:] or lengths(scene):
        for batch in dict.fromkeys((bench.expect.batch or 1, bench.batch)):
            for name in ("right", "left") if target.padding.tells_sides else ("right",):
                x = scene.draw(batch, length)
                made = side(name, (batch, length), x.device)
                mask, extra = made.mask, position_ids(bench, made)
                if target.padding.name is None:
                    x, mask = target.feed.hidden(x, made.mask.bool()), None
                for boolean in (False, True) if mask is not None else (False,):
                    target.padding.boolean = boolean
                    out = tried(scene, x, mask, **extra)
                    if out is not None:
                        yield Row(made, x, mask, extra, out, [_real(scene, x, made, b, out) for b in range(batch)])
                        break


def _real(scene: Scene, x: Batch, made: Side, b: int, out: Tensor) -> list[int]:
    """Outputs of sample ``b`` at real positions; of a model that subsamples, as many as the sample has alone."""
    given, n, start = out.shape[1], made.lengths[b], made.promise.starts[b]
    if given == x.length or not scene.bench.per_output:
        return list(range(start, start + n)) if given == x.length else list(range(given))
    alone = tried(scene, x[b : b + 1].cut(start, n))
    m = min(given, alone.shape[1]) if alone is not None else 0
    return list(range(m)) if made.name == "right" else list(range(given - m, given))


def under_padding(scene: Scene, mode: Mode = BASE) -> Iterator[Script]:
    """Other content under the padding, in one mode."""
    for row in rows(scene):
        if row.mask is None:
            continue
        for seed, scale in ((21, 1.0), (22, 100.0)):
            base = tried(scene, row.x, row.mask, mode, **row.extra)
            other = scene.changed(row.x, row.hidden, seed=seed, scale=scale)
            out = tried(scene, other, row.mask, mode, **row.extra)
            if base is None or out is None or out.shape != base.shape or not row.real:
                continue
            if float(gap(base[:, row.real], out[:, row.real]).max()) <= CLEAR:
                continue
            script = Script(scene)
            script.run("one", row.x, row.mask, mode=mode, **row.extra)
            script.add("", "# the same but for what stands under the padding")
            script.run("two", other, row.mask, mode=mode, **row.extra)
            at = index(row.real, base.shape[1])
            script.add("")
            script.compares(
                f"one[:, {at}]",
                f"two[:, {at}]",
                tells="real positions moved by {moved:.2g} of their scale when the padding's content changed",
                wrong="real positions depend on what stands under the padding",
                most=1e-5,
            )
            yield script
            return


def padded_alone(scene: Scene) -> Iterator[Script]:
    """A padded sample by itself, without padding."""
    target = scene.target
    for row in rows(scene):
        n, start, b = row.made.lengths[-1], row.made.promise.starts[-1], row.x.size - 1
        lone = row.x[b : b + 1].cut(start, n)
        mask = torch.ones(1, n, dtype=torch.long) if row.mask is not None else None
        name = target.position_name
        extra = {name: torch.arange(n)[None]} if name else {}
        with target.alone(b, row.x.size):
            out = tried(scene, lone, mask, **extra)
        among = row.out[b:, row.each[b]]
        if out is None or out.shape != among.shape or float(gap(out, among).max()) <= 10 * ACROSS:
            continue
        script = Script(scene)
        script.run("padded", row.x, row.mask, **row.extra)
        with target.alone(b, row.x.size):
            script.run("alone", lone, mask, **extra)
        cut = index(row.each[b], row.out.shape[1])
        script.add("")
        script.compares(
            "alone",
            f"padded[{b}:, {cut}]",
            tells=f"padded on the {row.made.name}, it differs by {{moved:.2g}} of its scale from itself alone",
            wrong="a padded sample gives another answer than alone",
            most=ACROSS,
        )
        yield script
        return


def padded_finite(scene: Scene) -> Iterator[Script]:
    """Real positions stay finite when something is padded."""
    for row in rows(scene):
        if row.real and not bool(row.out[:, row.real].isfinite().all()):
            script = Script(scene)
            script.run("out", row.x, row.mask, **row.extra)
            at = index(row.real, row.out.shape[1])
            script.add(
                f'assert out[:, {at}].isfinite().all(), "padding on the {row.made.name} makes real positions NaN"'
            )
            yield script
            return


def padded_shape(scene: Scene) -> Iterator[Script]:
    """Padding takes no position away."""
    for row in rows(scene):
        plain = tried(scene, row.x)
        if plain is None or plain.shape == row.out.shape:
            continue
        script = Script(scene)
        script.run("plain", row.x)
        script.run("padded", row.x, row.mask, **row.extra)
        script.add(
            'print(f"outputs of shape {tuple(plain.shape)}, and {tuple(padded.shape)} with padding")',
            'assert plain.shape == padded.shape, "padding takes positions away"',
        )
        yield script
        return


def padded_modes(scene: Scene) -> Iterator[Script]:
    """With padding, every mode gives the same at real positions."""
    for row in rows(scene):
        for mode in other_modes(scene.target):
            if mode.ones or row.mask is None:
                continue
            out = tried(scene, row.x, row.mask, mode, **row.extra)
            same = out is not None and out.shape == row.out.shape
            if out is None or (same and float(gap(row.out[:, row.real], out[:, row.real]).max()) <= 10 * ACROSS):
                continue
            script = Script(scene)
            script.run("one", row.x, row.mask, **row.extra)
            script.run("two", row.x, row.mask, mode=mode, **row.extra)
            at = index(row.real, row.out.shape[1])
            script.add('assert one.shape == two.shape, "two modes give outputs of different shapes"')
            script.compares(
                f"one[:, {at}]",
                f"two[:, {at}]",
                tells=f"with padding, {BASE} and {mode} differ by {{moved:.2g}}",
                wrong="two modes that should agree do not",
                most=ACROSS,
            )
            yield script
            return


def documents(scene: Scene) -> Iterator[Script]:
    """Documents of one row do not see each other, and each gives what it gives alone."""
    target = scene.target
    if target.packed is None:
        return
    name = scene.sources.name(target.packed)
    for sizes in ((2, 2), (3, 3, 2), (8, 10, 6)):
        length = sum(sizes)
        if length > scene.bench.length:
            return
        ids = torch.tensor([i for i, n in enumerate(sizes) for _ in range(n)])[None]
        x = scene.draw(1, length)
        first = torch.zeros(1, length, dtype=torch.bool)
        first[:, : sizes[0]] = True
        other = scene.changed(x, first, seed=41)
        alone = x.cut(sizes[0], sizes[1])
        try:
            base, moved = target.row(x, ids), target.row(other, ids)
            by_itself = target.row(alone, ids[:, : sizes[1]] * 0)
        except Refused:
            continue
        cut = slice(sizes[0], sizes[0] + sizes[1])
        for what, far in (("content", gap(base, moved, ~first)), ("alone", gap(by_itself, base[:, cut]))):
            if float(far.max()) > 10 * ACROSS:
                yield _documents(scene, name, x, other if what == "content" else alone, ids, cut, what)
                return


def _documents(scene: Scene, name: str, x: Batch, second: Batch, ids: Tensor, cut: slice, what: str) -> Script:
    script, target = Script(scene), scene.target
    given = script.let("x", target.feed.arguments(x)[0])
    segments = script.let("segments", ids)
    other = script.let("other", target.feed.arguments(second)[0])
    n = cut.stop - cut.start
    at = f"[:, {cut.start}:{cut.stop}]"
    script.add("model.eval()", "with torch.no_grad():", f"    one = {name}(model, {given}, {segments})")
    if what == "content":
        script.add(
            f"    two = {name}(model, {other}, {segments})  # another first document", f"moved = gap(one{at}, two{at})"
        )
        says = "a document depends on another one of its row"
    else:
        script.add(
            f"    two = {name}(model, {other}, {segments}[:, :{n}] * 0)  # the second one alone",
            f"moved = gap(one{at}, two)",
        )
        says = "a document gives another answer packed than alone"
    script.add('print(f"the second document moved by {moved:.2g} of its scale")', f'assert moved <= {ACROSS}, "{says}"')
    return script
