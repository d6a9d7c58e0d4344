"""Attention that tells itself what it was, and attention that a watcher tells: calls like any other, proven, edited."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise import anatomy, capture, edits, wrap
from headwise.interp.analysis.ablation import ablate
from headwise.interp.attention.banded import Banded
from headwise.interp.attention.report import attend, gap
from headwise.interp.attention.scores import Computed
from headwise.interp.attention.watch import Watched
from headwise.interp.masks import Causal, Window
from headwise.interp.run.capture import rerun
from headwise.models.architectures.blocks import Attention
from headwise.models.architectures.decoder import Decoder, DecoderConfig

MASK = Causal() & Window(3, 0)


@dataclass(frozen=True)
class Band:
    """A window, computed the dear way; ``turned`` makes it tell weights that are not its own."""

    mask: object = MASK
    turned: bool = False

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, self.mask.dense(q.shape[2], k.shape[2]))

    def form(self, q: Tensor, k: Tensor) -> Banded:
        return Banded(q, k, q.shape[-1] ** -0.5 * (2 if self.turned else 1), self.mask)


class Reporting(Attention):
    """An attention of our own that goes through the door."""

    by = Band()

    def forward(self, x, memory=None, *, mask=None, causal=False, positions=None):
        q, k, v = self.project(x, memory, positions)
        return self.output(attend(q, k, v, self.by).transpose(1, 2).flatten(2))


class Foreign(Attention):
    """Somebody's attention, which cuts its scores up so that nothing of them is recognised."""

    def forward(self, x, memory=None, *, mask=None, causal=False, positions=None):
        q, k, v = self.project(x, memory, positions)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~MASK.dense(q.shape[2]), -1e9)
        e = (scores - scores.logsumexp(-1, keepdim=True)).exp()
        return self.output((e @ v).transpose(1, 2).flatten(2))


class Knows:
    """Knows ``Foreign``."""

    keeps = ("logsumexp",)

    def applies(self, module):
        return True

    def __call__(self, module, given):
        q, k, v = module.project(given.arguments["x"], None, given.arguments["positions"])
        assert len(given.kept["logsumexp"]) == 1
        output = F.scaled_dot_product_attention(q, k, v, MASK.dense(q.shape[2]))
        return Watched(q, k, v, Band(), output, lambda z: module.output(z.transpose(1, 2).flatten(2)))


WATCHERS = {f"{Foreign.__module__}.Foreign": Knows()}


def decoder(kind=Attention):
    torch.manual_seed(0)
    module = Decoder(DecoderConfig(vocab_size=11, context=32, layers=2, heads=2, width=16)).eval()
    for block in module.blocks:
        if kind is not Attention:
            block.attention.__class__ = kind
    return module


def dense() -> nn.Module:
    module = decoder()
    for block in module.blocks:
        plain = block.attention.forward
        block.attention.forward = lambda x, plain=plain, **given: plain(
            x, mask=MASK.dense(x.shape[1]), positions=given["positions"]
        )
    return module


def subjects():
    yield "reported", wrap(decoder(Reporting), kind="decoder")
    yield "watched", replace(wrap(decoder(Foreign), kind="decoder"), watchers=WATCHERS)


SUBJECTS = dict(subjects())
IDS = {"input_ids": torch.arange(9)[None]}


@pytest.mark.parametrize("how", SUBJECTS)
def test_it_is_a_call_with_the_weights_of_dense_attention(how):
    cap, plain = capture(SUBJECTS[how], IDS), capture(wrap(dense(), kind="decoder"), IDS)
    assert not cap.unseen and len(cap.calls) == 2
    for call, same in zip(cap.calls, plain.calls, strict=True):
        assert call.mask == MASK and call.form.how == "banded"
        assert torch.allclose(call.weights(1), same.weights(1), atol=1e-6)
        assert torch.allclose(call.weights(1, (3, 5)), call.weights(1)[:, 3:5], atol=1e-6)
        assert torch.allclose(call.value_weighted(0), same.value_weighted(0), atol=1e-6)
        assert torch.allclose(call.out, same.out, atol=1e-6)
        assert call.obeys(MASK) and call.layer == same.layer and call.kind == "self"
    assert cap.fidelity == 0


@pytest.mark.parametrize("how", SUBJECTS)
@pytest.mark.parametrize(
    "edit",
    [
        edits.ZeroHead(0, 1),
        edits.Zero(edits.Pattern(1, 0)),
        edits.Zero(edits.Value(0, 1)),
        edits.Zero(edits.Query(1, 1)),
        edits.ForbidEdge(0, 5, 4, 1),
    ],
    ids=str,
)
def test_edits_do_what_they_do_in_dense_attention(how, edit):
    cap, plain = capture(SUBJECTS[how], IDS), capture(wrap(dense(), kind="decoder"), IDS)
    edited, wanted = rerun(cap, [edit]), rerun(plain, [edit])
    assert not torch.allclose(wanted.logits, plain.logits, atol=1e-4)
    assert torch.allclose(edited.logits, wanted.logits, atol=1e-5)
    assert torch.equal(capture(SUBJECTS[how], IDS).logits, cap.logits)  # nothing stays


def test_effects_of_heads_are_those_of_dense_attention():
    wanted = ablate(capture(wrap(dense(), kind="decoder"), IDS), target=3)
    for subject in SUBJECTS.values():
        assert ablate(capture(subject, IDS), target=3).effect.tolist() == pytest.approx(
            wanted.effect.tolist(), abs=1e-5
        )


def test_the_stream_is_found_through_the_door():
    found = anatomy(SUBJECTS["reported"], IDS)
    assert found.proof.total < 1e-5 and found.proof.heads < 1e-5


@pytest.mark.parametrize("how", SUBJECTS)
def test_weights_that_do_not_make_the_output_are_refused(how, monkeypatch):
    if how == "reported":
        monkeypatch.setattr(Reporting, "by", Band(turned=True))
    else:
        monkeypatch.setattr(Knows, "__call__", lambda self, module, given: _doubled(module, given))
    cap = capture(SUBJECTS[how], IDS)
    assert not cap.calls
    assert [u.name for u in cap.unseen] == ["blocks.0.attention", "blocks.1.attention"]
    assert all("weights × values are not its own output" in str(u) for u in cap.unseen)


def _doubled(module, given, told=Knows.__call__):
    said = told(Knows(), module, given)
    return replace(said, by=Band(turned=True))


def test_a_sentence_of_the_watcher_is_what_the_user_reads(monkeypatch):
    monkeypatch.setattr(Knows, "__call__", lambda self, module, given: "it draws anew at every step")
    assert [u.reason for u in capture(SUBJECTS["watched"], IDS).unseen] == ["it draws anew at every step"] * 2


def test_a_watcher_that_fails_leaves_the_run_alone(monkeypatch):
    cap = capture(SUBJECTS["watched"], IDS)
    monkeypatch.setattr(Knows, "__call__", lambda self, module, given: given.arguments["nothing of the kind"])
    failed = capture(SUBJECTS["watched"], IDS)
    assert torch.equal(failed.logits, cap.logits)
    assert ["KeyError: 'nothing of the kind'" in str(u) for u in failed.unseen] == [True, True]


def test_gap_is_relative_and_looks_at_first_and_last():
    q, k, v = torch.randn(3, 1, 2, 7, 4, generator=torch.Generator().manual_seed(0))
    form = Computed(q, k, 0.5, causal=True)
    out = form.output(v)
    assert gap(form, v, out) < 1e-6
    for row in (0, 6):
        wrong = out.clone()
        wrong[:, :, row] += out.abs().max()
        assert 0.4 < gap(form, v, wrong) <= 1


@pytest.mark.parametrize("mask", [MASK, Window(2, 1), Causal()], ids=repr)
def test_banded_is_softmax_over_what_the_mask_allows(mask):
    q, k = torch.randn(2, 1, 2, 7, 4, generator=torch.Generator().manual_seed(1))
    form = Banded(q, k, 0.5, mask, bias=lambda start, stop, heads: torch.arange(7.0) / 7)
    scores = (q @ k.mT * 0.5 + torch.arange(7.0) / 7).masked_fill(~mask.dense(7), -torch.inf)
    assert torch.allclose(form.weights(0, 7, slice(None)), scores.softmax(-1), atol=1e-6)
    assert torch.allclose(form.scores(2, 4, slice(1, 2)), scores[:, 1:, 2:4], atol=1e-6)
