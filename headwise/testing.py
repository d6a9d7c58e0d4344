"""Assertions for your own tests: three lines hold a model to its mask.

    from headwise.testing import assert_causal

    def test_my_model_does_not_look_ahead():
        assert_causal(MyModel())

Each runs ``headwise.check`` and fails with the finding and a small ■⬚ picture. Keyword arguments are those of
``check``. They look at the classes they are named after; ``assert_mask`` wants the whole report clean. What could not
be tested fails too, and says why.
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
UNDER_PADDING = {
    "padding",
    "position-ids",
    "outside-attention",
    "mask-convention",
    "layout",
    "empty-rows",
    "mode",
    "routing",
}
BESIDE = {"padding", "cache", "packed", "labels"}  # probes that ask something else than whether the mask is kept


def assert_mask(model, expect: Mask, **options) -> Report:
    """The model keeps ``expect`` in every probe that applies."""
    report = check(model, expect, **options)
    _fail(report.findings, report)
    if not report.ok:
        raise AssertionError(_untested(report, report.errors or report.untested))
    return report


def assert_causal(model, **options) -> Report:
    """No output depends on later inputs: not in any mode, not outside attention."""
    return _only(check(model, Causal(), **options), LEAKS, "content")


def assert_window(model, left: int, right: int = 0, **options) -> Report:
    """Every layer sees ``left`` keys back and ``right`` ahead, no more and no less. Hugging Face's sliding_window=W
    is left = W − 1.
    """
    return _only(check(model, Window(left, right), **options), LEAKS, "content")


def assert_padding_invariant(model, *, expect: Mask | None = None, **options) -> Report:
    """What stands under the padding, and how much of it there is, does not change real positions. The model is an
    encoder unless ``expect`` says otherwise.
    """
    report = check(model, Bidirectional() if expect is None else expect, **options)
    return _only(report, UNDER_PADDING, "padding")


def assert_cache_parity(model, *, expect: Mask | None = None, **options) -> Report:
    """Decoding with a cache – prefill, one at a time, chunks, one sequence after another – equals the full forward. How
    to decode is looked for; where nothing is found, give ``step=``.
    """
    return _only(check(model, Causal() if expect is None else expect, **options), {"cache"}, "cache")


def assert_packed_isolation(model, *, packed=None, segment_ids=None, **options) -> Report:
    """Documents packed into one row do not see each other. Give ``packed(model, x, segment_ids)``, or
    ``segment_ids`` for a model that separates these documents by itself.
    """
    expect = Causal() if segment_ids is None else Causal() & Packed(tuple(segment_ids))
    report = check(model, expect, packed=packed, **options)
    return _only(report, {"packed", "position-ids", "future-leak"}, "packed" if segment_ids is None else "content")


def _only(report: Report, classes: set[str], probe: str) -> Report:
    """Fails on findings of these classes, and when what the assertion is about was not tested: its ``probe``, or, for
    a mask, any probe that asks whether it is kept.
    """
    _fail([f for f in report.findings if f.cls in classes], report)
    about = next(p for p in report.probed if p.id == probe)
    if not about.applied:
        _fail(report.findings, report)
        raise AssertionError(_untested(report, [about]))
    failed = [p for p in report.errors if probe == "content" and p.id not in BESIDE]
    if failed:
        raise AssertionError(_untested(report, failed))
    return report


def _untested(report: Report, probes) -> str:
    return f"{report.model}: " + "; ".join(f"{p.name} could not be checked: {p.detail}" for p in probes) + "."


def _fail(found: Iterable[Finding], report: Report) -> None:
    found = tuple(found)
    if found:
        raise AssertionError(f"{report.model} does not keep {report.expect}\n" + "\n".join(map(str, found)))
