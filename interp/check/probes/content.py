"""P, A, J, W: does an output depend on content that its mask forbids?

P replaces all an output may not see and wants the same bits back, for every output, so at every cut. A does the same
with attention
scores made much larger, where a finite sentinel gives way. J asks the gradient. W compares each layer's weights with
its own mask.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench, DoesNotApply, Leak
from headwise.interp.check.causes import Verdict, explain
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import Evidence, breaking_heads, locate
from headwise.interp.check.report import Finding, picture_of
from headwise.interp.check.target import BASE, REFUSALS, Mode, other_modes
from headwise.interp.masks import (
    Bidirectional,
    Causal,
    Global,
    Mask,
    Packed,
    Prefix,
    RandomBlocks,
    Strided,
    Window,
    recognise,
)


def content(bench: Bench):
    """P, in every mode (T, E)."""
    if not bench.per_output:
        raise DoesNotApply(
            "the output has no time axis to cut at"
            if bench.target.positional
            else "the input is one whole, not a sequence"
        )
    if bool(bench.reach.all()):
        raise DoesNotApply("every output may see every input")
    if any(f.probe == "N" for f in bench.findings):
        raise DoesNotApply("rows that see nothing were found: repair that first")
    queries = bench.queries(0.08)
    draws = [(1, 1.0), (2, 30.0)] if bench.target.alphabet is None else [(1, 1.0), (2, 1.0)]
    leak = _worst(leak for seed, scale in draws for leak in bench.leaks(queries, seed=seed, scale=scale))
    leaking: dict[Mode, Leak | None] = {BASE: leak}
    refused = {}
    few = queries if len(queries) * bench.seconds_a_run < 2 else queries[:: max(1, len(queries) // 4)]
    for mode in other_modes(bench.target):
        try:
            leaking[mode] = _worst(bench.leaks(few, mode))
        except REFUSALS as error:
            refused[mode] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
    bench.leaking = leaking
    yield from _report(bench, leaking, refused)
    return f"{len(queries)} cuts × {len(draws)} draws, {len(leaking)} modes" + (
        f" ({len(refused)} refused)" if refused else ""
    )


def _report(bench: Bench, leaking: dict[Mode, Leak | None], refused: dict[Mode, str]):
    bad = [m for m, leak in leaking.items() if leak is not None]
    if not bad:
        return
    good = [m for m in leaking if leaking[m] is None]
    mode = BASE if leaking[BASE] is not None else bad[0]
    found = describe(bench, leaking[mode], mode, "P")
    fails = [m for m in refused if m.train != mode.train]
    if good or (fails and found.inside != "outside attention" and "causal" in refused[fails[0]]):
        other = f"holds in {good[0]}" if good else f"raises in {fails[0]} ({refused[fails[0]]})"
        found = replace(
            found,
            cls="mode",
            mode="; ".join(map(str, bad)),
            sentence=f"In {mode}, {found.sentence[0].lower()}{found.sentence[1:].rstrip('.')}; the mask {other}.",
            cause="the mask is not applied on the path this mode takes: " + _path(mode, good, refused, bench),
            sure="likely",
            fix="build the mask yourself and pass it on every path; a hint such as is_causal=True is no mask",
        )
    yield found


def _path(mode: Mode, good: list[Mode], refused: dict, bench: Bench) -> str:
    if mode == BASE and all(m.train or m.grad for m in [*good, *refused]):
        return "a fused fast path, or a flag that stands in for the mask"
    if mode.weights:
        return "asking for the attention weights"
    if mode.ones:
        return "being given a mask of ones"
    if mode.eager:
        return f"the {mode.eager} implementation"
    if mode == BASE and all(m.ones for m in good):
        return "no attention mask was given"
    if mode == BASE and all(m.weights for m in good):
        return "attention weights are not asked for"
    return "a branch on training mode" if mode.train != any(m.train for m in good) else "a branch on the gradient mode"


def _worst(leaks) -> Leak | None:
    return max(leaks, key=lambda leak: leak.effect, default=None)


def describe(bench: Bench, leak: Leak, mode: Mode, probe: str) -> Finding:
    """A leak, located, explained, drawn and shrunk."""
    evidence = locate(bench.target, bench.expect, leak.x, leak.other, leak.b, mode)
    seen, smallest = shrunk(bench, leak, mode)
    expected = bench.reach[leak.b]
    size = seen.shape[0]
    expected = expected[:size, : seen.shape[1]]
    if evidence is None:
        evidence = Evidence("", type(bench.target.module).__name__, None, "outside attention")
    verdict = explain(evidence, bench.expect, seen & ~expected if seen.shape == expected.shape else ~expected)
    picture = picture_of(seen, expected)
    return finding(
        bench,
        verdict,
        evidence,
        probe,
        leak.effect,
        picture,
        smallest,
        f"output {leak.query} depends on inputs it may not see",
        mode,
    )


def finding(
    bench, verdict: Verdict, evidence: Evidence, probe, effect, picture, smallest, consequence, mode=BASE
) -> Finding:
    place = evidence.module or "the module itself"
    if evidence.inside == "attention" and evidence.layer is not None:
        place = f"layer {evidence.layer} ({place})"
    if evidence.heads:
        place += f", head{'s' if len(evidence.heads) > 1 else ''} {', '.join(map(str, evidence.heads))},"
    sentence = f"{place} {verdict.says}: {consequence}."
    if evidence.observed is not None and evidence.inside == "attention" and picture is None:
        picture = picture_of(evidence.observed, evidence.expected, f"weights of {evidence.module}")
    return Finding(
        verdict.cls,
        sentence[0].upper() + sentence[1:],
        probe,
        evidence.module,
        evidence.layer,
        evidence.heads,
        evidence.inside,
        effect,
        picture,
        smallest,
        verdict.cause,
        verdict.fix,
        verdict.sure,
        "" if mode == BASE else str(mode),
        evidence.also,
    )


def shrunk(bench: Bench, leak: Leak, mode: Mode) -> tuple[Tensor, dict]:
    """The dependency picture at the smallest length that still leaks → (bool (T', T), what is smallest)."""
    target, full = bench.target, bench.length
    fixed = bench.expect.size is not None or len(bench.positions) != full or bench.expect.batch is not None
    lengths = [] if fixed else [t for t in (2, 3, 4, 5, 6, 8, 12, 16, 24) if t < full]
    single = bench.expect.batch is None
    for length in lengths:
        x = leak.x.narrow(target.time, 0, length)
        x = x[leak.b : leak.b + 1] if single else x
        reach = bench.expect.reach(bench.layers, length, leak.b)
        try:
            seen = bench.dependency(x, mode, 0 if single else leak.b)
        except (RuntimeError, ValueError, IndexError, AssertionError):
            continue  # too short for the model, or a batch of one it does not take
        if seen.shape == reach.shape and bool((seen & ~reach).any()):
            query, key = (seen & ~reach).nonzero()[0].tolist()
            return seen, {"batch": 1, "length": length, "query": query, "changed": key}
    where = leak.where[leak.b].nonzero().flatten().tolist()
    smallest = {
        "batch": bench.batch,
        "length": full,
        "query": leak.query,
        "changed": where[0] if len(where) == 1 else f"{where[0]}…{where[-1]}",
    }
    if full <= bench.affordable(0.1):
        try:
            seen = bench.dependency(leak.x, mode, leak.b)
            broken = (seen & ~bench.reach[leak.b]).nonzero()
            if len(broken):
                smallest |= {"batch": 1, "query": int(broken[0, 0]), "changed": int(broken[0, 1])}
                return seen, smallest
        except (RuntimeError, ValueError, IndexError, AssertionError):
            pass
    seen = bench.reach[leak.b].clone()
    seen[leak.query] |= leak.where[leak.b]
    return seen, smallest


def amplified(bench: Bench):
    """A: P again with scores of several hundred, and inputs 30 times larger."""
    _gate(bench)
    if bool(bench.reach.all()):
        raise DoesNotApply("every output may see every input")
    queries = bench.queries(0.04)
    with bench.amplified():
        leak = _worst(bench.leaks(queries, seed=4, scale=30.0))
        if leak is not None:
            yield describe(bench, leak, BASE, "A")
    return f"{len(queries)} cuts with scores of up to 300"


def gradient(bench: Bench):
    """J: the gradient of what comes before a cut to the embeddings after it. Blind to hard choices, so P runs too."""
    _gate(bench)
    if bool(bench.reach.all()):
        raise DoesNotApply("every output may see every input")
    if not bench.out.is_floating_point():
        raise DoesNotApply("the output has no gradient")
    target, b = bench.target, 0
    entry: list[Tensor] = []
    x = bench.x[:1] if bench.expect.batch is None else bench.x
    length = bench.length

    def leaf(module, args, output):
        if not entry and isinstance(output, Tensor) and output.ndim == 3 and length in output.shape[:2]:
            entry.append(output.detach().requires_grad_())
            return entry[0]
        return None

    if x.is_floating_point():
        entry.append(x.detach().clone().requires_grad_())
        out = bench.run(entry[0], mode=Mode(grad=True))
    else:
        embeddings = [
            m
            for m in target.module.modules()
            if isinstance(m, torch.nn.Embedding) and m.num_embeddings >= len(target.alphabet)
        ]
        if target.hugging:
            embeddings = [target.module.get_input_embeddings()]
        if target.stream == "decoder_input_ids" or not embeddings:
            raise DoesNotApply("no embedding of the sequence was found to take the gradient at")
        hooks = [m.register_forward_hook(leaf) for m in embeddings[:1]]
        try:
            out = bench.run(x, mode=Mode(grad=True))
        finally:
            for hook in hooks:
                hook.remove()
    if not entry or not out.requires_grad:
        raise DoesNotApply("no gradient flows from the output to the inputs")
    g = torch.Generator().manual_seed(5)
    direction = torch.randn(out.shape, generator=g).to(out)
    queries = [q for q in bench.queries(0.04) if not bool(bench.reach[b, q].all())]
    worst, scale, at = 0.0, 0.0, None
    for query in queries:
        bench.target.deadline()
        (slope,) = torch.autograd.grad(
            (out[b, query] * direction[b, query]).sum(), entry[0], retain_graph=True, allow_unused=True
        )
        if slope is None:
            continue
        slope = (
            slope.movedim(target.time, 1)
            if x.is_floating_point()
            else slope
            if slope.shape[1] == length
            else slope.transpose(0, 1)
        )
        size = slope[b].abs().flatten(1).amax(-1).cpu()  # (T,)
        scale = max(scale, float(size.max()))
        beyond = size.masked_fill(bench.reach[b, query], 0)
        if float(beyond.max()) > worst:
            worst, at = float(beyond.max()), (query, int(beyond.argmax()))
    if scale and worst / scale > 1e-6:
        yield Finding(
            "future-leak" if at[1] > at[0] else "window",
            f"The gradient of output {at[0]} reaches input {at[1]}, which it may not see; "
            "changing that input was not seen to change the output.",
            "J",
            effect=worst / scale,
            cause="a path that only the gradient takes, such as a straight-through estimate",
            smallest={"query": at[0], "changed": at[1]},
            fix="detach it, or mask it as the forward pass is masked",
            sure="likely",
        )
    return f"{len(queries)} outputs"


def layers(bench: Bench):
    """W: each layer's weights against its own mask, and what the promise says must be seen."""
    _gate(bench)
    expect = bench.expect
    told = any(expect.has(kind) for kind in (Window, Prefix, Packed, Strided, Global, RandomBlocks)) or any(
        m.size for m in expect.masks
    )
    if expect.free:
        yield from _one_way(bench)
        return "whether any output sees its future"
    if not bench.own:
        if told and bench.length <= bench.affordable(0.1):
            yield from _unseen_reach(bench)
            return "how far the outputs reach"
        raise DoesNotApply("no attention call was seen")
    if not told:
        return f"{len(bench.own)} attention calls within the promise"
    for b in range(bench.batch):
        for call in bench.own:
            heads, weights, may = breaking_heads(call, expect, b)
            if heads:
                evidence = Evidence(
                    call.name,
                    "attention",
                    call.layer,
                    "attention",
                    tuple(heads) if len(heads) < call.heads else (),
                    call,
                    weights,
                    weights[heads[0]] > 0,
                    may,
                )
                verdict = explain(evidence, expect, evidence.observed & ~may)
                mass = float((weights * ~may).sum(-1).max())
                yield finding(
                    bench,
                    verdict,
                    evidence,
                    "W",
                    mass,
                    None,
                    {"length": bench.length},
                    "its weights on hidden keys are not zero",
                )
                return "stopped at the first layer that breaks its mask"
            allowed = _allowed(call, b)
            missing = may & ~allowed.all(0) & allowed.any(-1).all(0)[:, None]
            if bool(missing.any()):
                yield _narrow(bench, call, allowed, may)
                return "stopped at the first layer that sees less than promised"
    return f"{len(bench.own)} attention calls, exactly as promised"


def _allowed(call, b: int) -> Tensor:
    """Keys a call allowed, by its mask where it told one → bool (H, T, T)."""
    weights = call.band(0, call.queries)[min(b, call.batch - 1)].cpu()
    if call.mask == Bidirectional():
        return torch.ones_like(weights, dtype=torch.bool)
    q, h = torch.arange(call.queries), torch.arange(call.heads)
    given = call.mask(torch.tensor(min(b, call.batch - 1)), h[:, None, None], q[:, None], torch.arange(call.keys))
    return given.cpu() | (weights > 0)


def _narrow(bench: Bench, call, allowed: Tensor, may: Tensor) -> Finding:
    expect = bench.expect
    observed = allowed[int((may & ~allowed).flatten(1).any(1).int().argmax())]
    found = recognise(observed)
    cls = "prefix" if expect.has(Prefix) else "packed" if expect.has(Packed) else "window"
    promised = expect.mask(call.layer)
    says = f"sees less than promised: {found!r} instead of {promised!r}"
    cause = (
        "the window counts the query itself, or is one too small"
        if cls == "window"
        else "the mask is built for another shape or count"
    )
    if cls == "prefix" and isinstance(found, Causal):
        says, cause = (
            "does not let the prefix see itself: it is plainly causal",
            "the prefix part of the mask is dropped",
        )
    if cls == "window" and isinstance(found, Window) and isinstance(promised, Mask):
        cause = (
            "off by one: Hugging Face's sliding_window=W is W keys with the query, flash-attention's (W, 0) is W + 1"
        )
    place = f"layer {call.layer} ({call.name})"
    return Finding(
        cls,
        f"{place[0].upper()}{place[1:]} {says}.",
        "W",
        call.name,
        call.layer,
        (),
        "attention",
        0.0,
        picture_of(observed, may, f"keys allowed in {call.name}"),
        {"length": bench.length},
        cause,
        "compare the picture with the promise",
        "likely",
    )


def _unseen_reach(bench: Bench):
    """Without seen attention calls, outputs alone tell whether the promise is used up."""
    seen = bench.dependency()
    missing = bench.expect.layer(0, bench.length)[bench.positions] & ~seen
    if bool(missing.any()):
        cls = "prefix" if bench.expect.has(Prefix) else "packed" if bench.expect.has(Packed) else "window"
        yield Finding(
            cls,
            "Outputs see less than promised.",
            "W",
            picture=picture_of(seen, bench.reach[0]),
            sure="likely",
            cause="the mask is narrower than promised",
            smallest={"length": bench.length},
        )


def _one_way(bench: Bench):
    """Promised two ways, but no output sees its future: a causal mask where none belongs."""
    if (
        not bench.per_output
        or len(bench.positions) != bench.length
        or any(not isinstance(m, Bidirectional) for m in bench.expect.masks)
    ):
        return
    half = bench.length // 2
    where = torch.zeros(bench.batch, bench.length, dtype=torch.bool)
    where[:, half:] = True
    for modest in (half,):
        gaps = gap(bench.run(bench.x), bench.run(bench.target.perturb(bench.x, where, 6, 5.0)))
        if float(gaps[:, :modest].max()) > bench.rounding or float(gaps.max()) == 0.0:
            return
    causal = [c for c in bench.own if isinstance(recognise(_allowed(c, 0)[0]), Causal)]
    if not causal:
        return
    call, square = causal[0], torch.ones(bench.length, bench.length, dtype=torch.bool)
    yield Finding(
        "mode",
        f"Layer {call.layer} ({call.name}) is causal, but both directions were promised: no output sees its future.",
        "W",
        call.name,
        call.layer,
        (),
        "attention",
        1.0,
        picture_of(square.tril(), square),
        {"length": bench.length},
        "a decoder's mask is left on",
        "turn is_causal off for the encoder",
        "likely",
        also=tuple(c.name for c in causal[1:]),
    )


def _gate(bench: Bench) -> None:
    """What depends on outputs that hold makes no sense while they do not."""
    if not bench.per_output:
        raise DoesNotApply("the output has no time axis")
    if bench.findings:
        raise DoesNotApply(f"a {bench.findings[0].cls} was found: repair that first")
