"""``check``: run every probe that applies, within a budget, and leave the model as it was."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from headwise.interp.attention.claims import whole
from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import CheckError, DoesNotApply, OutOfTime, Refused, crashed
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.options import Options, Progress
from headwise.interp.check.probes import PROBES, Probe
from headwise.interp.check.report import APART, APPLIED, FAILED, LATE, MOOT, REFUSED, Edges, Finding, Probed, Report
from headwise.interp.check.reproducing import Checked, reproduced
from headwise.interp.check.state import Snapshot, random_streams_kept
from headwise.interp.check.target import Target
from headwise.interp.masks import Bidirectional, Causal, Mask
from headwise.interp.subject import Subject

SMALL = 2_000_000  # parameters up to which one thread is faster than handing work to several


def check(
    model: nn.Module | Subject,
    expect: Mask | str | Sequence[Mask] | None = None,
    *,
    inputs: Any = None,
    forward: Callable | None = None,
    step: Callable | None = None,
    packed: Callable | None = None,
    pad_id: int | None = None,
    modes: str = "all",
    dtypes: Sequence | None = None,
    budget: float = 120.0,
    length: int | None = None,
    positions: Callable[[int], int] | Sequence[int] | None = None,
    output: Callable | None = None,
    layout: str | None = None,
    known_ahead: Sequence[str] = (),
    padding_mask: str | None = None,
    padding: str | None = None,
    reset: str | Callable | None = None,
    progress: Progress | None = None,
) -> Report:
    """Does a model keep its mask? Runs every probe that applies and says which did not, and why.

    ``expect``: what every layer promises – ``Causal()``, ``Window(7, 0)``, ``Prefix(4)``, ``Bidirectional()``,
    combinations, one mask a layer, or a string such as "causal". Left out, it is what the configuration or the
    Subject says, and ``Causal()`` for a bare module.

    ``inputs``: a tensor (B, T) of ids or (B, T, C) of floats, a tuple, a dict of keyword arguments, or, for a Subject,
    a text; without it random inputs are drawn to fit the module, of ``length`` T where that is given.
    ``forward(model, x, attention_mask=None) → output`` when the module's own call does not fit;
    ``step(model, x_chunk, cache) → (output, cache)`` for cached decoding, or the output alone where the model keeps its
    cache to itself; ``reset`` names the method, or is the function of the model, that then begins a new sequence;
    without them both are looked for;
    ``packed(model, x, segment_ids) → output`` for several documents in a row; ``pad_id`` for models that tell padding
    by the token. ``output(raw) → tensor`` picks the tensor to watch, ``positions`` the input position that each output
    stands at, where there are fewer outputs.

    ``layout`` says where samples (B), time (T) and features stand, as in einops: ``"(T, B, C) -> (T, B, V)"``, of
    several inputs ``"skill: (B, T), answer: (B, T) -> (B, T, V)"``; without it that is told from runs of two lengths
    and two batch sizes, and the report says how. All inputs with the same positions are changed, one by one and
    together, but for masks, position ids and those named in ``known_ahead``. ``padding_mask`` names the argument that
    says what is padding; without it one is found by its name or by what it does. ``padding`` = "left" or "right" says
    on which side the model is padded in use; without it both are tried, and a model that takes no position ids and
    counts them over a row padded on the left is given ``report.advice``, not a finding.

    ``modes``: "all", or "base" for eval and no_grad alone. ``dtypes``: those to try beside the model's own.
    ``budget`` in seconds. ``progress(name, share)`` is told of each probe.

    A probe that fails in our own code is in ``report.errors``; the report is then not ``ok``. The module's mode, dtype,
    weights, buffers, attributes and every random stream are as before afterwards, also after an exception.
    Raises CheckError, one sentence the user can act on, when the model cannot be run.

    >>> from torch import nn
    >>> class Mean(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return self.linear(x - x.mean(1, keepdim=True))
    >>> report = check(Mean(), Causal())
    >>> report.ok, report.findings[0].cls
    (False, 'outside-attention')
    """
    options = Options(
        inputs=inputs,
        forward=forward,
        step=step,
        packed=packed,
        pad_id=pad_id,
        modes=modes,
        dtypes=dtypes,
        budget=budget,
        length=length,
        positions=positions,
        output=output,
        layout=layout,
        known_ahead=(known_ahead,) if isinstance(known_ahead, str) else tuple(known_ahead),
        padding_mask=padding_mask,
        padding=padding,
        reset=reset,
        progress=progress,
    )
    started = time.monotonic()
    module = model.module if isinstance(model, Subject) else model
    if not isinstance(module, nn.Module):
        raise CheckError(f"check expects an nn.Module or a Subject, got {type(model).__name__}.")
    expected, source = promised(model) if expect is None else (expect, "")
    promise = Expectation.of(expected)
    was_training = module.training
    with _left_as_it_was(module):
        report = _checked(model, promise, options)
    if was_training and any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in module.modules()):
        note = (
            "the model came in training mode with dropout on; the probes put it "
            "in eval, and train was probed with dropout stilled"
        )
        report = replace(report, notes=(note, *report.notes))
    again = partial(reproduced, Checked(model, promise, options)) if report.findings else None
    return replace(report, source=source, seconds=time.monotonic() - started, again=again)


@contextmanager
def _left_as_it_was(module: nn.Module):
    """The module, torch's threads and all random streams are as before afterwards."""
    with random_streams_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # models warn about what probes do on purpose, once a run
        before, threads = Snapshot(module), torch.get_num_threads()
        try:
            if sum(p.numel() for p in module.parameters()) < SMALL:
                torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(threads)
            before.restore()


def _checked(model: nn.Module | Subject, promise: Expectation, options: Options) -> Report:
    target = Target(model, options)
    target.module.eval()
    try:
        bench = Bench(target, promise)
    except OutOfTime:
        raise CheckError(
            f"{target.name} did not finish one run within the budget of "
            f"{options.budget:g} s: raise budget=, or give a smaller input."
        ) from None
    probed: list[Probed] = []
    spent = False
    for index, probe in enumerate(PROBES):
        if options.progress is not None:
            options.progress(probe.name, index / len(PROBES))
        if spent:
            probed.append(Probed(probe.id, probe.letter, probe.name, status=LATE, detail="the budget was spent"))
            continue
        probed.append(_probed(bench, probe))
        spent = probed[-1].status == LATE
    if options.progress is not None:
        options.progress("done", 1.0)
    dependency = None if spent else _dependency(bench)
    return Report(
        target.name,
        str(bench.expect),
        findings=tuple(bench.findings),
        probed=(*probed, *bench.failed),
        notes=tuple(dict.fromkeys(bench.notes)),
        tolerated=bench.tolerated,
        dependency=dependency,
        reading=target.reading,
        advice=tuple(bench.advice),
    )


def _probed(bench: Bench, probe: Probe) -> Probed:
    """Run one probe; its findings go to the bench."""
    start, before = time.monotonic(), len(bench.findings)
    try:
        status, detail = APPLIED, _drain(probe.run(bench), bench.findings)
    except DoesNotApply as why:
        status, detail = MOOT if why.moot else APART, str(why)
    except OutOfTime:
        status, detail = LATE, f"the budget of {bench.options.budget:g} s ran out in it"
    except Refused as refusal:
        status, detail = REFUSED, f"the model raised {refusal.brief(160)}"
    except CheckError:
        raise
    except Exception as error:  # whatever else: a crash of ours is no verdict on the model
        status, detail = FAILED, crashed(error)
    seconds = time.monotonic() - start
    found = len(bench.findings) - before
    return Probed(probe.id, probe.letter, probe.name, status=status, detail=detail, seconds=seconds, findings=found)


def _drain(probe: Generator[Finding, None, str], findings: list[Finding]) -> str:
    """Collect a probe's findings as they come; its return value says what it did."""
    while True:
        try:
            findings.append(next(probe))
        except StopIteration as end:
            return end.value or ""


def _dependency(bench: Bench) -> Edges | None:
    """The whole output × input square, where there is time for it."""
    if not bench.per_output or bench.length > bench.affordable(0.05):
        return None
    try:
        return Edges(bench.dependency(bench.x), bench.reach[0])
    except (OutOfTime, Refused):
        return None
    except Exception as error:  # ours
        drawing = Probed("dependency", "–", "who depends on whom", status=FAILED, detail=crashed(error))
        bench.failed.append(drawing)
        return None


def promised(model: nn.Module | Subject) -> tuple[Mask | list[Mask], str]:
    """What a model promises, and who says so: the user, its configuration, the kind the user named. Where nobody does,
    a Hugging Face model is taken to be free and a bare module to be causal."""
    module = model.module if isinstance(model, Subject) else model
    if isinstance(model, Subject) and model.promise is not None:
        return model.promise, model.said.source
    found, layers = whole(module)
    if found.mask is None and isinstance(model, Subject):
        found = model.said.about("" if model.family == "audio" else "decoder")
    if found.mask is not None:
        return list(layers) or found.mask, found.source
    configured = hasattr(getattr(module, "config", None), "model_type")
    return Bidirectional() if configured else Causal(), "assumed, for nothing says"
