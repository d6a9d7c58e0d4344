"""Masks as values: who may attend to whom, written as an expression.

A mask is a pure function of (batch, head, query, key); True means *may attend*. Masks are frozen, hashable and
printable, and combine with ``&``, ``|`` and ``~``. A pattern the field knows is an expression: a sliding-window decoder
is ``Causal() & Window(left, 0)``, BigBird is ``Window(...) | Global(...) | RandomBlocks(...)``.

>>> print(Causal() & Window(2, 0))
■⬚⬚⬚⬚⬚⬚⬚
■■⬚⬚⬚⬚⬚⬚
■■■⬚⬚⬚⬚⬚
⬚■■■⬚⬚⬚⬚
⬚⬚■■■⬚⬚⬚
⬚⬚⬚■■■⬚⬚
⬚⬚⬚⬚■■■⬚
⬚⬚⬚⬚⬚■■■

Rows are queries, columns are keys. Every drawing in this file is run as a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

ALLOWED, HIDDEN = "■", "⬚"
DRAWN = 8  # rows and columns of a drawing when the mask itself has no size
WIDEST = 64  # a drawing wider than this is cropped


class Mask:
    """A set of (batch, head, query, key) edges. Subclasses define ``allowed`` on broadcastable integer tensors."""

    def allowed(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define allowed(b, h, q, k)")

    @property
    def size(self) -> tuple[int, int] | None:
        """(queries, keys) when the mask itself fixes them, else None."""
        return None

    def __call__(self, b, h, q, k):
        """May query ``q`` attend to key ``k`` in head ``h`` of sample ``b``? Ints give a bool, tensors broadcast."""
        scalar = all(isinstance(x, int) for x in (b, h, q, k))
        device = next((x.device for x in (b, h, q, k) if isinstance(x, Tensor)), None)
        b, h, q, k = (torch.as_tensor(x, device=device) for x in (b, h, q, k))
        answer = torch.broadcast_to(self.allowed(b, h, q, k), torch.broadcast_shapes(*(x.shape for x in (b, h, q, k))))
        return bool(answer) if scalar else answer

    def rows(self, start: int, stop: int, keys: int | None = None, *, b: int = 0, h: int = 0, device=None) -> Tensor:
        """The band of queries ``start … stop − 1`` → bool (stop − start, keys), without building the whole square.

        ``keys`` defaults to the mask's own width, or to ``stop`` for masks without one.
        """
        if keys is None:
            keys = self.size[1] if self.size else stop
        query = torch.arange(start, stop, device=device)[:, None]
        return self(b, h, query, torch.arange(keys, device=device)[None, :])

    def dense(self, queries: int | None = None, keys: int | None = None, *, b: int = 0, h: int = 0) -> Tensor:
        """The whole square of one head → bool (queries, keys)."""
        if queries is None:
            queries = self.size[0] if self.size else DRAWN
        return self.rows(0, queries, keys if keys is not None else (self.size or (0, queries))[1], b=b, h=h)

    def __and__(self, other: Mask) -> Mask:
        return And(self, other)

    def __or__(self, other: Mask) -> Mask:
        return Or(self, other)

    def __invert__(self) -> Mask:
        return Not(self)

    def __str__(self) -> str:
        queries, keys = self.size or (DRAWN, DRAWN)
        square = self.dense(min(queries, WIDEST), keys)[:, :WIDEST]
        return "\n".join("".join(ALLOWED if cell else HIDDEN for cell in row) for row in square.tolist())


@dataclass(frozen=True)
class And(Mask):
    left: Mask
    right: Mask

    def allowed(self, b, h, q, k):
        return self.left.allowed(b, h, q, k) & self.right.allowed(b, h, q, k)

    @property
    def size(self):
        return self.left.size or self.right.size

    def __repr__(self) -> str:
        return " & ".join(f"({m!r})" if isinstance(m, Or) else repr(m) for m in (self.left, self.right))


@dataclass(frozen=True)
class Or(Mask):
    left: Mask
    right: Mask

    def allowed(self, b, h, q, k):
        return self.left.allowed(b, h, q, k) | self.right.allowed(b, h, q, k)

    @property
    def size(self):
        return self.left.size or self.right.size

    def __repr__(self) -> str:
        return f"{self.left!r} | {self.right!r}"


@dataclass(frozen=True)
class Not(Mask):
    mask: Mask

    def allowed(self, b, h, q, k):
        return ~self.mask.allowed(b, h, q, k)

    @property
    def size(self):
        return self.mask.size

    def __repr__(self) -> str:
        return f"~({self.mask!r})" if isinstance(self.mask, And | Or) else f"~{self.mask!r}"


@dataclass(frozen=True)
class Causal(Mask):
    """A query sees itself and the past (Vaswani et al. 2017, §3.2.3). Aligned top-left as in torch's ``is_causal``;
    ``offset`` moves the diagonal right, so ``Causal(keys − queries)`` is the bottom-right alignment of a KV cache.

    >>> print(Causal())
    ■⬚⬚⬚⬚⬚⬚⬚
    ■■⬚⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚⬚
    ■■■■⬚⬚⬚⬚
    ■■■■■⬚⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■■⬚
    ■■■■■■■■
    """

    offset: int = 0

    def allowed(self, b, h, q, k):
        return k <= q + self.offset

    def __repr__(self) -> str:
        return f"Causal({self.offset or ''})"


@dataclass(frozen=True)
class Window(Mask):
    """Query q sees keys q − left … q + right, both ends included (Beltagy et al. 2020, §3.1).

    Hugging Face's ``sliding_window=W`` counts the query itself: it is ``Window(W − 1, 0)``. flash-attention's
    ``window_size=(W, 0)`` sees W + 1 keys: it is ``Window(W, 0)``.

    >>> print(Window(1, 2))
    ■■■⬚⬚⬚⬚⬚
    ■■■■⬚⬚⬚⬚
    ⬚■■■■⬚⬚⬚
    ⬚⬚■■■■⬚⬚
    ⬚⬚⬚■■■■⬚
    ⬚⬚⬚⬚■■■■
    ⬚⬚⬚⬚⬚■■■
    ⬚⬚⬚⬚⬚⬚■■
    """

    left: int
    right: int

    def allowed(self, b, h, q, k):
        return (k >= q - self.left) & (k <= q + self.right)

    def __repr__(self) -> str:
        return f"Window({self.left}, {self.right})"


@dataclass(frozen=True)
class Prefix(Mask):
    """The first n tokens see each other, the rest is causal (prefix-LM: Raffel et al. 2020, §3.2.1).

    ``n`` is one length, or one a sample. Under left padding give ``start``, each sample's first real position: the
    prefix is then the first n real tokens; hide the padding itself with ``& Padding(...)``.

    >>> print(Prefix(3))
    ■■■⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚⬚
    ■■■■⬚⬚⬚⬚
    ■■■■■⬚⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■■⬚
    ■■■■■■■■
    """

    n: int | tuple[int, ...]
    start: int | tuple[int, ...] = 0

    def allowed(self, b, h, q, k):
        return (k <= q) | (k < _per_sample(self.n, b) + _per_sample(self.start, b))

    def __repr__(self) -> str:
        return f"Prefix({self.n!r})" if self.start == 0 else f"Prefix({self.n!r}, start={self.start!r})"


@dataclass(frozen=True)
class Bidirectional(Mask):
    """Everything sees everything: an encoder, or cross-attention (Devlin et al. 2019, §3).

    >>> print(Bidirectional() & Padding((6,)))
    ■■■■■■⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■⬚⬚
    """

    def allowed(self, b, h, q, k):
        return torch.ones((), dtype=torch.bool, device=q.device)


@dataclass(frozen=True)
class Global(Mask):
    """The tokens in ``ids`` see everything and are seen by everything (Beltagy et al. 2020, §3.1).

    >>> print(Global((0, 4)))
    ■■■■■■■■
    ■⬚⬚⬚■⬚⬚⬚
    ■⬚⬚⬚■⬚⬚⬚
    ■⬚⬚⬚■⬚⬚⬚
    ■■■■■■■■
    ■⬚⬚⬚■⬚⬚⬚
    ■⬚⬚⬚■⬚⬚⬚
    ■⬚⬚⬚■⬚⬚⬚
    """

    ids: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "ids", _ints(self.ids, "Global ids"))

    def allowed(self, b, h, q, k):
        ids = torch.tensor(self.ids, device=q.device)
        return torch.isin(q, ids) | torch.isin(k, ids)

    def __repr__(self) -> str:
        return f"Global({self.ids})"


@dataclass(frozen=True)
class Strided(Mask):
    """Every s-th token, counted from the query (Child et al. 2019, §4.2). Usually ``Causal() & (Strided(s) |
    Window(s, 0))``.

    >>> print(Strided(3))
    ■⬚⬚■⬚⬚■⬚
    ⬚■⬚⬚■⬚⬚■
    ⬚⬚■⬚⬚■⬚⬚
    ■⬚⬚■⬚⬚■⬚
    ⬚■⬚⬚■⬚⬚■
    ⬚⬚■⬚⬚■⬚⬚
    ■⬚⬚■⬚⬚■⬚
    ⬚■⬚⬚■⬚⬚■
    """

    s: int

    def __post_init__(self):
        if self.s < 1:
            raise ValueError(f"Strided(s) expects s ≥ 1, got {self.s}. Use Bidirectional() for no restriction.")

    def allowed(self, b, h, q, k):
        return (q - k) % self.s == 0

    def __repr__(self) -> str:
        return f"Strided({self.s})"


@dataclass(frozen=True)
class Blocks(Mask):
    """Tokens with the same block id see each other (block-diagonal local attention).

    >>> print(Blocks((0, 0, 0, 1, 1, 2, 2, 2)))
    ■■■⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚⬚
    ⬚⬚⬚■■⬚⬚⬚
    ⬚⬚⬚■■⬚⬚⬚
    ⬚⬚⬚⬚⬚■■■
    ⬚⬚⬚⬚⬚■■■
    ⬚⬚⬚⬚⬚■■■
    """

    ids: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "ids", _ints(self.ids, "Blocks ids"))

    @property
    def size(self):
        return len(self.ids), len(self.ids)

    def allowed(self, b, h, q, k):
        ids = torch.tensor(self.ids, device=q.device)
        return _pick(ids, q, "Blocks") == _pick(ids, k, "Blocks")

    def __repr__(self) -> str:
        return f"Blocks({self.ids})"


@dataclass(frozen=True)
class RandomBlocks(Mask):
    """Random blocks of keys for each block of queries, as in BigBird (Zaheer et al. 2020, §2).

    Each pair of blocks (``block`` tokens wide) is kept with probability ``density`` by a hash of (seed, head, query
    block, key block), so any band is known without the rest. BigBird keeps a fixed number a row, as ``Drawn`` does;
    here it is so on average.

    >>> print(RandomBlocks(0, block=2))
    ⬚⬚⬚⬚⬚⬚■■
    ⬚⬚⬚⬚⬚⬚■■
    ■■■■⬚⬚⬚⬚
    ■■■■⬚⬚⬚⬚
    ■■⬚⬚⬚⬚⬚⬚
    ■■⬚⬚⬚⬚⬚⬚
    ⬚⬚⬚⬚⬚⬚■■
    ⬚⬚⬚⬚⬚⬚■■
    """

    seed: int
    block: int = 64
    density: float = 0.25

    def allowed(self, b, h, q, k):
        return hashed(self.seed, h, q // self.block, k // self.block) % 2**20 < self.density * 2**20

    def __repr__(self) -> str:
        return f"RandomBlocks({self.seed}, block={self.block}, density={self.density})"


@dataclass(frozen=True)
class Padding(Mask):
    """Real keys only: sample b has ``lengths[b]`` real tokens from ``starts[b]`` on (0: padded on the right).

    Rows of padding queries are left as they are: what they see is nobody's business.

    >>> print(Padding((5,)))
    ■■■■■⬚⬚⬚
    ■■■■■⬚⬚⬚
    ■■■■■⬚⬚⬚
    ■■■■■⬚⬚⬚
    ■■■■■⬚⬚⬚
    ■■■■■⬚⬚⬚
    ■■■■■⬚⬚⬚
    ■■■■■⬚⬚⬚
    """

    lengths: tuple[int, ...]
    starts: tuple[int, ...] | None = None

    def __post_init__(self):
        object.__setattr__(self, "lengths", _ints(self.lengths, "Padding lengths"))
        if self.starts is not None:
            object.__setattr__(self, "starts", _ints(self.starts, "Padding starts"))
            if len(self.starts) != len(self.lengths):
                raise ValueError(
                    f"Padding expects one start a length, got {len(self.starts)} starts for "
                    f"{len(self.lengths)} lengths."
                )

    def allowed(self, b, h, q, k):
        start = _per_sample(self.starts or 0, b)
        return (k >= start) & (k < start + _per_sample(self.lengths, b))

    def __repr__(self) -> str:
        return f"Padding({self.lengths})" if self.starts is None else f"Padding({self.lengths}, starts={self.starts})"


@dataclass(frozen=True)
class Packed(Mask):
    """Several documents in one row: a token sees its own document only (Krell et al. 2021, §3).

    ``segment_ids`` is (T,) for every sample, or (B, T).

    >>> print(Causal() & Packed((0, 0, 0, 1, 1, 1, 1, 2)))
    ■⬚⬚⬚⬚⬚⬚⬚
    ■■⬚⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚⬚
    ⬚⬚⬚■⬚⬚⬚⬚
    ⬚⬚⬚■■⬚⬚⬚
    ⬚⬚⬚■■■⬚⬚
    ⬚⬚⬚■■■■⬚
    ⬚⬚⬚⬚⬚⬚⬚■
    """

    segment_ids: tuple

    def __post_init__(self):
        ids = torch.as_tensor(self.segment_ids)
        if ids.ndim not in (1, 2):
            raise ValueError(f"Packed expects segment_ids (T,) or (B, T), got shape {tuple(ids.shape)}.")
        rows = ids.tolist()
        object.__setattr__(self, "segment_ids", tuple(map(tuple, rows)) if ids.ndim == 2 else tuple(rows))

    @property
    def size(self):
        width = len(self.segment_ids[0]) if isinstance(self.segment_ids[0], tuple) else len(self.segment_ids)
        return width, width

    def allowed(self, b, h, q, k):
        ids = torch.tensor(self.segment_ids, device=q.device)
        if ids.ndim == 1:
            return _pick(ids, q, "Packed") == _pick(ids, k, "Packed")
        b = b.expand(torch.broadcast_shapes(b.shape, q.shape))
        return ids[b, q] == ids[b, k]

    def __repr__(self) -> str:
        return f"Packed({self.segment_ids})"


@dataclass(frozen=True, eq=False)
class Dense(Mask):
    """A mask given as a tensor, True = may attend: (Q, K), (H | 1, Q, K) or (B | 1, H | 1, Q, K), as SDPA broadcasts.

    >>> print(Dense(torch.eye(3).bool()))
    ■⬚⬚
    ⬚■⬚
    ⬚⬚■
    """

    tensor: Tensor

    def __post_init__(self):
        t = torch.as_tensor(self.tensor)
        if t.dtype != torch.bool:
            raise TypeError(
                f"Dense expects a bool tensor (True = may attend), got {t.dtype}. "
                "For an additive mask pass `mask > torch.finfo(mask.dtype).min / 2`."
            )
        if not 2 <= t.ndim <= 4:
            raise ValueError(f"Dense expects (Q, K), (H, Q, K) or (B, H, Q, K), got shape {tuple(t.shape)}.")
        object.__setattr__(self, "tensor", t)

    @property
    def size(self):
        return tuple(self.tensor.shape[-2:])

    def allowed(self, b, h, q, k):
        t = self.tensor.to(q.device)
        t = t.reshape((1,) * (4 - t.ndim) + tuple(t.shape))  # (B|1, H|1, Q|1, K|1)
        index = [x.clamp(max=0) if n == 1 else x for x, n in zip((b, h, q, k), t.shape, strict=True)]
        return t[tuple(index)]

    @cached_property
    def _digest(self) -> int:
        return hash((tuple(self.tensor.shape), self.tensor.cpu().numpy().tobytes()))

    def __eq__(self, other):
        return isinstance(other, Dense) and torch.equal(self.tensor.cpu(), other.tensor.cpu())

    def __hash__(self):
        return self._digest

    def __repr__(self) -> str:
        return f"Dense({' × '.join(map(str, self.tensor.shape))})"


def _ints(values: Sequence[int] | Tensor | int, what: str) -> tuple[int, ...]:
    values = torch.as_tensor(values).flatten().tolist()
    if not all(isinstance(v, int) and v >= 0 for v in values):
        raise ValueError(f"{what} expects non-negative integers, got {values}.")
    return tuple(values)


def _per_sample(value: int | tuple[int, ...], b: Tensor) -> Tensor:
    if isinstance(value, int):
        return torch.as_tensor(value, device=b.device)
    values = torch.tensor(value, device=b.device)
    return values[b.clamp(max=0)] if len(value) == 1 else _pick(values, b, "the mask's samples")


def _pick(values: Tensor, index: Tensor, what: str) -> Tensor:
    if index.numel() and int(index.max()) >= len(values):
        raise IndexError(
            f"{what}: {len(values)} given, position {int(index.max())} asked. Give an id for every position."
        )
    return values[index]


def hashed(seed: int, *parts: Tensor | int) -> Tensor:
    """A number below 2³² that is as good as drawn at random, one for each choice of the parts."""
    mix = torch.as_tensor(seed)
    for part in parts:
        mix = _scramble(mix * 0x9E3779B1 + part + 1)
    return mix


def _scramble(x: Tensor) -> Tensor:
    """A 32-bit integer hash (xorshift-multiply, Wellons 2018 'lowbias32') in 64-bit arithmetic."""
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)
