"""A verdict cannot lie: a crash of ours is named and never taken for the model's, for "does not apply" or for clean."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from headwise import check
from headwise.interp.check.errors import CheckError, Refused, handed, is_ours, theirs
from headwise.interp.check.probes import PROBES
from headwise.interp.check.report import FAILED, LATE, REFUSED
from headwise.interp.masks import Causal
from headwise.interp.zoo.case import Language, Plain

CHECK = sys.modules["headwise.interp.check.check"]  # the name in the package is the function
BENCH = sys.modules["headwise.interp.check.bench"]


class Ours(Exception):
    """Stands for any exception of ours, those that models raise as well."""


def crashing(bench):
    raise KeyError("no such thing")
    yield


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.id)
def test_a_probe_that_crashes_is_named_and_the_report_is_not_green(probe, monkeypatch):
    broken = tuple(replace(p, run=crashing) if p is probe else p for p in PROBES)
    monkeypatch.setattr(CHECK, "PROBES", broken)
    report = check(Plain().eval(), Causal(), length=7, modes="base", dtypes=())
    assert [p.id for p in report.errors] == [probe.id] and not report.ok and not report
    assert probe.id in [p.id for p in report.untested]
    told = report.errors[0]
    assert told.status == FAILED and "KeyError: 'no such thing'" in told.detail and "Please report it" in told.detail
    assert "the model raised" not in told.detail
    for text in (str(report), report.to_markdown(), report.to_html(), repr(report)):
        assert probe.name.replace("'", "&#x27;") in text or probe.name in text
        assert "clean" not in text.lower() and "not tested" in text.lower()
    data = json.loads(report.to_json())
    assert data["ok"] is False and data["errors"][0]["id"] == probe.id and data["errors"][0]["status"] == "failed"


def test_a_crash_in_the_middle_of_a_probe_keeps_what_was_found(monkeypatch):
    def half(bench):
        yield from PROBES[3].run(bench)
        raise IndexError("beyond the end")

    broken = tuple(replace(p, run=half) if p.id == "content" else p for p in PROBES)
    monkeypatch.setattr(CHECK, "PROBES", broken)

    class Leaks(Plain):
        def forward(self, ids):
            return super().forward(ids) + self.head(self.embed(ids)).mean(1, keepdim=True)

    report = check(Leaks().eval(), Causal(), length=7, modes="base", dtypes=())
    assert report.classes == ("outside-attention",) and [p.id for p in report.errors] == ["content"]
    assert report.verdict == "1 finding, not all tested"


@pytest.mark.parametrize("place", ["watched", "dependency"])
def test_a_crash_beside_the_probes_is_an_error_too(place, monkeypatch):
    def crash(*args, **kwargs):
        raise RuntimeError("the recorder broke")

    if place == "watched":
        monkeypatch.setattr(BENCH, "watch", crash)
    else:
        monkeypatch.setattr(BENCH.Bench, "dependency", crash)
    report = check(Plain().eval(), Causal(), length=7, modes="base", dtypes=())
    assert not report.ok and "the recorder broke" in report.errors[0].detail, str(report)


def test_a_crash_in_a_listener_is_ours_though_it_happens_inside_the_model(monkeypatch):
    def crash(self, name, args, kwargs):
        raise RuntimeError("the note was not taken")

    monkeypatch.setattr(sys.modules["headwise.interp.check.locate"].Operations, "_note", crash)
    report = check(Plain().eval(), Causal(), length=7, modes="base", dtypes=())
    assert not report.ok and "the note was not taken" in report.errors[0].detail
    assert not any("the model raised" in p.detail for p in report.probed)


@pytest.mark.parametrize("error", [ValueError, IndexError, RuntimeError, ZeroDivisionError, Ours])
def test_what_the_model_raises_is_the_models_and_the_promise_is_not_said_to_be_tested(error):
    class Odd(Plain):
        def forward(self, ids):
            if not torch.equal(ids, taken[:, : ids.shape[1]]):
                raise error("other ids are not taken")
            return super().forward(ids)

    taken = torch.randint(2, 30, (3, 7), generator=torch.Generator().manual_seed(0))
    report = check(Odd().eval(), Causal(), inputs=taken, modes="base", dtypes=())
    content = next(p for p in report.probed if p.id == "content")
    assert content.status == REFUSED and content.detail == f"the model raised {error.__name__}: other ids are not taken"
    assert not report.errors and not report.ok and not report.tested and report.verdict == "not tested"
    assert "content" in [p.id for p in report.untested]


def test_a_budget_that_ends_before_the_promise_was_tested_is_not_green(monkeypatch):
    def endless(bench):
        while True:
            bench.target.deadline()
            yield from ()

    broken = tuple(replace(p, run=endless) if p.id == "content" else p for p in PROBES)
    monkeypatch.setattr(CHECK, "PROBES", broken)
    report = check(Plain().eval(), Causal(), length=7, budget=1.0, modes="base", dtypes=())
    late = [p.id for p in report.probed if p.status == LATE]
    assert late[0] == "content" and not report.ok and report.verdict == "not tested" and not report.errors


def test_whose_crash_it_is_is_told_by_the_last_frame_of_ours():
    def model():
        raise IndexError("deep inside")

    def caught(function):
        try:
            function()
        except Exception as error:
            return error

    assert not is_ours(caught(lambda: handed(model)))  # handed over, then the model
    assert not is_ours(caught(model))  # none of ours at all
    assert is_ours(caught(lambda: check(Plain(), Causal(), length="seven")))  # our own code, on the way
    with pytest.raises(Refused) as refusal, theirs():
        handed(model)
    assert refusal.value.kind == "IndexError" and refusal.value.brief() == "IndexError: deep inside"
    with pytest.raises(CheckError), theirs():
        handed(check, 3)  # one sentence for the user passes as it is


# -- layouts that crashed probes and came out clean -----------------------------------------------------------------
class Mixing(nn.Module):
    """Attention over embedded positions, with or without its mask."""

    def __init__(self, masked: bool, enter: nn.Module, leave: int):
        super().__init__()
        self.enter, self.masked = enter, masked
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.leave = nn.Linear(16, leave)

    def mixed(self, x):
        length = x.shape[1]
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1) if self.masked else None
        return self.leave(self.attention(x, x, x, attn_mask=hidden, need_weights=False)[0])


class Codebooks(Mixing):
    """ids (B, T, K): K codes a position, as speech codecs have."""

    def __init__(self, masked):
        super().__init__(masked, nn.Embedding(40, 16), leave=40)

    def forward(self, codes):
        return self.mixed(self.enter(codes).sum(2))


class OneNumber(Mixing):
    """floats (B, T): a time series of one channel."""

    def __init__(self, masked):
        super().__init__(masked, nn.Linear(1, 16), leave=1)

    def forward(self, series):
        return self.mixed(self.enter(series[..., None]))[..., 0]


def given(kind):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 40, (3, 11, 4), generator=g) if kind is Codebooks else torch.randn(3, 11, generator=g)


@pytest.mark.parametrize("kind", [Codebooks, OneNumber])
def test_codes_and_series_are_tested_like_everything_else(kind):
    torch.manual_seed(0)
    report = check(kind(masked=True).eval(), Causal(), inputs=given(kind))
    assert report.ok, str(report)
    assert {"content", "samples", "growth", "amplified", "gradient", "precision"} <= {
        p.id for p in report.probed if p.applied
    }
    leaking = check(kind(masked=False).eval(), Causal(), inputs=given(kind))
    assert leaking.classes == ("future-leak",) and leaking.findings[0].module == "attention", str(leaking)


class Open(Mixing):
    def __init__(self):
        super().__init__(masked=False, enter=nn.Embedding(40, 16), leave=40)

    def forward(self, ids):
        return self.mixed(self.enter(ids))


def test_the_repr_of_a_report_is_a_few_lines():
    report = check(Language().eval(), Causal(), length=7)
    assert repr(report).startswith("<Report of Language: clean, promise Causal(); ") and "\n" not in repr(report)
    torch.manual_seed(0)
    found = check(Open().eval(), Causal(), length=7)
    assert len(repr(found).splitlines()) == 2 and "future-leak: attention, layer 0" in repr(found)
