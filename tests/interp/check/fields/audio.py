"""Speech, music and waveforms: convolutions, strides, spectra and codes."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.interp.check.fields.field import WIDTH, WORDS, Field, causal


class ConformerBlock(nn.Module):
    """(B, T, C): half a feed-forward, attention, a depthwise convolution, half a feed-forward (Gulati et al. 2020)."""

    def __init__(self, same: bool):
        super().__init__()
        self.same, kernel = same, 5
        self.left = kernel - 1
        self.first, self.second = (
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.SiLU(), nn.Linear(32, WIDTH)) for _ in range(2)
        )
        self.norm, self.attend = nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.into = nn.Conv1d(WIDTH, 2 * WIDTH, 1)
        self.depthwise = nn.Conv1d(WIDTH, WIDTH, kernel, groups=WIDTH, padding=kernel // 2 if same else 0)
        self.out, self.last = nn.Conv1d(WIDTH, WIDTH, 1), nn.LayerNorm(WIDTH)

    def forward(self, x):
        x = x + self.first(x) / 2
        y = self.norm(x)
        x = x + self.attend(y, y, y, attn_mask=~causal(x.shape[1]), need_weights=False)[0]
        y = F.glu(self.into(x.transpose(1, 2)), dim=1)
        y = self.depthwise(y if self.same else F.pad(y, (self.left, 0)))
        x = x + self.out(F.silu(y)).transpose(1, 2)
        return self.last(x + self.second(x) / 2)


class WaveNet(nn.Module):
    """Waveform (B, 1, T) → mu-law classes (B, 16, T), gated dilated convolutions with skips (van den Oord et al. 2016).

    The bug pads a dilated kernel as if it were not dilated, and the rest on the right to keep the length."""

    def __init__(self, forgets_dilation: bool):
        super().__init__()
        self.forgets = forgets_dilation
        self.enter = nn.Conv1d(1, WIDTH, 1)
        self.gates = nn.ModuleList(nn.Conv1d(WIDTH, 2 * WIDTH, 2, dilation=2**i) for i in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(4))
        self.leave = nn.Sequential(nn.ReLU(), nn.Conv1d(WIDTH, 16, 1))

    def forward(self, wave):
        x, total = self.enter(wave), 0
        for i, (gate, skip) in enumerate(zip(self.gates, self.skips, strict=True)):
            need = 2**i
            left = 1 if self.forgets else need
            y = F.glu(gate(F.pad(x, (left, need - left))), dim=1)
            total = total + skip(y)
            x = x + y
        return self.leave(total)


class CodecEncoder(nn.Module):
    """Waveform (B, 1, T) → latents (B, C, T / 8): strided convolutions, padded on the left, or on both sides."""

    def __init__(self, both_sides: bool):
        super().__init__()
        self.both = both_sides
        self.enter = nn.Conv1d(1, 8, 7)
        self.down = nn.ModuleList([nn.Conv1d(8, 12, 4, 2), nn.Conv1d(12, WIDTH, 8, 4)])

    def pad(self, x, conv):
        need = conv.kernel_size[0] - conv.stride[0]
        return F.pad(x, (need - need // 2, need // 2) if self.both else (need, 0))

    def forward(self, wave):
        x = self.enter(self.pad(wave, self.enter))
        for conv in self.down:
            x = conv(self.pad(F.elu(x), conv))
        return x


class Spectral(nn.Module):
    """Waveform (B, T) → a denoising mask (B, frames, F): frame j ends with sample 4j + 3, or is centred on 4j."""

    def __init__(self, centred: bool):
        super().__init__()
        self.centred = centred
        self.rnn, self.head = nn.GRU(5, WIDTH, batch_first=True), nn.Linear(WIDTH, 5)

    def forward(self, wave):
        if not self.centred:
            wave = F.pad(wave, (4, 0))
        window = torch.ones(8, dtype=wave.dtype)
        spectrum = torch.stft(wave, 8, 4, window=window, center=self.centred, pad_mode="constant", return_complex=True)
        return self.head(self.rnn(spectrum.abs().log1p().transpose(1, 2))[0]).sigmoid()


class CumulativeNorm(nn.Module):
    """(B, C, T): mean and variance of all channels and frames so far, or of all there are (Luo & Mesgarani 2019)."""

    def __init__(self, channels: int, whole: bool):
        super().__init__()
        self.whole = whole
        self.gain, self.bias = nn.Parameter(torch.ones(channels, 1)), nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x):
        if self.whole:
            mean, square = x.mean((1, 2), keepdim=True), (x**2).mean((1, 2), keepdim=True)
        else:
            n = x.shape[1] * torch.arange(1, x.shape[2] + 1)
            mean, square = (v.sum(1, keepdim=True).cumsum(2) / n for v in (x, x**2))
        return (x - mean) / (square - mean**2 + 1e-5).sqrt() * self.gain + self.bias


class ConvTasNet(nn.Module):
    """Features (B, C, T) → masks (B, C, T): dilated depthwise blocks, normalised as they go."""

    def __init__(self, whole: bool):
        super().__init__()
        self.enter = nn.Conv1d(10, WIDTH, 1)
        self.norms = nn.ModuleList(CumulativeNorm(WIDTH, whole and i == 1) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, dilation=2**i, groups=WIDTH) for i in range(3))
        self.points = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(3))
        self.leave = nn.Conv1d(WIDTH, 10, 1)

    def forward(self, x):
        y = self.enter(x)
        for i, (norm, conv, point) in enumerate(zip(self.norms, self.convs, self.points, strict=True)):
            y = y + point(F.relu(conv(F.pad(norm(y), (2 * 2**i, 0)))))
        return self.leave(y).sigmoid() * x


class StreamingSpeech(nn.Module):
    """Waveform (B, T) → features (B, T / 8, C): two strided convolutions, then attention in chunks of four frames and
    those before. The bug counts chunks from one."""

    CHUNK, STRIDE = 4, 8

    def __init__(self, from_one: bool):
        super().__init__()
        self.offset = int(from_one)
        self.first, self.second = nn.Conv1d(1, WIDTH, 4, 2), nn.Conv1d(WIDTH, WIDTH, 8, 4)
        self.norm, self.attend = nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, wave):
        x = F.gelu(self.first(F.pad(wave[:, None], (2, 0))))
        x = F.gelu(self.second(F.pad(x, (4, 0)))).transpose(1, 2)
        chunk = (torch.arange(x.shape[1]) + self.offset) // self.CHUNK
        y = self.norm(x)
        x = x + self.attend(y, y, y, attn_mask=chunk[:, None] < chunk, need_weights=False)[0]
        return x + self.mlp(x)

    @classmethod
    def promise(cls, length: int) -> str:
        chunks = tuple(t // (cls.CHUNK * cls.STRIDE) for t in range(length))
        return f"Causal() | Blocks({chunks})"


class MusicDecoder(nn.Module):
    """Codes (B, T, K) or (B, K, T) → logits of the next (…, V): codebook k is delayed by k steps more (Copet et al.
    2023). The bug shifts by rolling: the last codes come first."""

    K = 4

    def __init__(self, rolls: bool, codes_first: bool):
        super().__init__()
        self.rolls, self.codes_first = rolls, codes_first
        self.tables = nn.ModuleList(nn.Embedding(WORDS, WIDTH) for _ in range(self.K))
        self.layer = nn.TransformerEncoderLayer(WIDTH, 4, 32, 0.0, batch_first=True, norm_first=True)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, WORDS) for _ in range(self.K))

    def delayed(self, x, by):
        return x.roll(by, 1) if self.rolls else F.pad(x, (0, 0, by, 0))[:, : x.shape[1]]

    def forward(self, codes):
        codes = codes.transpose(1, 2) if self.codes_first else codes  # (B, T, K)
        x = sum(self.delayed(table(codes[..., k]), k + 1) for k, table in enumerate(self.tables))
        x = self.layer(x, src_mask=~causal(x.shape[1]))
        return torch.stack([head(x) for head in self.heads], 1 if self.codes_first else 2)


FIELDS = (
    Field("conformer block", ConformerBlock, "the depthwise convolution is padded on both sides", where="depthwise"),
    Field("WaveNet", WaveNet, "the padding forgets the dilation"),
    Field("codec encoder", CodecEncoder, "strided convolutions are padded on both sides"),
    Field("spectral denoiser", Spectral, "frames are centred"),
    Field("Conv-TasNet", ConvTasNet, "global statistics for cumulative ones", where="norms.1"),
    Field(
        "streaming speech encoder",
        StreamingSpeech,
        "chunks counted from one",
        expect=StreamingSpeech.promise(128),
    ),
    Field("music codes (B, T, K)", lambda wrong: MusicDecoder(wrong, False), "delayed by rolling"),
    Field(
        "music codes (B, K, T)",
        lambda wrong: MusicDecoder(wrong, True),
        "delayed by rolling",
        options={"layout": "(B, K, T) -> (B, K, T, V)"},
    ),
)
