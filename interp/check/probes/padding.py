"""B with padding: what stands under it, how much there is, and on which side, must not matter to real positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench, DoesNotApply
from headwise.interp.check.causes import Verdict, explain
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import Evidence, locate, watch
from headwise.interp.check.probes.content import finding
from headwise.interp.check.report import Finding, picture_of
from headwise.interp.check.target import BASE, HIDE_MASKS, REFUSALS, Mode, other_modes
from headwise.interp.masks import Padding, Prefix


@dataclass(frozen=True)
class Side:
    name: str  # "right" | "left"
    lengths: tuple[int, ...]
    mask: Tensor  # (B, T), 1 = real
    positions: Tensor  # (B, T), counted from the first real token
    promise: Padding


def side(name: str, batch: int, length: int, device) -> Side:
    """Every sample is padded, each more than the one before."""
    lengths = tuple(max(2, length - 1 - i * max(1, length // (batch + 1))) for i in range(batch))
    if batch == 1:
        lengths = (max(2, length - length // 3),)
    index = torch.arange(length)
    starts = tuple(0 if name == "right" else length - n for n in lengths)
    mask = torch.stack([(index >= s) & (index < s + n) for s, n in zip(starts, lengths, strict=True)]).long()
    return Side(name, lengths, mask.to(device), (mask.cumsum(1) - 1).clamp(min=0).to(device), Padding(lengths, starts))


def padding(bench: Bench):
    target, expect = bench.target, bench.expect
    if bench.findings and bench.findings[0].cls not in ("window", "prefix", "state", "labels"):
        raise DoesNotApply(f"a {bench.findings[0].cls} was found: repair that first")
    used, pair, before = [], target.stream == "decoder_input_ids", len(bench.findings)
    if pair and getattr(target, "source_name", None) == "input_ids" and "attention_mask" in target.parameters:
        used.append((yield from _source(bench)))
        if len(bench.findings) > before:
            return used[0]
    if target.mask_name is None and (pair or target.pad_id is None):
        if used:
            return used[0]
        raise DoesNotApply("it takes no padding mask, and no pad_id is given")
    if not target.positional:
        raise DoesNotApply("the input is one whole, not a padded sequence")
    if (
        expect.size is not None
        or expect.batch is not None
        or (bench.per_output and len(bench.positions) != bench.length and not expect.free)
    ):
        raise DoesNotApply("the promise fixes its lengths")
    causal = expect.is_causal() and not expect.has(Prefix)
    done = []
    _settle_dtype(bench)
    for name in ("right", "left"):
        if name == "left" and expect.has(Prefix):
            continue
        made = side(name, bench.batch, bench.length, bench.x.device)
        if target.mask_name is None and name == "left":
            continue
        try:
            found = yield from _one_side(bench, made, causal)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if name == "left" or done:
                bench.notes.append(f"padding on the {name} raised {type(error).__name__}: {str(error)[:120]}")
                continue
            raise DoesNotApply(
                f"{target.mask_name} of shape {tuple(made.mask.shape)} raised "
                f"{type(error).__name__}: {str(error)[:120]}"
            ) from error
        done.append(name)
        if found:
            break
    return "; ".join([*used, f"content under it and samples alone, on the {' and the '.join(done)}"])


def _settle_dtype(bench: Bench) -> None:
    """Integers first; bool for modules that take nothing else."""
    target = bench.target
    if target.mask_name is None:
        return
    made = side("right", bench.batch, bench.length, bench.x.device)
    try:
        bench.run(bench.x, made.mask, **_positions(bench, made))
    except (RuntimeError, TypeError):
        target.mask_is_bool = True


def _positions(bench: Bench, made: Side) -> dict:
    return {bench.target.position_name: made.positions} if bench.target.position_name else {}


def _one_side(bench: Bench, made: Side, causal: bool):
    target, x = bench.target, bench.x
    extra = _positions(bench, made)
    real = made.mask.bool().cpu()
    given = made.mask
    if target.mask_name is None:  # the model tells padding by pad_id
        x, given = torch.where(made.mask.bool(), x, torch.full_like(x, target.pad_id)), None
    elif target.mask_keeps and target.mask_name in ("padding_mask", "pad_mask", "mask"):
        _settle_polarity(bench, made, extra)
    base = bench.run(x, given, **extra)
    if base.shape[1] != bench.out.shape[1]:
        yield _truncated(bench, made, base)
        return True
    where = real if base.shape[1] == bench.length else torch.ones(base.shape[:2], dtype=torch.bool)
    if base.is_floating_point() and bool((~base.isfinite()).any(-1)[where].any()):
        yield _broken(bench, made, x, given, extra)
        return True
    if given is not None:
        leaks = {}
        for mode in (BASE, *other_modes(target)):
            if mode.ones:
                continue
            try:
                leaks[mode] = _content(bench, made, x, mode, extra, where)
            except REFUSALS:
                continue
        bad = [m for m in leaks if leaks[m] is not None]
        if bad:
            yield _leak(bench, made, x, leaks, bad, extra)
            return True
        wrong = _disagree(bench, x, given, leaks, base, where, extra)
        if wrong is not None:
            yield wrong
            return True
    found = yield from _alone(bench, made, x, base, causal)
    return found


def _settle_polarity(bench: Bench, made: Side, extra) -> None:
    """A mask called ``mask`` or ``padding_mask`` says nothing about its polarity: take the one that hides the
    padding.
    """
    target = bench.target
    if getattr(bench, "polarity_settled", False):
        return
    bench.polarity_settled = True
    if target.forward is not None:
        return
    for keeps in (True, False):
        target.mask_keeps = keeps
        try:
            if _content(bench, made, bench.x, BASE, extra, made.mask.bool().cpu()) is None:
                bench.notes.append(
                    f"{target.mask_name} was taken as 1 = {'real' if keeps else 'padding'}: so it hides the padding"
                )
                return
        except (RuntimeError, ValueError, TypeError, IndexError):
            continue
    target.mask_keeps = True


def _content(bench: Bench, made: Side, x, mode: Mode, extra, where):
    """(effect, other input) when other content under the padding changes real positions in ``mode``."""
    base = bench.run(x, made.mask, mode, **extra)
    hidden = ~made.mask.bool().cpu()
    worst = None
    for seed, scale in ((21, 1.0), (22, 100.0)):
        other = bench.target.perturb(x, hidden, seed, scale)
        out = bench.run(other, made.mask, mode, **extra)
        if out.shape != base.shape:
            continue
        keep = where if base.shape[1] == where.shape[1] else torch.ones(base.shape[:2], dtype=torch.bool)
        effect = float(gap(base, out, keep.to(base.device)).max())
        if effect > bench.rounding and (worst is None or effect > worst[0]):
            worst = (effect, other)
    return worst


def _padded(expect: Expectation, made: Side) -> Expectation:
    return Expectation(tuple(m & made.promise for m in expect.masks))


def _leak(bench: Bench, made: Side, x, leaks, bad, extra) -> Finding:
    mode = BASE if BASE in bad else bad[0]
    effect, other = leaks[mode]
    expect = _padded(bench.expect, made)
    b = bench.batch - 1
    evidence = _located(bench, expect, x, other, b, mode, made, extra)
    verdict = padding_verdict(evidence, expect, made, b)
    consequence = f"other content under the padding on the {made.name} changes real positions"
    picture = None
    if evidence.observed is not None:
        rows = made.mask[b].bool().cpu()
        picture = picture_of(
            evidence.observed & rows[:, None],
            evidence.expected & rows[:, None],
            f"weights of {evidence.module}, sample {b}, real queries",
        )
    smallest = {"batch": 1, "length": bench.length, "padding": bench.length - made.lengths[b]}
    found = finding(bench, verdict, evidence, "B", effect, picture, smallest, consequence, mode)
    good = [m for m in leaks if leaks[m] is None]
    if good:
        from dataclasses import replace

        found = replace(
            found,
            cls="mode",
            mode="; ".join(map(str, bad)),
            cause="the padding mask is dropped on the path this mode takes",
            sentence=f"In {mode}, "
            f"{found.sentence[0].lower()}{found.sentence[1:].rstrip('.')}; the mask holds in {good[0]}.",
        )
    return found


def _located(bench: Bench, expect, x, other, b, mode, made: Side, extra) -> Evidence:
    target = bench.target
    if extra:  # position ids go with every padded run
        fixed = target.fixed
        target.fixed = lambda batch: {**fixed(batch), **extra}
    try:
        evidence = locate(target, expect, x, other, b, mode, made.mask)
    finally:
        if extra:
            target.fixed = fixed
    return evidence or Evidence("", type(target.module).__name__, None, "outside attention")


def padding_verdict(evidence: Evidence, expect: Expectation, made: Side, b: int) -> Verdict:
    verdict = explain(evidence, expect, ~expect.reach(None, made.mask.shape[1], b))
    if evidence.inside == "outside attention":
        if verdict.cls == "outside-attention":
            return Verdict(
                verdict.cls,
                "reads the padding",
                f"{verdict.cause}; padding counts among its inputs",
                "zero padded positions before it, or leave them out of the statistics",
            )
        return verdict
    if verdict.cls in ("mask-convention", "layout", "dtype"):
        return verdict
    real = made.mask[b].bool().cpu()
    if evidence.observed is not None:
        if bool(evidence.observed[real][:, ~real].any()) and not bool(evidence.observed[real][:, real].any()):
            return Verdict(
                "mask-convention",
                "sees the padding and hides the real keys: its padding mask is inverted",
                "True means padding in nn.MultiheadAttention's "
                "key_padding_mask and real in Hugging Face's attention_mask",
                "negate it",
                "certain",
            )
        rows_cut = evidence.call is not None and evidence.call.given is not None and _on_queries(evidence.call, real, b)
        if rows_cut:
            return Verdict(
                "padding",
                "hides padding queries instead of padding keys",
                "the padding mask stands on the query axis: unsqueeze(3) for unsqueeze(2)",
                "make it (B, 1, 1, K)",
                "certain",
            )
    return Verdict(
        "padding",
        "sees the padding",
        "the padding mask does not reach this attention",
        "pass it on, combined with the causal mask",
        "likely",
    )


def _on_queries(call, real: Tensor, b: int) -> bool:
    mask = call.given
    return mask.ndim == 4 and mask.shape[-1] == 1


def _broken(bench: Bench, made: Side, x, given, extra) -> Finding:
    """NaN at real positions once something is padded."""
    _, watcher, _ = watch(bench.target, x, given, BASE, **extra)
    calls = [c for c in watcher.finished("self")[0] if c.kind == "self" and c.queries == c.keys == bench.length]
    b = bench.batch - 1
    real = made.mask[b].bool().cpu()
    for call in calls:
        from headwise.interp.check.probes.neighbours import _told

        allowed = _told(call, b)[0]
        cross = allowed[real]
        if bool(cross[:, ~real].any()) and not bool(cross[:, real].any()):
            return Finding(
                "mask-convention",
                f"Layer {call.layer} ({call.name}) sees the padding and hides "
                f"the real keys: its padding mask is inverted.",
                "B",
                call.name,
                call.layer,
                (),
                "attention",
                float("inf"),
                picture_of(
                    allowed,
                    _padded(bench.expect, made).layer(call.layer, bench.length, b),
                    f"keys allowed in {call.name}",
                ),
                {"length": bench.length},
                "True means padding in nn.MultiheadAttention's "
                "key_padding_mask and real in Hugging Face's attention_mask",
                "negate it",
                "certain",
            )
        empty = (~cross.any(-1)).nonzero().flatten()
        if len(empty):
            inverted = bench.target.mask_name in HIDE_MASKS
            return Finding(
                "mask-convention" if not inverted and not bool(allowed[real][:, real].any()) else "empty-rows",
                f"Layer {call.layer} ({call.name}): real queries see no key when "
                f"padding stands on the {made.name}, and become NaN.",
                "N",
                call.name,
                call.layer,
                (),
                "attention",
                float("inf"),
                picture_of(
                    allowed,
                    _padded(bench.expect, made).layer(call.layer, bench.length, b),
                    f"keys allowed in {call.name}",
                ),
                {"length": bench.length, "padding": bench.length - made.lengths[b]},
                "the padding mask hides real keys too",
                "combine masks as bool",
                "likely",
            )
    call = calls[0] if calls else None
    culprit = next((c for c in calls if bool((~_told_of(c, b).any(-1)).any())), call)
    return Finding(
        "empty-rows",
        f"With padding on the {made.name}, real positions become NaN: "
        f"padding queries see no key, and their NaN spreads.",
        "N",
        culprit.name if culprit else None,
        culprit.layer if culprit else None,
        (),
        "attention" if culprit else "",
        float("inf"),
        smallest={"length": bench.length, "padding": bench.length - made.lengths[b]},
        cause="a row of −inf gives NaN, and 0 · NaN is NaN for whoever attends to it next",
        fix="let padding queries see themselves, or zero empty rows after the softmax",
        sure="likely",
    )


def _told_of(call, b):
    from headwise.interp.check.probes.neighbours import _told

    return _told(call, b)


def _truncated(bench: Bench, made: Side, base) -> Finding:
    return Finding(
        "mode",
        f"With padding on the {made.name} the output has {base.shape[1]} positions, without it {bench.out.shape[1]}.",
        "T",
        effect=1.0,
        cause="a fused path drops positions that are padding in every sample",
        fix="pad the output back, or pass enable_nested_tensor=False",
        smallest={"batch": bench.batch, "length": bench.length},
    )


def _disagree(bench: Bench, x, given, leaks, base, where, extra) -> Finding | None:
    """With padding, all modes must agree on real positions."""
    for mode in leaks:
        if mode == BASE or mode.train:
            continue
        out = bench.run(x, given, mode, **extra)
        if out.shape != base.shape:
            return Finding(
                "mode",
                f"With padding, the output is {tuple(out.shape[:2])} in {mode} and {tuple(base.shape[:2])} in {BASE}.",
                "T",
                effect=1.0,
                mode=str(mode),
                cause="a fused path drops padded positions",
                fix="compare shapes, or turn the fused path off",
                sure="certain",
            )
        worst, _ = bench.across(base, out, where.to(base.device))
        if worst:
            return Finding(
                "mode",
                f"With padding, real positions differ between {mode} and {BASE}.",
                "T",
                effect=worst,
                mode=str(mode),
                cause="one path reads the padding mask differently",
                fix="build one mask and pass it on every path",
            )
    return None


def _alone(bench: Bench, made: Side, x, base, causal: bool):
    """A padded sample against itself without padding."""
    target = bench.target
    for b in range(bench.batch):
        n, start = made.lengths[b], made.promise.starts[b]
        if n == bench.length:
            continue
        short = x[b : b + 1].narrow(target.time, start, n)
        ones = torch.ones(1, n, dtype=torch.long, device=x.device) if target.mask_name else None
        extra = {target.position_name: torch.arange(n, device=x.device)[None]} if target.position_name else {}
        try:
            with target.alone(b, bench.batch):
                alone = bench.run(short, ones, **extra)
        except (RuntimeError, ValueError, IndexError, AssertionError):
            continue
        padded = base[b : b + 1, start : start + n] if base.shape[1] == bench.length else base[b : b + 1]
        if padded.shape != alone.shape:
            continue
        worst, gaps = bench.across(alone, padded)
        if not worst:
            continue
        whole = bool((gaps[0] > worst / 100).float().mean() > 0.5)
        smallest = {"batch": 1, "length": n, "padding": bench.length - n}
        if made.name == "left":
            if target.position_name is None and (not causal or target.stream == "decoder_input_ids"):
                what = "encoder" if target.stream != "decoder_input_ids" else "decoder"
                bench.notes.append(f"left padding moves the positions of this {what}: pad on the right")
                return False
            name, layer, inside, _ = _first_apart(bench, made, b, x, short, ones, extra)
            yield Finding(
                "position-ids",
                "A left-padded sample gives another answer than alone: its positions are counted from the padding"
                + (f", first in {name}." if name else "."),
                "B",
                name,
                layer,
                (),
                inside,
                effect=worst,
                smallest=smallest,
                cause="positions are arange over the row, padding included",
                fix="position_ids = (attention_mask.cumsum(1) − 1).clamp(min=0)",
                sure="likely",
            )
            return True
        name, layer, inside, routing = _first_apart(bench, made, b, x, short, ones, extra)
        outside = inside == "outside attention" and name is not None
        yield Finding(
            "routing"
            if routing
            else "outside-attention"
            if outside and not _is_position(name)
            else "position-ids"
            if _is_position(name)
            else "padding",
            f"A padded sample gives another answer than "
            f"alone{', at nearly all positions' if whole else ''}: how much padding there is changes it"
            + (f", first at {name}." if name else "."),
            "B",
            name,
            layer,
            (),
            inside,
            worst,
            None,
            smallest,
            "the amount of padding enters a statistic, a length or a position",
            "count real positions only",
            "likely",
        )
        return True
    return False


def _is_position(name: str | None) -> bool:
    import re

    return bool(name and re.search(r"pos|wpe|rope|rotary", name.rpartition(".")[2], re.IGNORECASE))


def _first_apart(bench: Bench, made: Side, b: int, x, short, ones, extra):
    """The first module whose output at real positions differs between the padded and the lone run."""
    target = bench.target
    n, start = made.lengths[b], made.promise.starts[b]
    given = made.mask if target.mask_name else None
    whole = _positions(bench, made)
    try:
        _, one, _ = watch(target, x, given, BASE, **whole)
        with target.alone(b, bench.batch):
            _, two, _ = watch(target, short, ones, BASE, length=n, **extra)
    except (RuntimeError, ValueError, IndexError, AssertionError):
        return None, None, "", False
    calls = {(c.name, c.occurrence): c.layer for c in one.finished("self")[0]}
    for a, c in zip(one.visits_made, two.visits_made, strict=False):
        if a.name != c.name:
            return a.name, None, "outside attention", True
        for p, q in zip(a.outputs, c.outputs, strict=False):
            if (
                p.ndim != q.ndim
                or p.ndim < 3
                or p.shape[0] not in (bench.batch, 1)
                or p.shape[1] != bench.length
                or q.shape[1] != n
                or not p.is_floating_point()
            ):
                continue
            if float(gap(q[:1], p[min(b, len(p) - 1)][None, start : start + n]).max()) > 1e-4:
                inner = [calls.get((k.name, k.occurrence)) for k in one.calls[slice(*a.calls)]]
                layer = next((v for v in inner if v is not None), None)
                routing = any(w in a.name.lower() for w in ("rout", "gate", "expert", "moe"))
                return a.name, layer, "attention" if inner else "outside attention", routing
    return None, None, "", False


def _source(bench: Bench):
    """Encoder-decoder: the decoder must not see padding of the source."""
    target = bench.target
    source = target.source[: bench.batch]
    length = source.shape[1]
    made = side("right", bench.batch, length, source.device)
    fixed = target.fixed
    g = torch.Generator().manual_seed(31)
    shift = torch.randint(1, len(target.alphabet), tuple(source.shape), generator=g)
    index = torch.searchsorted(target.alphabet, source.cpu()).clamp(max=len(target.alphabet) - 1)
    other = torch.where(
        made.mask.bool(), source, target.alphabet[(index + shift) % len(target.alphabet)].to(source.device)
    )
    try:
        target.fixed = lambda batch: {"input_ids": source[:batch], "attention_mask": made.mask[:batch]}
        base, calls = bench.run(bench.x), bench._calls()
        target.fixed = lambda batch: {"input_ids": other[:batch], "attention_mask": made.mask[:batch]}
        out = bench.run(bench.x)
        effect = float(gap(base, out).max())
        if effect > bench.rounding:
            b = bench.batch - 1
            seeing = next(
                (
                    c
                    for c in calls
                    if c.keys == length
                    and bool(
                        (c.band(0, c.queries)[b][..., made.lengths[b] :] > 0)[
                            ..., : made.lengths[b] if c.queries == length else None, :
                        ].any()
                    )
                ),
                None,
            )
            name, layer = (seeing.name, seeing.layer) if seeing is not None else (None, None)
            yield Finding(
                "padding",
                f"The decoder changes with the content under the source's "
                f"padding{', seen by ' + name if name else ''}.",
                "B",
                name,
                layer,
                (),
                "attention" if name else "",
                effect,
                smallest={"batch": 1, "source length": length, "padding": length - made.lengths[b]},
                cause="cross-attention gets no encoder padding mask",
                fix="pass encoder_attention_mask to the cross-attention",
                sure="likely",
            )
            return "content under the source's padding"
        b = bench.batch - 1
        n = made.lengths[b]
        target.fixed = lambda batch: {"input_ids": source[b : b + 1, :n], "attention_mask": made.mask[b : b + 1, :n]}
        worst, _ = bench.across(bench.run(bench.x[b : b + 1]), base[b : b + 1])
        if worst:
            yield Finding(
                "padding",
                "The decoder's answer changes with how much padding its source has.",
                "B",
                effect=worst,
                smallest={"source length": n, "padding": length - n},
                cause="the amount of source padding enters a statistic or a position",
                fix="mask the source in every layer",
            )
    finally:
        target.fixed = fixed
    return "content under the source's padding, and a source alone"
