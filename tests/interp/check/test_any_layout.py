"""Whatever the order of its axes, its strides, its streams and its batch: the leak is found, and the right one is not
flagged."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from headwise import check

NAMES, WIDTH, WORDS = ("x", "y", "z"), 8, 11
SIZES = {"C": 5, "D": 2, "K": 3, "R": 2, "V": 4}
LEAKS = ("unmasked", "one ahead", "mean over time")


@dataclass(frozen=True)
class Kind:
    """Streams of ids or floats in some order of axes, ``stride`` positions to an output."""

    streams: tuple[tuple[str, ...], ...]  # the axes of each
    floats: tuple[bool, ...]
    output: tuple[str, ...]
    stride: int
    batch: int
    length: int  # T, or H · W with H = 3
    leak: str
    leaking: int  # the stream that leaks

    @property
    def sizes(self) -> dict[str, int]:
        return {**SIZES, "B": self.batch, "T": self.length, "H": 3, "W": self.length // 3}

    @property
    def places(self) -> list[str]:
        """The axes of positions, in raster order."""
        return [axis for axis in self.streams[0] if axis in "THW"]

    @property
    def layout(self) -> str:
        after = [f"T/{self.stride}" if axis == "T" and self.stride > 1 else axis for axis in self.output]
        inputs = ", ".join(f"{n}: ({', '.join(axes)})" for n, axes in zip(NAMES, self.streams, strict=False))
        return f"{inputs} -> ({', '.join(after)})"

    def inputs(self) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(3)
        shapes = [[self.sizes[axis] for axis in axes] for axes in self.streams]
        drawn = [
            torch.randn(shape, generator=g) if floats else torch.randint(WORDS, shape, generator=g)
            for shape, floats in zip(shapes, self.floats, strict=True)
        ]
        return dict(zip(NAMES, drawn, strict=False))


class Around(nn.Module):
    """One causal attention over what its streams say, or one that leaks."""

    def __init__(self, kind: Kind, leaks: bool):
        super().__init__()
        self.kind, self.leak = kind, kind.leak if leaks else ""
        widths = [prod(kind.sizes[a] for a in axes if a not in "BTHW") for axes in kind.streams]
        self.enter = nn.ModuleList(
            nn.Linear(n, WIDTH) if floats else nn.Embedding(WORDS, WIDTH)
            for n, floats in zip(widths, kind.floats, strict=True)
        )
        self.fold, self.qkv = nn.Linear(WIDTH * kind.stride, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.leave = nn.Linear(
            WIDTH, prod(kind.sizes[a] for a in kind.output if a not in ("B", "T", "H", "W", "(B T)"))
        )

    def forward(self, x, y=None, z=None):
        parts = [self.entered(i, t) for i, t in enumerate((x, y, z)[: len(self.kind.streams)])]
        x = sum(parts)
        if self.kind.stride > 1:
            x = x.unfold(1, self.kind.stride, self.kind.stride).transpose(2, 3)
        x = self.fold(x.flatten(2))
        q, k, v = self.qkv(x).chunk(3, -1)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        if len(self.kind.streams) == 1 and self.leak in ("unmasked", "one ahead"):
            mask = torch.ones_like(mask).tril(1 if self.leak == "one ahead" else x.shape[1])
        x = x + F.scaled_dot_product_attention(q, k, v, mask)
        if self.leak and (len(self.kind.streams) > 1 or self.leak == "mean over time"):
            x = x + parts[self.kind.leaking].mean(1, keepdim=True)
        return self.left(self.leave(x), len(parts[0]))

    def entered(self, i: int, t: Tensor) -> Tensor:
        """A stream → (B, T, WIDTH)"""
        axes = self.kind.streams[i]
        places = self.kind.places
        order = ["B", *places, *(a for a in axes if a not in ("B", *places))]
        t = t.permute([axes.index(a) for a in order])
        t = t.flatten(1, len(places))
        if self.kind.floats[i]:
            return self.enter[i](t.flatten(2) if t.ndim > 2 else t[..., None])
        t = self.enter[i](t)
        return t.flatten(2, -2).mean(2) if t.ndim > 3 else t

    def left(self, x: Tensor, batch: int) -> Tensor:
        """(B, T, V) → the output's own order."""
        axes = self.kind.output
        if axes[0] == "(B T)":
            return x.flatten(0, 1)
        places = self.kind.places
        x = x.unflatten(1, [self.kind.sizes[a] for a in places]) if len(places) > 1 else x
        rest = [a for a in axes if a not in ("B", *places)]
        x = x.unflatten(-1, [self.kind.sizes[a] for a in rest]) if rest else x[..., 0]
        order = ["B", *places, *rest]
        return x.permute([order.index(a) for a in axes])


@st.composite
def kinds(draw) -> Kind:
    grid = draw(st.booleans()) and draw(st.booleans())
    places = ("H", "W") if grid else ("T",)
    n = 1 if grid else draw(st.integers(1, 3))
    floats = tuple(True if grid else draw(st.booleans()) for _ in range(n))
    features = [draw(st.sampled_from([(), ("C",), ("C", "D")] if f else [(), ("K",), ("R", "K")])) for f in floats]
    if grid:
        features = [("C",)]
    streams = tuple(tuple(draw(st.permutations(("B", *places, *f)))) for f in features)
    stride = 1 if grid else draw(st.sampled_from((1, 1, 2, 3)))
    leave = draw(st.sampled_from((("V",), ("V", "R"), ())))
    output = tuple(draw(st.permutations(("B", *places, *(("V",) if grid else leave)))))
    if stride == 1 and not grid and draw(st.integers(0, 5)) == 0:
        output = ("(B T)", "V")
    length = draw(st.sampled_from((9, 12, 15) if grid else (7, 9, 10, 13)))
    return Kind(
        streams,
        floats,
        output,
        stride,
        draw(st.integers(1, 4)),
        length,
        leak=draw(st.sampled_from(LEAKS)),
        leaking=draw(st.integers(0, n - 1)),
    )


def checked(kind: Kind, leaks: bool):
    torch.manual_seed(0)
    return check(
        Around(kind, leaks).eval(), "causal", inputs=kind.inputs(), layout=kind.layout, modes="base", dtypes=()
    )


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(kinds())
def test_a_leak_is_found_and_the_right_one_is_not_flagged(kind):
    wrong, right = checked(kind, leaks=True), checked(kind, leaks=False)
    assert wrong.findings and not wrong.errors, f"{kind.layout}\n{wrong}"
    assert right.ok, f"{kind.layout}\n{right}"
