"""N, R, B, S: NaN and empty rows; the same input twice; samples of one batch; shapes with B, H and T all different."""

from __future__ import annotations

from functools import partial

import torch

from headwise.interp.check.bench import Bench, DoesNotApply
from headwise.interp.check.causes import _inverted, _transposed
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import Evidence, changed_positions, layer_number, watch
from headwise.interp.check.probes.content import finding
from headwise.interp.check.report import Finding, picture_of
from headwise.interp.check.state import Snapshot, fingerprint, same_bits
from headwise.interp.check.target import BASE


def numbers(bench: Bench):
    """N: NaN in the output, and queries that see no key."""
    for call in bench.own:
        for b in range(call.batch if call.given is not None and call.given.ndim == 4 else 1):
            empty = _empty(call, b)
            if bool(empty.any()):
                rows = empty.any(0).nonzero().flatten().tolist()
                heads = empty.any(1).nonzero().flatten().tolist()
                may = bench.expect.layer(call.layer, bench.length, b)
                if not bool(may[rows].any(-1).any()):
                    continue
                told = _told(call, b)
                wrong = Evidence(
                    call.name,
                    "attention",
                    call.layer,
                    "attention",
                    call=call,
                    weights=told.float(),
                    observed=told[heads[0]],
                    expected=may,
                )
                verdict = _inverted(wrong, bench.expect) or _transposed(wrong, bench.expect)
                if verdict is not None:
                    yield finding(
                        bench, verdict, wrong, "N", 1.0, None, {"rows": rows[:8]}, f"{_rows(rows)} see no key at all"
                    )
                    return "stopped at the first layer with empty rows"
                yield Finding(
                    "empty-rows",
                    f"Layer {call.layer} ({call.name}): {_rows(rows)} see no key at all.",
                    "N",
                    call.name,
                    call.layer,
                    tuple(heads) if len(heads) < call.heads else (),
                    "attention",
                    1.0,
                    picture_of(_told(call, b)[heads[0]], may, f"keys allowed in {call.name}"),
                    {"rows": rows[:8]},
                    "the diagonal is masked too, or the mask is aligned to another corner",
                    "let every query see itself: tril(diagonal=0)",
                    "certain",
                )
                return "stopped at the first layer with empty rows"
    for call in bench.calls:
        if not call.told or call.queries == call.keys:
            continue
        empty = call.empty_rows(0)[0].nonzero().flatten().tolist()
        if empty:
            yield Finding(
                "empty-rows",
                f"Layer {call.layer} ({call.name}): {_rows(empty)} of {call.queries} see none of the {call.keys} keys.",
                "N",
                call.name,
                call.layer,
                (),
                "attention",
                1.0,
                smallest={"queries": call.queries, "keys": call.keys},
                cause="a causal mask is aligned bottom-right while there are more queries than keys",
                fix="align it top-left, or drop it where queries outnumber keys",
                sure="likely",
            )
            return "stopped at the first layer with empty rows"
    bad = ~bench.out.isfinite() if bench.out.is_floating_point() else torch.zeros(1, dtype=torch.bool)
    if bool(bad.any()):
        _, watcher, _ = watch(bench.target, bench.x, None, BASE)
        first = next(
            (
                v
                for v in watcher.visits_made
                if any(t.is_floating_point() and not t.isfinite().all() for t in v.outputs)
            ),
            None,
        )
        name = first.name if first else None
        where = bad.flatten(1).any(1).nonzero().flatten().tolist()
        yield Finding(
            "empty-rows",
            f"The output has NaN or infinite values (samples {where[:4]}), first after {name or 'the module itself'}.",
            "N",
            name,
            layer_number(name) if name else None,
            (),
            "attention" if first and first.calls[1] > first.calls[0] else "outside attention",
            float("inf"),
            cause="a row whose keys are all −inf becomes NaN in the softmax, or a value overflows",
            fix="leave every row one key, or zero such rows after the softmax",
            smallest={"batch": bench.batch, "length": bench.length},
            sure="likely",
        )
        return "the output is not finite"
    return f"{len(bench.own)} attention calls, {bench.out.numel():,} numbers"


def _told(call, b: int):
    """Keys the call's own mask allows → bool (H, Q, K)."""
    q, h = torch.arange(call.queries), torch.arange(call.heads)
    b = min(b, call.batch - 1)
    return call.mask(torch.tensor(b), h[:, None, None], q[:, None], torch.arange(call.keys)).cpu()


def _empty(call, b: int):
    return ~_told(call, b).any(-1)  # (H, Q)


def _rows(rows: list[int]) -> str:
    return (
        f"query {rows[0]}"
        if len(rows) == 1
        else f"queries {rows[0]}…{rows[-1]}"
        if rows == list(range(rows[0], rows[-1] + 1))
        else f"queries {rows[:6]}"
    )


def repeat(bench: Bench):
    """R: the same input twice, from the same random streams and from others; a short input before a long one."""
    target = bench.target
    target.snapshot.restore()
    held, target.snapshot = target.snapshot, None
    try:
        first = bench.run(bench.x)
        again = bench.run(bench.x)
        other = target.run(bench.x, seed=1)
        changed = float(gap(first, again).max())
        random = float(gap(again, other).max())
        stale = 0.0
        for length in (max(2, bench.length // 2),):
            if bench.expect.size is None and target.positional and target.forced is None:
                short = target.draw(bench.batch, length, 9)
                try:
                    fresh_short = None
                    held.restore()
                    fresh_short = bench.run(short)  # before anything longer
                    after = bench.run(bench.x)
                    later = bench.run(short)
                    stale = max(_gap(first, after), _gap(fresh_short, later))
                except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                    held.restore()
                    if _runs(bench, short):
                        held.restore()
                        stale = float("inf")
                        bench.notes.append(
                            f"after an input of another length it raises {type(error).__name__}: {str(error)[:120]}"
                        )
    finally:
        held.restore()
        target.snapshot = held
    still = bool(_unchanged(bench, held))
    target.stateless = changed == 0 and still
    if changed > bench.rounding:
        name = _first_difference(bench)
        yield Finding(
            "state",
            "The same input gives another output the second time: the module keeps state between calls.",
            "R",
            name,
            layer_number(name) if name else None,
            (),
            "outside attention",
            changed,
            cause="a hidden state, a cache or a counter stays on the module after a call",
            fix="pass the state in and out, or reset it at the start of "
            "forward; every probe here starts from the same state",
            sure="certain",
            smallest={"batch": bench.batch, "length": bench.length, "calls": 2},
        )
    elif stale > bench.rounding:
        yield Finding(
            "state",
            "An input of another length, run before, changes the output: "
            "something built for one length is kept for all.",
            "R",
            effect=stale,
            cause="a mask or a position table is cached by the first call",
            fix="rebuild it when the length, device or dtype changes",
            sure="likely",
            smallest={"batch": bench.batch, "lengths": f"{max(2, bench.length // 2)}, then {bench.length}"},
        )
    if random > bench.rounding and changed <= bench.rounding:
        yield Finding(
            "mode",
            "In eval mode the output is random: it follows the random stream, not the input alone.",
            "R",
            effect=random,
            cause="dropout is left on, such as F.dropout(x) without "
            "training=self.training, or noise is drawn in forward",
            fix="F.dropout(x, p, self.training), or nn.Dropout",
            sure="likely",
            smallest={"batch": bench.batch, "length": bench.length},
        )
    return "two runs, another random stream, another length before"


def _gap(a, b) -> float:
    return float(gap(a, b).max()) if a.shape == b.shape else float("inf")


def _runs(bench: Bench, x) -> bool:
    try:
        bench.run(x)
    except (RuntimeError, ValueError, IndexError, AssertionError):
        return False
    return True


def _unchanged(bench: Bench, snapshot: Snapshot) -> bool:
    """Does a run leave the module as it was? Then there is no need to restore it before each."""
    snapshot.restore()
    before = fingerprint(bench.target.module)
    bench.run(bench.x)
    same = before == fingerprint(bench.target.module)
    snapshot.restore()
    return same


def _first_difference(bench: Bench) -> str | None:
    """The module whose output differs first between two runs of one input."""
    target = bench.target
    held, target.snapshot = target.snapshot, None
    try:
        _, one, _ = watch(target, bench.x, None, BASE, operations=False)
        _, two, _ = watch(target, bench.x, None, BASE, operations=False)
    finally:
        held.restore()
        target.snapshot = held
    for a, c in zip(one.visits_made, two.visits_made, strict=False):
        if any(p.shape != q.shape or not same_bits(p, q) for p, q in zip(a.outputs, c.outputs, strict=False)):
            return a.name
    return None


def samples(bench: Bench):
    """B: other content in one sample must not change the others; a sample alone gives what it gives in company."""
    target, x = bench.target, bench.x
    if bench.refused:
        yield from _shape(bench)
        if bench.findings:
            return "the batch sizes it takes"
    if bench.batch == 1:
        try:
            x = target.draw(2, bench.length, 11)
            bench.run(x)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            raise DoesNotApply(f"it takes a batch of one only ({type(error).__name__})") from error
    batch = x.shape[0]
    base = bench.run(x)
    for changed in range(min(batch, 3)):
        where = torch.zeros(batch, bench.length if target.positional else 1, dtype=torch.bool)
        where[changed] = True
        for seed, scale in ((12, 1.0), (13, 30.0)):
            other = target.perturb(x, where, seed, scale)
            out = bench.run(other)
            if out.shape != base.shape:
                continue
            keep = torch.ones(base.shape[:2], dtype=torch.bool, device=base.device)
            keep[changed] = False
            gaps = gap(base, out, keep)
            worst = float(gaps.max())
            if worst > bench.rounding:
                b = int(gaps.amax(1).argmax())
                yield _between(bench, x, other, b, changed, worst)
                return "stopped at the first sample that sees another"
    if (
        bench.expect.batch is None
        and target.stream != "decoder_input_ids"
        and not any(f.cls == "state" for f in bench.findings)
    ):
        alone = bench.run(x[:1])
        worst, _ = bench.across(base[:1], alone) if alone.shape == base[:1].shape else (float("inf"), None)
        if worst:
            yield Finding(
                "layout",
                f"A sample alone gives another output than among {batch}: "
                f"{tuple(base[:1].shape)} and {tuple(alone.shape)} differ."
                if worst == float("inf")
                else f"A sample alone gives another output than in a batch of {batch}.",
                "B",
                effect=worst,
                cause="an axis is squeezed, broadcast or averaged away when the batch is one",
                fix="name the axis: squeeze(dim), not squeeze()",
                sure="likely",
                smallest={"batch": "1 against " + str(batch), "length": bench.length},
            )
    return f"{min(batch, 3)} samples changed in turn, and one alone"


def _between(bench: Bench, x, other, b: int, changed: int, worst: float) -> Finding:
    length = x.shape[bench.target.time] if bench.target.positional else -1
    attention, name = False, None
    calls = []
    if length > 0:
        for operations in (True, False):
            _, one, _ = watch(bench.target, x, None, BASE, operations=operations)
            _, two, _ = watch(bench.target, other, None, BASE, operations=operations)
            calls = one.finished("self")[0] or calls
            moved = partial(changed_positions, length=length, b=b, batch=x.shape[0])
            hit = next(
                (
                    v
                    for v, w in zip(one.visits_made, two.visits_made, strict=False)
                    if bool(moved(v.outputs, w.outputs).any()) and not bool(moved(v.inputs, w.inputs).any())
                ),
                None,
            )
            if hit is not None:
                name = hit.name
                inner = {(c.name, c.occurrence) for c in one.calls[slice(*hit.calls)]}
                call = next((c for c in calls if (c.name, c.occurrence) in inner), None)
                attention = (call is not None and call.queries == x.shape[0]) or (
                    call is not None and call.batch != x.shape[0]
                )
                attention |= call is None and ("att" in hit.type.lower() or isinstance(hit.module, torch.nn.RNNBase))
                break
    layer = next((c.layer for c in calls if c.name == name), layer_number(name) if name else None)
    if attention:
        cause = (
            "attention runs over the batch: it got (B, T, C) and expects (T, B, C), "
            f"so its {x.shape[0]} × {x.shape[0]} weights join samples"
        )
        fix = "set batch_first=True, or transpose the input"
    else:
        cause, fix = (
            "a statistic, a scale or a choice is shared by the batch",
            "compute it for each sample, or each position, by itself",
        )
    sentence = (
        f"Sample {b} changes when only sample {changed} does, first at "
        f"{name or 'the module itself'}: samples of a batch see each other."
    )
    routing = name is not None and any(w in name.lower() for w in ("rout", "gate", "expert", "moe"))
    cls = "layout" if attention else "routing" if routing else "outside-attention"
    return Finding(
        cls,
        sentence,
        "B",
        name,
        layer,
        (),
        "attention" if attention else "outside attention",
        worst,
        None,
        {"batch": x.shape[0], "length": bench.length, "changed sample": changed},
        cause,
        fix,
        "likely",
    )


def _shape(bench: Bench):
    """A batch that it refused, while it takes others: a mask that only fits by accident."""
    target = bench.target
    heads = {c.heads for c in bench.calls}
    b, t, error = bench.refused[0]
    if target.forced is not None or t != bench.length or b == bench.batch:
        return
    taken = [n for n in (1, 2, 3, 4, 5, 8) if _takes(bench, n)]
    broken = [n for n in (1, 2, 3, 4, 5, 8) if n not in taken]
    if not broken or not isinstance(error, RuntimeError | ValueError | AssertionError | IndexError):
        return
    accident = f" – its {bench.batch} heads" if bench.batch in heads else ""
    module = _where_raised(bench, b)
    yield Finding(
        "layout",
        f"Runs for a batch of {', '.join(map(str, taken))}{accident}, and raises for "
        f"{', '.join(map(str, broken))}: {str(error).splitlines()[0][:140]}.",
        "S",
        module,
        layer_number(module) if module else None,
        (),
        "attention",
        1.0,
        None,
        {"batch": broken[0], "length": bench.length},
        "a (B, …) tensor is broadcast against heads or positions, and fits only when their numbers agree",
        "unsqueeze the head axis: (B, 1, Q, K)",
        "likely",
    )


def _takes(bench: Bench, batch: int) -> bool:
    return _runs(bench, bench.target.draw(batch, bench.length, 14))


def _where_raised(bench: Bench, batch: int) -> str | None:
    from headwise.interp.check.locate import Watcher
    from headwise.interp.run.tap import listen

    x = bench.target.draw(batch, bench.length, 14)
    watcher = Watcher(bench.target.module, batch, bench.length)
    deepest: list[str] = []
    enter = watcher.enter

    def noted(module):
        enter(module)
        if (name := watcher.names.get(id(module))) is not None:
            deepest.append(name)

    watcher.enter = noted
    try:
        with listen(watcher):
            bench.run(x)
    except (RuntimeError, ValueError, AssertionError, IndexError):
        return next((v for v in reversed(deepest) if "att" in v.lower()), deepest[-1] if deepest else None)
    return None
