"""What a model promises: one mask for every layer, or one a layer, and how far its outputs may then reach."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp import masks
from headwise.interp.check.errors import CheckError
from headwise.interp.masks import And, Bidirectional, Causal, Mask, Not, Or, Packed, Padding, Prefix, Window

NAMES = (
    "Causal",
    "Window",
    "Prefix",
    "Bidirectional",
    "Global",
    "Strided",
    "Blocks",
    "RandomBlocks",
    "Padding",
    "Packed",
)


@dataclass(frozen=True)
class Expectation:
    """``masks`` holds one mask for all layers, or one for each."""

    masks: tuple[Mask, ...]

    @classmethod
    def of(cls, expect: Mask | str | Sequence[Mask | str]) -> Expectation:
        each = list(expect) if isinstance(expect, list | tuple) else [expect]
        each = [parse(m) if isinstance(m, str) else m for m in each]
        if not each or not all(isinstance(m, Mask) for m in each):
            raise CheckError(f"expect takes a mask such as Causal(), or one a layer; got {expect!r}.")
        return cls(tuple(each))

    def __str__(self) -> str:
        return " · ".join(map(repr, self.masks)) if len(set(map(repr, self.masks))) > 1 else repr(self.masks[0])

    def mask(self, layer: int) -> Mask:
        return self.masks[min(layer, len(self.masks) - 1)]

    def layer(self, layer: int, length: int, b: int = 0, h: int = 0) -> Tensor:
        """What one layer may see → bool (T, T)."""
        return self.mask(layer).dense(length, length, b=b, h=h)

    def reach(self, layers: int | None, length: int, b: int = 0) -> Tensor:
        """What an output may depend on after ``layers`` of them (None: any number) → bool (T, T).

        A residual stream keeps each position, so a layer's step is its mask or the identity; layers compose as a
        boolean product. A window of w keys reaches layers·(w − 1) back.
        """
        return self.between(0, layers if layers is not None else max(length, len(self.masks)), length, b)

    def between(self, first: int, last: int, length: int, b: int = 0) -> Tensor:
        """Reach of layers ``first … last − 1`` → bool (T, T), the identity when there are none."""
        eye = torch.eye(length, dtype=torch.bool)
        reach = eye
        for index in range(first, last):
            step = torch.stack([self.layer(index, length, b, h) for h in range(self._heads)]).any(0)
            further = ((eye | step).float() @ reach.float()) > 0
            if index >= len(self.masks) and torch.equal(further, reach):
                break
            reach = further
        return reach

    @property
    def _heads(self) -> int:
        """Heads to unite in a layer's reach, where masks differ by head."""
        wide = [m.tensor.shape[-3] for m in self.parts(masks.Dense) if m.tensor.ndim >= 3]
        wide += [len(m.masks) for m in self.parts(masks.PerHead)]
        return max([1, *wide] + ([16] if self.has(masks.RandomBlocks) else []))

    def parts(self, kind: type) -> list[Mask]:
        return [leaf for mask in self.masks for leaf in _leaves(mask) if isinstance(leaf, kind)]

    def has(self, kind: type) -> bool:
        return bool(self.parts(kind))

    @property
    def free(self) -> bool:
        """Everything may see everything: an encoder."""
        return all(isinstance(leaf, Bidirectional | Padding) for mask in self.masks for leaf in _leaves(mask))

    @property
    def plain_causal(self) -> bool:
        return all(m == Causal() for m in self.masks)

    @property
    def size(self) -> int | None:
        return next((m.size[0] for m in self.masks if m.size), None)

    @property
    def batch(self) -> int | None:
        """Samples that a mask with one value a sample fixes."""
        for leaf in (leaf for mask in self.masks for leaf in _leaves(mask)):
            if isinstance(leaf, Prefix) and isinstance(leaf.n, tuple) and len(leaf.n) > 1:
                return len(leaf.n)
            if isinstance(leaf, Packed) and isinstance(leaf.segment_ids[0], tuple):
                return len(leaf.segment_ids)
            if isinstance(leaf, Padding) and len(leaf.lengths) > 1:
                return len(leaf.lengths)
            if isinstance(leaf, masks.Dense) and leaf.tensor.ndim == 4 and leaf.tensor.shape[0] > 1:
                return leaf.tensor.shape[0]
        return None

    def is_causal(self, length: int = 8) -> bool:
        length = self.size or length
        return all(not bool(self.layer(i, length).triu(1).any()) for i in range(len(self.masks)))


def parse(text: str) -> Mask:
    """``causal``, ``bidirectional``, ``prefix:4``, ``window:8`` (8 keys, itself included, as Hugging Face's
    sliding_window), ``window:2,3`` (left, right), ``packed:0,0,1,1``, or an expression such as
    ``Causal() & Window(7, 0)``.

    >>> parse("window:8")
    Window(7, 0)
    >>> parse("Causal() & (Strided(4) | Window(3, 0))")
    Causal() & (Strided(4) | Window(3, 0))
    """
    word, _, rest = text.strip().partition(":")
    try:
        numbers = tuple(int(n) for n in rest.split(",")) if rest else ()
        match word.strip().lower(), numbers:
            case "causal", ():
                return Causal()
            case (("bidirectional" | "full" | "encoder"), ()):
                return Bidirectional()
            case "window", (keys,):
                return Window(keys - 1, 0)
            case "window", (left, right):
                return Window(left, right)
            case "prefix", (n,):
                return Prefix(n)
            case "prefix", several if several:
                return Prefix(several)
            case "packed", several if several:
                return Causal() & Packed(several)
        return _built(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, KeyError) as error:
        raise CheckError(
            f"--expect {text!r} is no mask: use causal, bidirectional, "
            f"window:8, prefix:4, packed:0,0,1 or an expression "
            "like 'Causal() & Window(7, 0)'."
        ) from error


def _built(node: ast.AST):
    """An expression of mask names, numbers and & | ~, without eval."""
    match node:
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return _built(left) & _built(right)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _built(left) | _built(right)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return ~_built(operand)
        case ast.Call(func=ast.Name(id=name)) if name in NAMES:
            arguments = [ast.literal_eval(a) for a in node.args]
            return getattr(masks, name)(*arguments, **{k.arg: ast.literal_eval(k.value) for k in node.keywords})
    raise ValueError(ast.dump(node))


def _leaves(mask: Mask) -> list[Mask]:
    if isinstance(mask, And | Or):
        return _leaves(mask.left) + _leaves(mask.right)
    return _leaves(mask.mask) if isinstance(mask, Not) else [mask]
