"""A mask from how it is written: ``Causal() & Window(4, 0)``. Read as a tree, so nothing in it is run."""

from __future__ import annotations

import ast
import operator

from headwise.interp.errors import InputError
from headwise.interp.masks.chunks import Chunks, Windows2d
from headwise.interp.masks.orders import Order
from headwise.interp.masks.patterns import (
    Bidirectional,
    Blocks,
    Causal,
    Global,
    Mask,
    Packed,
    Padding,
    Prefix,
    RandomBlocks,
    Strided,
    Window,
)
from headwise.interp.masks.segments import Columns, Segments

PATTERNS = {
    pattern.__name__: pattern
    for pattern in (
        Causal, Window, Prefix, Bidirectional, Global, Strided, Blocks, RandomBlocks, Packed, Padding, Segments,
        Columns, Chunks, Windows2d, Order,
    )
}  # fmt: skip
JOINED = {ast.BitAnd: operator.and_, ast.BitOr: operator.or_}
LONGEST = 600  # characters
DEEPEST = 32  # masks inside masks
LARGEST = 1_000_000  # a position


def spoken_mask(text: str, longest: int = LONGEST) -> Mask:
    """The mask that an expression of the algebra stands for: what its ``repr`` says, read back.

    >>> spoken_mask("Causal() & ~Window(2, 0) | Global((0,))")
    Causal() & ~Window(2, 0) | Global((0,))

    Raises InputError, one sentence, for everything else, also for more than ``longest`` characters.
    """
    if not text.strip():
        raise InputError("There is no mask here. Write one such as Causal() & Window(4, 0).")
    if len(text) > longest:
        raise InputError(f"A mask is written in at most {longest:,} characters; this one has {len(text):,}.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(
            f"{text.strip()[:60]!r} is no mask. Write one such as Causal() & Window(4, 0), joined by & | ~."
        ) from None
    return _mask(tree, 0)


def _mask(node: ast.expr, depth: int) -> Mask:
    if depth > DEEPEST:
        raise InputError(f"This mask has masks inside masks, {DEEPEST} deep and more. Write a simpler one.")
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in JOINED:
            return JOINED[type(op)](_mask(left, depth + 1), _mask(right, depth + 1))
        case ast.UnaryOp(op=ast.Invert(), operand=inner):
            return ~_mask(inner, depth + 1)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in PATTERNS:
            return _pattern(name, args, keywords)
        case ast.Call(func=ast.Name(id=name)) | ast.Name(id=name):
            hint = f"{name}()" if name in PATTERNS else f"one of {', '.join(PATTERNS)}"
            raise InputError(f"{name!r} is no mask: write {hint}.")
    raise InputError(f"{ast.unparse(node)[:60]!r} is no mask: masks are joined by & (and), | (or) and ~ (not) only.")


def _pattern(name: str, args: list[ast.expr], keywords: list[ast.keyword]) -> Mask:
    try:
        return PATTERNS[name](*map(_number, args), **{word.arg: _number(word.value) for word in keywords if word.arg})
    except TypeError:
        wanted = ", ".join(PATTERNS[name].__dataclass_fields__)
        raise InputError(f"{name}({wanted}) was given something else. Write its numbers in that order.") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error


def _number(node: ast.expr) -> int | float | tuple:
    """A number, or a tuple of them, perhaps of tuples."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and abs(value) <= LARGEST:
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return -_number(node.operand)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(map(_number, parts))
        case ast.Constant(value=None | bool() as value):
            return value
    raise InputError(f"{ast.unparse(node)[:40]!r} is no position. Write whole numbers, or several in brackets: (0, 5).")
