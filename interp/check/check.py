"""``check``: run every probe that applies, within a budget, and leave the model as it was."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from headwise.interp.attention.promise import whole
from headwise.interp.check.bench import Bench, DoesNotApply, OutOfTime, Progress
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.probes.agreement import growth, modes
from headwise.interp.check.probes.cache import cache
from headwise.interp.check.probes.content import amplified, content, gradient, layers
from headwise.interp.check.probes.labels import labels
from headwise.interp.check.probes.neighbours import numbers, repeat, samples
from headwise.interp.check.probes.packed import packed
from headwise.interp.check.probes.padding import padding
from headwise.interp.check.probes.precision import precision
from headwise.interp.check.report import CheckError, Finding, Picture, Probed, Report
from headwise.interp.check.state import Snapshot, random_streams_kept
from headwise.interp.check.target import Target
from headwise.interp.masks import Bidirectional, Causal, Mask
from headwise.interp.subject import Subject

PROBES: tuple[tuple[str, str, Callable], ...] = (
    ("N", "NaN and rows that see nothing", numbers),
    ("R", "the same input twice", repeat),
    ("B S", "samples of a batch stay apart", samples),
    ("P T E", "replace what an output may not see, in every mode", content),
    ("W", "each layer's weights against its own mask", layers),
    ("G", "a prefix answers as the whole does", growth),
    ("T E", "modes and implementations agree", modes),
    ("A", "the same with amplified scores", amplified),
    ("J", "gradient to what may not be seen", gradient),
    ("B", "padding", padding),
    ("C", "decoding with a cache", cache),
    ("K", "packed documents", packed),
    ("L", "labels", labels),
    ("D", "half precision", precision),
)

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
    progress: Progress | None = None,
) -> Report:
    """Does a model keep its mask? Runs every probe that applies and says which did not, and why.

    ``expect``: what every layer promises – ``Causal()``, ``Window(7, 0)``, ``Prefix(4)``, ``Bidirectional()``,
    combinations, one mask a
    layer, or a string such as "causal". Left out, it is what the configuration or the Subject says, and ``Causal()``
    for a bare module.
    ``inputs``: a tensor (B, T) of ids or (B, T, C) of floats, a tuple, a dict of keyword arguments, or, for a
    Subject, a text; without
    it random inputs are drawn to fit the module. ``forward(model, x, attention_mask=None) → output`` when the
    module's own call does
    not fit; ``step(model, x_chunk, cache) → (output, cache)`` for cached decoding; ``packed(model, x, segment_ids) →
    output``.
    ``pad_id``: for models that tell padding by the token. ``modes``: "all", or "base" for eval and no_grad alone.
    ``dtypes``: those to
    try beside the model's own. ``budget`` in seconds. ``length`` of random inputs. ``positions``: the input position
    each output
    stands at, where there are fewer outputs. ``output(raw) → tensor`` picks the tensor to watch.

    The module's mode, dtype, weights, buffers, attributes and every random stream are as before afterwards, also
    after an exception.
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
    started = time.monotonic()
    module = model.module if isinstance(model, Subject) else model
    if not isinstance(module, nn.Module):
        raise CheckError(f"check expects an nn.Module or a Subject, got {type(model).__name__}.")
    expected, source = promised(model) if expect is None else (expect, "")
    promise = Expectation.of(expected)
    with random_streams_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # models warn about what probes do on purpose, once a run
        before = Snapshot(module)
        was_training = module.training
        threads = torch.get_num_threads()
        small = sum(p.numel() for p in module.parameters()) < SMALL
        try:
            if small:
                torch.set_num_threads(1)
            report = _checked(
                model,
                promise,
                inputs,
                forward,
                step,
                packed,
                pad_id,
                modes,
                dtypes,
                budget,
                length,
                positions,
                output,
                progress,
            )
        finally:
            torch.set_num_threads(threads)
            before.restore()
    if was_training and any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in module.modules()):
        note = (
            "the model came in training mode with dropout on; the probes put it "
            "in eval, and train was probed with dropout stilled"
        )
        report = replace(report, notes=(note, *report.notes))
    return replace(report, source=source, seconds=time.monotonic() - started)


def _checked(
    model, promise, inputs, forward, step, packed, pad_id, modes, dtypes, budget, length, positions, output, progress
) -> Report:
    target = Target(model, inputs=inputs, forward=forward, step=step, packed=packed, pad_id=pad_id, output=output)
    target.modes = modes
    target.module.eval()
    try:
        bench = Bench(target, promise, budget, length, positions)
    except OutOfTime:
        raise CheckError(
            f"{target.name} did not finish one run within the budget of "
            f"{budget:g} s: raise budget=, or give a smaller input."
        ) from None
    probed: list[Probed] = []
    spent = False
    for index, (letter, name, probe) in enumerate(PROBES):
        if progress is not None:
            progress(name, index / len(PROBES))
        if spent:
            probed.append(Probed(letter, name, False, "the budget was spent"))
            continue
        start = time.monotonic()
        try:
            detail = _drain(probe(bench, dtypes) if probe is precision else probe(bench), bench.findings)
            probed.append(Probed(letter, name, True, detail, time.monotonic() - start))
        except DoesNotApply as why:
            probed.append(Probed(letter, name, False, str(why), time.monotonic() - start))
        except OutOfTime:
            probed.append(
                Probed(letter, name, False, f"the budget of {budget:g} s ran out in it", time.monotonic() - start)
            )
            spent = True
        except (
            RuntimeError,
            TypeError,
            ValueError,
            IndexError,
            KeyError,
            AttributeError,
            NotImplementedError,
            AssertionError,
        ) as error:
            first = (str(error).splitlines() or [""])[0][:160]
            probed.append(
                Probed(
                    letter, name, False, f"the model raised {type(error).__name__}: {first}", time.monotonic() - start
                )
            )
    if progress is not None:
        progress("done", 1.0)
    dependency = None if spent else _dependency(bench)
    return Report(
        target.name,
        str(promise),
        tuple(bench.findings),
        tuple(probed),
        tuple(dict.fromkeys(bench.notes)),
        bench.tolerated,
        0.0,
        dependency,
    )


def _drain(probe, findings: list[Finding]) -> str:
    """Collect a probe's findings as they come; its return value says what it did."""
    while True:
        try:
            findings.append(next(probe))
        except StopIteration as end:
            return end.value or ""


def _dependency(bench: Bench) -> Picture | None:
    if not bench.per_output or bench.length > bench.affordable(0.05):
        return None
    try:
        return Picture(bench.dependency(bench.x), bench.reach[0])
    except (OutOfTime, RuntimeError, ValueError, IndexError, AssertionError, TypeError):
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
