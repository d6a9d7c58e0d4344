"""Padding: masks told by what they do, advice beside findings, chunks, where one answer is read, batches of one."""

import pytest
import torch
from torch import nn

from headwise import check
from headwise.interp.check.findings import FINDINGS
from headwise.interp.masks import Bidirectional, Blocks, Causal, Chunks, Packed, Prefix
from headwise.interp.zoo.case import Attention, Block, Language, causal
from headwise.interp.zoo.padding import Both, RowPositions

LENGTH = 13
FAST = {"modes": "base", "dtypes": ()}


def made(make, *args, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    return make(*args, **kwargs).eval()


def padding_of(report):
    return next(p for p in report.probed if p.id == "padding")


# -- masks told by what they do -------------------------------------------------------------------------------------
class Renamed(Language):
    """Another name and polarity for the mask."""

    def forward(self, ids, drop=None):
        return super().forward(ids, None if drop is None else ~drop.bool())


class Valid(Language):
    def forward(self, ids, valid=None):
        return super().forward(ids, valid)


class Grouped(Language):
    """Documents, told by 0 and 1: nobody sees those of the other kind."""

    def __init__(self):
        super().__init__(Groups, Groups)

    def forward(self, ids, groups=None):
        return super().forward(ids, groups)


class Groups(Attention):
    def allowed(self, length, real):
        return causal(length) if real is None else causal(length) & (real[:, None, :, None] == real[:, None, None])


class Gated(Language):
    """An argument that may be left out and is no mask."""

    def forward(self, ids, gate=None):
        return super().forward(ids) * (1 if gate is None else 1 + gate[..., None])


@pytest.mark.parametrize(
    ("model", "expect", "told"),
    [
        (lambda: Renamed(), Causal(), "drop was taken for the padding mask, 0 = real"),
        (lambda: Valid(Both, Both), Bidirectional(), "valid was taken for the padding mask, 1 = real"),
        (Grouped, Causal(), ""),
        (Gated, Causal(), ""),
    ],
)
def test_a_padding_mask_is_told_by_what_it_does(model, expect, told):
    report = check(made(model), expect, length=LENGTH, **FAST)
    assert report.ok and padding_of(report).applied == bool(told), str(report)
    assert any(note.startswith(told) for note in report.notes) if told else not report.notes


def test_a_mask_among_the_inputs_is_no_content():
    given = {"ids": torch.randint(2, 30, (3, LENGTH)), "valid": torch.ones(3, LENGTH)}
    report = check(made(Valid, Both, Both), Bidirectional(), inputs=given, **FAST)
    assert report.ok and padding_of(report).applied and "valid was taken" in report.notes[0], str(report)


# -- promise and advice ---------------------------------------------------------------------------------------------
def rows() -> nn.Module:
    """Positions are counted over the row, padding included."""
    return made(RowPositions, Attention, Attention, positions=True)


def test_positions_counted_over_the_row_are_advice():
    report = check(rows(), Causal(), **FAST)
    assert report.ok and report.verdict == "clean" and [a.module for a in report.advice] == ["place"], str(report)
    assert "advice: Padded on the left" in str(report) and "## Advice" in report.to_markdown()
    assert report.as_dict()["advice"][0]["class"] == "position-ids"


def test_they_are_a_finding_where_padding_on_the_left_was_asked_for():
    report = check(rows(), Causal(), padding="left", **FAST)
    assert report.classes == ("position-ids",) and report.findings[0].module == "place", str(report)
    assert check(rows(), Causal(), padding="right", **FAST).advice == ()


def test_they_are_a_finding_where_the_model_says_it_is_padded_on_the_left():
    model = rows()
    model.config = type("Config", (), {"padding_side": "left"})()
    assert check(model, Causal(), **FAST).classes == ("position-ids",)


# -- chunks and other promises --------------------------------------------------------------------------------------
class Chunked(Attention):
    """Causal chunks of four, counted from each sample's first real token – or from the row's start."""

    from_first = True

    def allowed(self, length, real):
        place = torch.arange(length)[None]
        if real is not None and self.from_first:
            place = place - real.int().argmax(1, keepdim=True)
        chunk = place.div(4, rounding_mode="floor")
        mask = causal(length) & (chunk[:, :, None] == chunk[:, None])[:, None]
        return mask if real is None else (mask & real[:, None, None]) | torch.eye(length, dtype=torch.bool)


class ChunkedRow(Chunked):
    from_first = False


@pytest.mark.parametrize("expect", [Causal() & Chunks(4), Causal() & Blocks(tuple(t // 4 for t in range(LENGTH)))])
def test_chunks_counted_from_the_padding_are_a_finding(expect):
    options = {"inputs": torch.randint(2, 30, (3, LENGTH)), **FAST}
    right = check(made(Language, Chunked, Chunked), expect, **options)
    assert right.ok and padding_of(right).applied and not right.advice, str(right)
    wrong = check(made(Language, ChunkedRow, ChunkedRow), expect, **options)
    assert wrong.classes == ("position-ids",) and "differ by 4 answer alike" in wrong.findings[0].sentence, str(wrong)


class SeesPads(Attention):
    """A prefix of three and padding that is not hidden from it."""

    hides = False

    def allowed(self, length, real):
        mask = causal(length) | (torch.arange(length) < 3)
        if real is None:
            return mask
        shown = real if self.hides else real | (torch.arange(length) < 3)
        return (mask & shown[:, None, None]) | torch.eye(length, dtype=torch.bool)


class HidesPads(SeesPads):
    hides = True


def test_pads_that_a_prefix_shows_are_found_on_the_left():
    report = check(made(Language, SeesPads), Prefix(3), **FAST)
    assert report.classes == ("padding",) and "padding on the left" in report.findings[0].sentence, str(report)
    fixed = check(made(Language, HidesPads), Prefix(3), **FAST)
    assert fixed.ok and fixed.advice, str(fixed)  # its prefix is counted from the padding


class Documents(Attention):
    """Packed documents at fixed places."""

    hides = True

    def allowed(self, length, real):
        segment = torch.tensor((0,) * 5 + (1,) * 8)[:length]
        mask = causal(length) & (segment[:, None] == segment)
        if real is None or not self.hides:
            return mask
        return (mask & real[:, None, None]) | torch.eye(length, dtype=torch.bool)


class Undivided(Documents):
    hides = False


def test_no_promise_switches_padding_off():
    for promise in (Causal() & Packed((0,) * 5 + (1,) * 8), Causal() & Packed(((0,) * 5 + (1,) * 8,) * 3)):
        report = check(made(Language, Documents, Documents), promise, **FAST)
        assert report.ok and padding_of(report).applied, str(report)
        assert check(made(Language, Undivided, Undivided), promise, **FAST).classes == ("padding",)


# -- one answer a sequence ------------------------------------------------------------------------------------------
class Answer(nn.Module):
    """ids (B, T) → (B, 5), read at some position of each row."""

    def __init__(self, where: str):
        super().__init__()
        self.where, self.embed = where, nn.Embedding(37, 16)
        self.block, self.score = Block(Attention), nn.Linear(16, 5)

    def forward(self, ids, attention_mask=None):
        real = torch.ones_like(ids).bool() if attention_mask is None else attention_mask.bool()
        x, index = self.block(self.embed(ids), real), torch.arange(ids.shape[1])
        at = {"row": index[-1:].expand(len(ids)), "count": real.sum(1) - 1, "last": (index * real).argmax(1)}
        return self.score(x[torch.arange(len(ids)), at[self.where]])


@pytest.mark.parametrize(
    ("where", "side", "cause"),
    [("count", "left", "at the number of real tokens − 1"), ("row", "right", "the last position of the row")],
)
def test_where_the_answer_is_read(where, side, cause):
    (finding,) = check(made(Answer, where), Causal(), **FAST).findings
    assert finding.cls == "padding" and f"With padding on the {side} the answer is read at" in finding.sentence
    assert cause in finding.cause and finding.sure == "certain" and finding.module == "", str(finding)


def test_the_last_real_token_is_the_right_one():
    report = check(made(Answer, "last"), Causal(), **FAST)
    assert report.ok and not report.advice, str(report)


# -- batches of one -------------------------------------------------------------------------------------------------
class Squeezed(Language):
    """The mask of a batch of one is lost, or does not fit."""

    def __init__(self, raises: bool):
        super().__init__(Both, Both)
        self.raises = raises

    def forward(self, ids, attention_mask=None):
        if attention_mask is not None and len(ids) == 1 and not attention_mask.bool().all():
            attention_mask = attention_mask[:, :2] if self.raises else None
        return super().forward(ids, attention_mask)


@pytest.mark.parametrize(("raises", "says"), [(True, "raises RuntimeError: "), (False, "gives another answer")])
def test_a_padded_sample_alone_in_its_batch(raises, says):
    (finding,) = check(made(Squeezed, raises), Bidirectional(), **FAST).findings
    assert finding.cls == FINDINGS["padding-of-one"].cls and says in finding.sentence, str(finding)
