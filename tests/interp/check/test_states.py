"""States: how a model is decoded is found by what it does, what it keeps must not outlive its sequence."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import check
from headwise.interp.check import CheckError
from headwise.interp.masks import Bidirectional, Causal

FAST = {"modes": "base", "dtypes": (), "length": 11}
WORDS, WIDTH = 29, 8


class Running(nn.Module):
    """ids (B, T) → logits: a sum of what came before, fading by half a step. ``wrong`` is added to its state's part."""

    def __init__(self, wrong: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head, self.wrong = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS), wrong

    def mixed(self, ids, state=None):
        """(B, T), (B, C) → (B, T, C), the states after each (B, T, C)"""
        outs, states = [], []
        for index, x in enumerate(self.embed(ids).unbind(1)):
            before = torch.zeros_like(x) if state is None else state
            state = x + 0.5 * before
            states.append(state)
            outs.append(state + (self.wrong * before if index == 0 else 0.0))
        return torch.stack(outs, 1), torch.stack(states, 1)


class ByState(Running):
    def forward(self, ids, state=None):
        out, kept = self.mixed(ids, state)
        return self.head(out), kept[:, -1]


class ByOddName(Running):
    """Nothing in the name speaks of a cache, and a decoy takes the same tensor."""

    def forward(self, ids, scale=None, before=None):
        out, kept = self.mixed(ids, before)
        return self.head(out if scale is None else out * scale[:, None]), kept[:, -1]


class InADict(Running):
    def forward(self, ids, *, carry=None, return_state=False):
        out, kept = self.mixed(ids, carry)
        return {"logits": self.head(out), "carry": kept[:, -1]} if return_state else {"logits": self.head(out)}


class InPieces(Running):
    """The state comes back as two values and goes in as a pair."""

    def forward(self, ids, hx=None):
        out, kept = self.mixed(ids, None if hx is None else hx[0] + hx[1])
        return self.head(out), kept[:, -1] / 2, kept[:, -1] / 2


class KeptUntilReset(Running):
    state = None

    def reset_state(self):
        self.state = None

    def forward(self, ids):
        out, states = self.mixed(ids, self.state)
        self.state = states[:, -1]
        return self.head(out)


class KeptBesideForward(Running):
    """``forward`` is for training; ``step`` takes one token without its axis of time."""

    state = None

    def reset(self):
        self.state = None

    def step(self, ids):
        out, states = self.mixed(ids[:, None], self.state)
        self.state = states[:, -1]
        return self.head(out[:, 0])

    def forward(self, ids):
        return self.head(self.mixed(ids)[0])


class StepWithState(Running):
    def initial_state(self, batch):
        return torch.zeros(batch, WIDTH)

    def step(self, ids, state):
        out, states = self.mixed(ids[:, None], state)
        return self.head(out[:, 0]), states[:, -1]

    def forward(self, ids):
        return self.head(self.mixed(ids)[0])


class AtAPosition(Running):
    """As Llama's reference code: slots on the module, written from ``start_pos`` on."""

    def __init__(self, wrong=0.0):
        super().__init__(wrong)
        self.register_buffer("slots", torch.zeros(8, 64, WIDTH))

    def forward(self, ids, start_pos: int = 0):
        out, states = self.mixed(ids, self.slots[: len(ids), start_pos - 1] if start_pos else None)
        self.slots[: len(ids), start_pos : start_pos + ids.shape[1]] = states
        return self.head(out)


KINDS = (ByState, ByOddName, InADict, InPieces, KeptUntilReset, KeptBesideForward, StepWithState, AtAPosition)
SAID = {
    ByState: "state=",
    ByOddName: "before=",
    InADict: "carry=",
    InPieces: "hx=",
    KeptUntilReset: "its own cache",
    KeptBesideForward: "step()",
    StepWithState: "step()",
    AtAPosition: "its own cache",
}


def decoded(report):
    return next(p for p in report.probed if p.id == "cache")


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_to_decode_is_found_and_what_is_right_is_green(kind):
    report = check(kind().eval(), Causal(), **FAST)
    assert report.ok, str(report)
    assert decoded(report).applied and f"(by {SAID[kind]})" in decoded(report).detail, str(report)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_step_gets_wrong_is_found(kind):
    report = check(kind(0.7).eval(), Causal(), **FAST)
    assert report.classes == ("cache",), str(report)
    assert "differs from the full forward from position" in report.findings[0].sentence


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_torch_recurrences_are_decoded_by_their_own_state(kind):
    torch.manual_seed(0)
    report = check(kind(6, 6, 2, batch_first=True).eval(), Causal(), **FAST)
    assert report.ok and "(by hx=)" in decoded(report).detail, str(report)


class Decoys(nn.Module):
    """Takes what it returns, and none of it is a cache: attention weights for a bias, states for a context."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.qkv, self.head = (
            nn.Embedding(WORDS, WIDTH),
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WORDS),
        )

    def forward(self, ids, bias=None, context=None, weights_mask=None):
        x = self.embed(ids)
        x = x if context is None else x + context.mean(1, keepdim=True)
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = (q @ k.transpose(1, 2)).masked_fill(torch.ones(2 * [ids.shape[1]]).triu(1).bool(), -torch.inf)
        weights = (scores if bias is None else scores + bias[:, :1, :1]).softmax(-1)
        return self.head(weights @ v), weights, x

    def step(self, ids):  # of an optimiser, say
        return self.head(torch.ones(len(ids), ids.shape[1], WIDTH))


def test_what_is_no_cache_is_not_taken_for_one():
    report = check(Decoys().eval(), Causal(), **FAST)
    assert report.ok, str(report)
    assert not decoded(report).applied and "name one with step=" in decoded(report).detail, str(report)


class PositionsGiven(AtAPosition):
    """As gpt-fast: the positions of the tokens are an argument, the same for all samples."""

    def forward(self, ids, input_pos):
        return super().forward(ids, int(input_pos[0]))


def test_positions_that_are_given_are_cut_along():
    inputs = {"ids": torch.randint(0, WORDS, (3, 11)), "input_pos": torch.arange(11)}
    report = check(PositionsGiven().eval(), Causal(), inputs=inputs, modes="base", dtypes=())
    assert report.ok and "(by its own cache)" in decoded(report).detail, str(report)
    wrong = check(PositionsGiven(0.7).eval(), Causal(), inputs=inputs, modes="base", dtypes=())
    assert wrong.classes == ("cache",) and "input_pos=positions" in wrong.findings[0].smallest["step"], str(wrong)


class Slots(nn.Module):
    """Keys and values in slots on the module; ``sees``: those that nobody has written, too."""

    def __init__(self, sees):
        super().__init__()
        torch.manual_seed(0)
        self.sees, self.embed, self.qkv, self.head = sees, nn.Embedding(WORDS, 8), nn.Linear(8, 24), nn.Linear(8, WORDS)
        self.register_buffer("kept", torch.zeros(2, 8, 32, 8))

    def forward(self, ids, start_pos=0):
        q, k, v = self.qkv(self.embed(ids)).chunk(3, -1)
        n, end = ids.shape[1], start_pos + ids.shape[1]
        self.kept[0, : len(ids), start_pos:end], self.kept[1, : len(ids), start_pos:end] = k, v
        keys, values = self.kept[:, : len(ids), : 32 if self.sees and start_pos else end]
        mask = torch.ones(n, keys.shape[1], dtype=torch.bool).tril(start_pos)
        mask[:, end:] = True
        return self.head(F.scaled_dot_product_attention(q, keys, values, mask))


def test_a_static_cache_may_be_watched_and_its_empty_slots_are_named():
    right = check(Slots(False).eval(), Causal(), **FAST)
    assert right.ok and decoded(right).applied, str(right)
    assert next(p for p in right.probed if p.id == "layers").applied, str(right)
    finding = check(Slots(True).eval(), Causal(), **FAST).findings[0]
    assert finding.cause == "its attention sees 30 of 32 slots that nobody has written", str(finding)


def test_an_encoder_has_no_steps():
    report = check(ByState().eval(), Bidirectional(), **FAST)
    assert decoded(report).status == "nothing to test", str(report)


class Strided(nn.Module):
    """Samples (B, 1, T) → codes (B, 4, T / 2), each convolution with the samples it has still to wait for."""

    def __init__(self, forgets=False):
        super().__init__()
        torch.manual_seed(0)
        self.forgets, self.first, self.down = forgets, nn.Conv1d(1, 4, 3), nn.Conv1d(4, 4, 4, 2)

    def forward(self, x, cache=None):
        kept = []
        for index, conv in enumerate((self.first, self.down)):
            fresh = cache is None or (self.forgets and index)
            x = torch.cat([torch.zeros(*x.shape[:2], 2) if fresh else cache[index], x], 2)
            kept.append(x[..., -2:])
            x = conv(x)
        return x, kept


def test_a_strided_encoder_is_streamed_by_whole_outputs():
    wave = torch.randn(3, 1, 24, generator=torch.Generator().manual_seed(0))
    say = {"inputs": wave, "modes": "base", "dtypes": ()}
    report = check(Strided().eval(), Causal(), **say)
    assert report.ok and "(by cache=)" in decoded(report).detail, str(report)
    finding = check(Strided(forgets=True).eval(), Causal(), **say).findings[0]
    assert finding.cls == "cache" and finding.smallest["chunks"] == [2, 2], str(finding)


# -- what a step says, and where a sequence begins --------------------------------------------------------------------
class Stepped(Running):
    """Keeps its state, under a name that no pattern knows."""

    state = None

    def afresh(self):
        self.state = None

    def on(self, ids):
        out, states = self.mixed(ids, self.state)
        self.state = states[:, -1]
        return self.head(out)

    def forward(self, ids):
        return self.head(self.mixed(ids)[0])


def test_a_step_may_return_its_output_alone():
    say = {"step": lambda model, ids, cache: model.on(ids), **FAST}
    report = check(Stepped().eval(), Causal(), **say)
    assert report.ok and any("name it with reset=" in note for note in report.notes), str(report)
    named = check(Stepped().eval(), Causal(), reset="afresh", **say)
    assert named.ok and "a shorter sequence after another one" in decoded(named).detail, str(named)
    assert check(Stepped().eval(), Causal(), reset=Stepped.afresh, **say).ok
    idle = check(Stepped().eval(), Causal(), reset=lambda model: None, **say)
    assert idle.classes == ("cache",) and "something of the first is left" in idle.findings[0].sentence, str(idle)
    assert "what the first sequence left in state" in idle.findings[0].cause
    with pytest.raises(CheckError, match="reset= names 'anew', which is no method of Stepped"):
        check(Stepped().eval(), Causal(), reset="anew", **say)


class AloneOnly(ByState):
    """A batch of one loses its state: an axis of one is squeezed away, and the sum runs over the wrong one."""

    def forward(self, ids, state=None):
        if state is not None and len(ids) == 1:
            state = state.squeeze().mean() * torch.ones_like(state)
        return super().forward(ids, state)


def test_a_batch_of_one_is_decoded_too():
    report = check(AloneOnly().eval(), Causal(), **FAST)
    assert report.classes == ("cache",) and "a batch of one" in report.findings[0].sentence, str(report)
    assert report.findings[0].smallest["batch"] == 1


class ChunkOnly(ByState):
    """The state reaches the first position of a chunk alone."""

    def forward(self, ids, state=None):
        out, kept = self.mixed(ids, state)
        if state is not None and ids.shape[1] > 1:
            out = torch.cat([out[:, :1], self.mixed(ids[:, 1:])[0]], 1)
        return self.head(out), kept[:, -1]


def test_a_cause_that_is_not_known_is_not_guessed():
    finding = check(ChunkOnly().eval(), Causal(), **FAST).findings[0]
    assert finding.cause == (
        "we did not find why (steps of one position agree, and so does the first of a "
        "chunk of 3; those behind it differ)"
    )


class FadesOnce(ByState):
    """The state fades once for a chunk, not for each of its positions."""

    def forward(self, ids, state=None):
        own, _ = self.mixed(ids)
        _, kept = self.mixed(ids, state)
        return self.head(own if state is None else own + 0.5 * state[:, None]), kept[:, -1]


def test_a_state_that_is_weighed_wrongly_is_told_by_its_weights():
    finding = check(FadesOnce().eval(), Causal(), **FAST).findings[0]
    assert finding.cls == "cache" and "made 1, 0.5, 0.25 times as large" in finding.cause, str(finding)


# -- causes that an experiment proves ---------------------------------------------------------------------------------
class Cached(nn.Module):
    """ids, past → logits, past, with one attention whose step goes wrong by ``fault``."""

    def __init__(self, fault: str = ""):
        super().__init__()
        torch.manual_seed(0)
        self.fault = fault
        self.embed, self.qkv, self.head = nn.Embedding(WORDS, 16), nn.Linear(16, 48), nn.Linear(16, WORDS)

    def forward(self, ids, past=None):
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in self.qkv(self.embed(ids)).chunk(3, -1))
        start = 0 if past is None else past[0].shape[2]
        at = torch.arange(ids.shape[1]) + (0 if self.fault == "turned" else start)
        q, k = (turn(t, at) for t in (q, k))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        n, m = q.shape[2], k.shape[2]
        bias = -0.3 * torch.arange(m) * (self.fault != "bias" or past is None)
        mask = torch.ones(n, m, dtype=torch.bool).tril(m - n)
        mask = torch.ones(n, m, dtype=torch.bool).tril() if self.fault == "less" else mask
        mask = torch.ones(n, m, dtype=torch.bool) if self.fault == "more" and past is not None else mask
        scores = (q @ k.transpose(-1, -2) + bias).masked_fill(~mask, -torch.inf)
        return self.head((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)), (k, v)


def turn(x, at):
    angle = at[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03])
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


@pytest.mark.parametrize(
    "fault, cause",
    [
        ("bias", "the bias on the step's scores is not the full run's"),
        ("less", "query 1 does not see key 1, which it sees in the full run"),
        ("more", "sees key"),
        ("turned", "turned otherwise: they stand at other positions"),
    ],
)
def test_a_cause_is_told_where_giving_back_the_full_runs_part_mends_the_step(fault, cause):
    assert check(Cached().eval(), Causal(), **FAST).ok
    finding = check(Cached(fault).eval(), Causal(), **FAST).findings[0]
    assert finding.cls == "cache" and cause in finding.cause and finding.sure == "certain", str(finding)


# -- what is kept between calls ---------------------------------------------------------------------------------------
class RaisesTwice(Running):
    kept = None

    def forward(self, ids):
        out = self.head(self.mixed(ids)[0])
        if self.kept is not None:
            out = out + self.kept[:, :0]
        self.kept = out
        return out


def test_a_second_run_that_raises_is_a_finding():
    report = check(RaisesTwice().eval(), Causal(), **FAST)
    assert report.classes == ("state",) and "raises the second time: RuntimeError" in report.findings[0].sentence


class OfTheFirstBatch(Running):
    noise = None

    def forward(self, ids):
        if self.noise is None:
            self.noise = torch.arange(float(len(ids)))[:1, None, None] + len(ids)
        return self.head(self.mixed(ids)[0] + self.noise)


def test_what_is_built_for_one_batch_size_is_found():
    report = check(OfTheFirstBatch().eval(), Causal(), **FAST)
    finding = report.findings[0]
    assert finding.cls == "state" and "An input of another batch, run before" in finding.sentence, str(report)


class Reshaped(Running):
    def forward(self, ids):
        out = self.head(self.mixed(ids)[0])
        return out[:, :-1] if torch.is_grad_enabled() else out


def test_a_mode_of_another_shape_is_a_finding():
    report = check(Reshaped().eval(), Causal(), length=11, dtypes=())
    assert report.classes == ("mode",) and "is (3, 10, 29), in eval, no_grad (3, 11, 29)" in report.findings[0].sentence


class ShapeOfContent(Running):
    """A last word that ends the text costs an output."""

    def forward(self, ids):
        return self.head(self.mixed(ids)[0])[:, : ids.shape[1] - int((ids[:, -1] < 10).any())]


def test_a_shape_that_follows_the_content_is_a_leak_and_in_every_mode():
    even = 2 * torch.arange(33).view(3, 11).remainder(13)
    report = check(ShapeOfContent().eval(), Causal(), inputs=even, dtypes=())
    assert report.classes == ("outside-attention",) and not report.errors, str(report)
    assert report.findings[0].effect == float("inf") and report.findings[0].mode == ""
    assert report.to_json() and report.to_html()


class Averages(Running):
    """In training it keeps a running mean of what it met, for later calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))

    def forward(self, ids):
        out, _ = self.mixed(ids)
        logits = self.head(out - self.mean)
        if self.training:
            self.mean.mul_(0.5).add_(out.detach().mean((0, 1)))
        return logits


def test_what_training_leaves_behind_is_put_back_before_the_next_run():
    model = Averages().eval()
    report = check(model, Causal(), length=11, dtypes=())
    assert report.ok and not bool(model.mean.any()), str(report)


# -- batch norm in training -------------------------------------------------------------------------------------------
class Normed(nn.Module):
    """(B, T, 6) → (B, T, ``out``), a batch norm and a causal convolution."""

    def __init__(self, out):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.conv = nn.BatchNorm1d(6), nn.Conv1d(6, out, 3)

    def forward(self, x):
        return self.conv(F.pad(self.norm(x.transpose(1, 2)), (2, 0))).transpose(1, 2)


def test_batch_statistics_are_a_finding_in_training_where_the_next_input_is_predicted():
    report = check(Normed(6), Causal())
    finding = report.findings[0]
    assert report.classes == ("mode",) and finding.module == "norm" and "batch statistics" in finding.mode, str(report)
    assert finding.sentence.startswith("In training only, norm mixes positions") and "frozen" in finding.cause
    assert "gradient mode" not in finding.cause and "is_causal" not in finding.fix
    other = check(Normed(9), Causal())
    assert other.ok and [f.module for f in other.advice] == ["norm"], str(other)
    assert "advice: In training only, norm mixes positions" in str(other)


def test_an_encoder_with_batch_norm_is_green():
    report = check(Normed(6), Bidirectional())
    assert report.ok, str(report)
