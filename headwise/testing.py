"""Assertions for your own tests: three lines hold a model to its mask.

    from headwise.testing import assert_causal

    def test_my_model_does_not_look_ahead():
        assert_causal(MyModel())

Each runs ``headwise.check`` and fails with the finding and a small ■⬚ picture. Keyword arguments are those of
``check``. They look at the classes they are named after; ``assert_mask`` wants the whole report clean.
"""

from __future__ import annotations

from collections.abc import Iterable

from headwise.interp.check import Finding, Report, check
from headwise.interp.masks import Bidirectional, Causal, Mask, Packed, Window

LEAKS = {
    "future-leak",
    "mask-convention",
    "layout",
    "outside-attention",
    "routing",
    "mode",
    "empty-rows",
    "dtype",
    "prefix",
    "window",
    "state",
}


def assert_mask(model, expect: Mask, **options) -> Report:
    """The model keeps ``expect`` in every probe that applies."""
    report = check(model, expect, **options)
    _fail(report.findings, report)
    return report


def assert_causal(model, **options) -> Report:
    """No output depends on later inputs: not in any mode, not outside attention."""
    return _only(check(model, Causal(), **options), LEAKS, "P T E")


def assert_window(model, left: int, right: int = 0, **options) -> Report:
    """Every layer sees ``left`` keys back and ``right`` ahead, no more and no less. Hugging Face's sliding_window=W
    is left = W − 1.
    """
    return _only(check(model, Window(left, right), **options), LEAKS, "P T E")


def assert_padding_invariant(model, *, expect: Mask | None = None, **options) -> Report:
    """What stands under the padding, and how much of it there is, does not change real positions. The model is an
    encoder unless
    ``expect`` says otherwise."""
    report = check(model, Bidirectional() if expect is None else expect, **options)
    return _only(
        report,
        {"padding", "position-ids", "outside-attention", "mask-convention", "layout", "empty-rows", "mode", "routing"},
        "B",
    )


def assert_cache_parity(model, *, expect: Mask | None = None, **options) -> Report:
    """Decoding with a cache – prefill, one at a time, chunks – equals the full forward. Give ``step=`` for models of
    your own.
    """
    return _only(check(model, Causal() if expect is None else expect, **options), {"cache"}, "C")


def assert_packed_isolation(model, *, packed=None, segment_ids=None, **options) -> Report:
    """Documents packed into one row do not see each other. Give ``packed(model, x, segment_ids)``, or
    ``segment_ids`` for a model that
    separates these documents by itself."""
    expect = Causal() if segment_ids is None else Causal() & Packed(tuple(segment_ids))
    return _only(
        check(model, expect, packed=packed, **options),
        {"packed", "position-ids", "future-leak"},
        "K" if segment_ids is None else "P T E",
    )


def _only(report: Report, classes: set[str], letter: str) -> Report:
    """Fails on findings of these classes, and when the probe that the assertion is about did not apply."""
    found = [f for f in report.findings if f.cls in classes]
    _fail(found, report)
    probe = next(p for p in report.probed if p.letter == letter)
    if not probe.applied and not report.findings:
        raise AssertionError(f"{report.model}: {probe.name} could not be checked: {probe.detail}.")
    if not probe.applied:
        _fail(report.findings, report)
    return report


def _fail(found: Iterable[Finding], report: Report) -> None:
    found = tuple(found)
    if found:
        raise AssertionError(f"{report.model} does not keep {report.expect}\n" + "\n".join(map(str, found)))
