"""Grids, rows of rows, frames: positions along more than one axis."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.interp.check.fields.field import WIDTH, WORDS, Field, causal, drawn


class ShiftedWindows(nn.Module):
    """(B, H, W, C) → (B, H, W, C): attention in windows of 4 × 4, the grid rolled by two (Liu et al. 2021). Without the
    bug, what was wrapped around is masked apart."""

    SIDE, WINDOW, SHIFT = 8, 4, 2

    def __init__(self, wraps: bool):
        super().__init__()
        self.wraps = wraps
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def windows(self, x):
        """(B, H, W, C) → (B, n, WINDOW², C)"""
        x = x.unflatten(2, (-1, self.WINDOW)).unflatten(1, (-1, self.WINDOW)).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)

    def back(self, w, side):
        w = w.unflatten(1, (side // self.WINDOW, -1)).unflatten(3, (self.WINDOW, -1)).transpose(2, 3)
        return w.flatten(3, 4).flatten(1, 2)

    def regions(self, side):
        line = torch.zeros(side, dtype=torch.long)
        line[side - self.WINDOW : side - self.SHIFT], line[side - self.SHIFT :] = 1, 2
        return 3 * line[:, None] + line

    def forward(self, x):
        side = x.shape[1]
        y = self.windows(self.norm(x).roll((-self.SHIFT, -self.SHIFT), (1, 2)))
        q, k, v = (p.unflatten(-1, (4, -1)).transpose(2, 3) for p in self.qkv(y).chunk(3, -1))  # (B, n, H, W², D)
        region = self.windows(self.regions(side)[None, :, :, None])[0, :, :, 0]
        mask = (region[:, :, None] == region[:, None, :])[:, None]
        y = F.scaled_dot_product_attention(q, k, v, None if self.wraps else mask)
        y = self.back(self.out(y.transpose(2, 3).flatten(3)), side).roll((self.SHIFT, self.SHIFT), (1, 2))
        x = x + y
        return x + self.mlp(x)

    @classmethod
    def promise(cls) -> str:
        """Windows of the grid that was not rolled: they begin at row and column 2, and those at the border are cut."""
        line = [(i + cls.SHIFT) // cls.WINDOW for i in range(cls.SIDE)]
        return f"Blocks({tuple(3 * r + c for r in line for c in line)})"


class RowsAndColumns(nn.Module):
    """An alignment of ids (B, R, T) → logits (B, R, T, V): attention along each row, causal, then over the rows of each
    column (Rao et al. 2021). The bug folds columns by a reshape, without turning the axes."""

    def __init__(self, unturned: bool):
        super().__init__()
        self.unturned = unturned
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.along, self.across = (nn.MultiheadAttention(WIDTH, 4, batch_first=True) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))

    def forward(self, ids):
        b, r, t = ids.shape
        x = self.embed(ids)
        y = self.norms[0](x).flatten(0, 1)  # (B · R, T, C)
        x = x + self.along(y, y, y, attn_mask=~causal(t), need_weights=False)[0].view_as(x)
        y = self.norms[1](x)
        y = y.reshape(b * t, r, -1) if self.unturned else y.transpose(1, 2).flatten(0, 1)  # (B · T, R, C)
        y = self.across(y, y, y, need_weights=False)[0]
        return self.head(x + (y.reshape(b, r, t, -1) if self.unturned else y.unflatten(0, (b, t)).transpose(1, 2)))


class MaskedConv(nn.Conv2d):
    """Rows above, and its own row up to the pixel (van den Oord et al. 2016), or one pixel more."""

    def __init__(self, into, out, side, one_more: bool):
        super().__init__(into, out, side, padding=side // 2)
        centre = side // 2
        mask = torch.ones(side, side)
        mask[centre, centre + 1 + one_more :] = 0
        mask[centre + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(nn.Module):
    """Pixels (B, C, H, W) → the next ones (B, V, H, W), in raster order. The bug's second mask is a pixel too wide."""

    def __init__(self, one_more: bool):
        super().__init__()
        self.first = MaskedConv(3, WIDTH, 5, False)
        self.second = MaskedConv(WIDTH, WIDTH, 3, one_more)
        self.leave = nn.Conv2d(WIDTH, 8, 1)

    def forward(self, x):
        return self.leave(F.relu(self.second(F.relu(self.first(x)))))


class CausalVideo(nn.Module):
    """Video (B, C, T, H, W) → (B, 8, T, H, W): convolutions padded before in time; norms over the channels of a frame,
    or, the bug, over all frames."""

    def __init__(self, all_frames: bool):
        super().__init__()
        self.all_frames = all_frames
        self.first, self.second = nn.Conv3d(3, 8, 3, padding=(0, 1, 1)), nn.Conv3d(8, 8, 3, padding=(0, 1, 1))
        self.norm = nn.GroupNorm(2, 8)

    def normed(self, x):
        if self.all_frames:
            return self.norm(x)
        b, t = x.shape[0], x.shape[2]
        return self.norm(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, t)).transpose(1, 2)

    def forward(self, video):
        x = self.first(F.pad(video, (0, 0, 0, 0, 2, 0)))
        return self.second(F.pad(F.silu(self.normed(x)), (0, 0, 0, 0, 2, 0)))


class DiT(nn.Module):
    """Patches (B, N, C), a condition (B, C) → (B, N, C): shift and scale from the condition (Peebles & Xie 2023), for
    pairs of frames folded into the batch. The bug repeats conditions in the wrong order: samples get each other's."""

    def __init__(self, wrong_order: bool):
        super().__init__()
        self.wrong_order = wrong_order
        self.norm, self.modulate = nn.LayerNorm(WIDTH, elementwise_affine=False), nn.Linear(WIDTH, 3 * WIDTH)
        self.attend = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, x, cond):
        b, n, c = x.shape
        x = x.reshape(2 * b, n // 2, c)  # two frames a sample
        cond = cond.repeat(2, 1) if self.wrong_order else cond.repeat_interleave(2, 0)
        shift, scale, gate = self.modulate(F.silu(cond))[:, None].chunk(3, -1)
        y = self.norm(x) * (1 + scale) + shift
        x = x + gate * self.attend(y, y, y, need_weights=False)[0]
        return (x + self.mlp(x)).reshape(b, n, c)


FIELDS = (
    Field("Swin block with shift", ShiftedWindows, "what wraps around is not masked", expect=ShiftedWindows.promise()),
    Field(
        "alignment, rows and columns",
        RowsAndColumns,
        "columns folded without turning the axes",
        options={"layout": "(B, R, T) -> (B, R, T, V)"},
        where="across",
    ),
    Field(
        "PixelCNN", PixelCNN, "one pixel too many", options={"layout": "(B, C, H, W) -> (B, V, H, W)"}, where="second"
    ),
    Field(
        "causal video",
        CausalVideo,
        "statistics over all frames",
        options={"layout": "(B, C, T, H, W) -> (B, V, T, H, W)"},
        where="norm",
    ),
    Field(
        "DiT block",
        DiT,
        "conditions repeated in the wrong order",
        expect="bidirectional",
        options={"inputs": {"x": drawn(3, 10, WIDTH), "cond": drawn(3, WIDTH)}},
    ),
)
