"""Long convolutions, scans and recurrences in parallel: right up to rounding, which is no leak."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.interp.check.fields.field import WIDTH, WORDS, Field


class LongConvolution(nn.Module):
    """(B, T, C): a state space as one kernel as long as the sequence, by FFT (Gu et al. 2022). Without zeros behind it
    the convolution is circular."""

    def __init__(self, circular: bool):
        super().__init__()
        self.circular = circular
        self.decay = nn.Parameter(torch.rand(WIDTH, 4))
        self.mix = nn.Parameter(torch.randn(WIDTH, 4))
        self.skip, self.out = nn.Parameter(torch.randn(WIDTH)), nn.Linear(WIDTH, WIDTH)

    def forward(self, u):
        t = u.shape[1]
        powers = self.decay[..., None] ** torch.arange(t)  # (C, N, T)
        kernel = (self.mix[..., None] * powers).sum(1)
        n = t if self.circular else 2 * t
        y = torch.fft.irfft(torch.fft.rfft(u.transpose(1, 2), n) * torch.fft.rfft(kernel, n), n)[..., :t]
        return self.out(F.gelu(y.transpose(1, 2) + u * self.skip))


class Scan(nn.Module):
    """h_t = a_t · h_{t−1} + b_t by doubling (Hillis & Steele 1986; Martin & Cundy 2018). The bug rolls where it should
    shift."""

    def __init__(self, rolls: bool):
        super().__init__()
        self.rolls = rolls
        self.gate, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def back(self, x, by, fill):
        if self.rolls:
            return x.roll(by, 1)
        return torch.cat([torch.full_like(x[:, :by], fill), x[:, :-by]], 1)

    def forward(self, x):
        a = self.gate(x).sigmoid()
        b, by = (1 - a) * self.value(x), 1
        while by < x.shape[1]:
            a, b = a * self.back(a, by, 1.0), b + a * self.back(b, by, 0.0)
            by *= 2
        return self.out(b)


class LogSpace(nn.Module):
    """Positive recurrences as a running log-sum-exp (minGRU, Feng et al. 2024). The bug subtracts the largest of all
    positions and adds a small number, which then is small beside that position only."""

    def __init__(self, whole: bool):
        super().__init__()
        self.whole = whole
        self.gate, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        keep, add = F.logsigmoid(self.gate(x)), F.logsigmoid(-self.gate(x))
        decay = keep.cumsum(1)
        values = add + F.softplus(self.value(x)).clamp(min=1e-6).log() - decay
        if self.whole:
            top = values.amax(1, keepdim=True)
            total = ((values - top).exp().cumsum(1) + 1e-4).log() + top
        else:
            total = values.logcumsumexp(1)
        return self.out((decay + total).exp())


class Subtracted(nn.Module):
    """Mean of the past as all minus what follows: the future cancels up to rounding. The bug leaves one step of it."""

    def __init__(self, one_more: bool):
        super().__init__()
        self.one_more = one_more
        self.enter, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        y = self.enter(x)
        rest = y.flip(1).cumsum(1).flip(1)  # from here to the end
        follows = F.pad(rest[:, 2:], (0, 0, 0, 2)) if self.one_more else F.pad(rest[:, 1:], (0, 0, 0, 1))
        past = y.sum(1, keepdim=True) - follows
        return self.out(F.gelu(past / torch.arange(1, x.shape[1] + 1)[:, None]))


class MovingSum(nn.Module):
    """Sums over a window of five as differences of one running sum; the bug's window is centred."""

    def __init__(self, centred: bool):
        super().__init__()
        self.centred = centred
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        ahead = 2 if self.centred else 0
        total = F.pad(x, (0, 0, 5, ahead)).cumsum(1)
        return self.out(total[:, 5 + ahead :] - total[:, ahead:-5])


class Retention(nn.Module):
    """ids (B, T) → logits: the parallel form, decayed with distance (Sun et al. 2023). The bug takes the distance
    without its sign."""

    def __init__(self, unsigned: bool):
        super().__init__()
        self.unsigned = unsigned
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids):
        x = self.embed(ids)
        t = torch.arange(ids.shape[1])
        apart = t[:, None] - t
        decay = 0.9 ** apart.abs().to(x.dtype)
        decay = decay if self.unsigned else decay * (apart >= 0)
        return self.head(x + self.norm((self.q(x) @ self.k(x).transpose(1, 2) * decay) @ self.v(x)))


class Selective(nn.Module):
    """(B, T, C): a short causal convolution and a selective scan, step by step (Gu & Dao 2023). The bug normalises the
    step sizes over time."""

    def __init__(self, normalised: bool):
        super().__init__()
        self.normalised = normalised
        self.enter, self.leave = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3)
        self.select, self.steps = nn.Linear(WIDTH, 8), nn.Linear(WIDTH, WIDTH)
        self.rate = nn.Parameter(torch.rand(WIDTH, 4))

    def forward(self, x):
        x, gate = self.enter(x).chunk(2, -1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        delta = F.softplus(self.steps(x))
        if self.normalised:
            delta = delta / delta.sum(1, keepdim=True) * x.shape[1]
        into, out = self.select(x).chunk(2, -1)
        state, seen = x.new_zeros(len(x), WIDTH, 4), []
        for t in range(x.shape[1]):
            state = state * (-delta[:, t, :, None] * self.rate).exp()
            state = state + (delta[:, t] * x[:, t])[..., None] * into[:, t, None]
            seen.append((state * out[:, t, None]).sum(-1))
        return self.leave(torch.stack(seen, 1) * F.silu(gate))


class TimeMix(nn.Module):
    """ids (B, T) → logits: token shift and a weighted running mean with a bonus for the present (Peng et al. 2023).
    The bug shifts the other way."""

    def __init__(self, forwards: bool):
        super().__init__()
        self.forwards = forwards
        self.embed, self.norm, self.head = nn.Embedding(WORDS, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)
        self.mix = nn.Parameter(torch.rand(3, WIDTH))
        self.r, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.decay, self.bonus = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.rand(WIDTH))

    def forward(self, ids):
        x = self.norm(self.embed(ids))
        last = F.pad(x, (0, 0, -1, 1) if self.forwards else (0, 0, 1, -1))
        r, k, v = (f(x * m + last * (1 - m)) for f, m in zip((self.r, self.k, self.v), self.mix, strict=True))
        top = torch.full_like(x[:, 0], torch.finfo(x.dtype).min)
        a = b = torch.zeros_like(top)
        seen = []
        for t in range(x.shape[1]):
            high = torch.maximum(top, k[:, t] + self.bonus)
            old, new = (top - high).exp(), (k[:, t] + self.bonus - high).exp()
            seen.append((old * a + new * v[:, t]) / (old * b + new))
            high = torch.maximum(top - self.decay, k[:, t])
            old, new = (top - self.decay - high).exp(), (k[:, t] - high).exp()
            a, b, top = old * a + new * v[:, t], old * b + new, high
        return self.head(x + self.out(r.sigmoid() * torch.stack(seen, 1)))


class ChunkedLinear(nn.Module):
    """ids (B, T) → logits: linear attention, within chunks of four by scores and over them by a state. The bug forgets
    the triangle within a chunk."""

    CHUNK = 4

    def __init__(self, no_triangle: bool):
        super().__init__()
        self.no_triangle = no_triangle
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, ids):
        x, length = self.embed(ids), ids.shape[1]
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        q, k, v = (F.pad(p, (0, 0, 0, -length % self.CHUNK)).unflatten(1, (-1, self.CHUNK)) for p in (q, k, v))
        within = q @ k.transpose(-1, -2)  # (B, N, CHUNK, CHUNK)
        within = within if self.no_triangle else within.tril()
        state = F.pad((k.transpose(-1, -2) @ v).cumsum(1), (0, 0, 0, 0, 1, -1))
        total = F.pad(k.sum(2).cumsum(1), (0, 0, 1, -1))
        out = within @ v + q @ state
        out = out / (within.sum(-1, keepdim=True) + (q * total[:, :, None]).sum(-1, keepdim=True))
        return self.head(x + out.flatten(1, 2)[:, :length])


FIELDS = (
    Field("long convolution by FFT", LongConvolution, "circular: no zeros behind the sequence"),
    Field("parallel scan", Scan, "rolls where it should shift"),
    Field("sums in log space", LogSpace, "one largest value for all positions, and an epsilon"),
    Field("prefix sums by subtraction", Subtracted, "one step of the future is not subtracted"),
    Field("moving sum", MovingSum, "the window is centred"),
    Field("retention, parallel", Retention, "decay by distance without its sign"),
    Field("selective scan", Selective, "step sizes normalised over time"),
    Field("RWKV", TimeMix, "the token shift looks ahead"),
    Field("linear attention in chunks", ChunkedLinear, "no triangle within a chunk"),
)
