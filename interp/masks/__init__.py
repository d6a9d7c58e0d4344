"""Masks as values: who may attend to whom, written as an expression.

Read in this order: ``patterns`` (the algebra), ``segments`` and ``chunks`` (more of it), ``seen`` (the keys that
some queries see), ``recognise`` (a tensor's name in it), ``reach`` (over layers), ``code`` (in the conventions of those
who take a mask), ``read`` (from files and pasted text), ``spoken`` (from an expression).
"""

from headwise.interp.masks.buckets import Buckets, SortedChunks
from headwise.interp.masks.chunks import Chunks, Windows2d
from headwise.interp.masks.orders import Order
from headwise.interp.masks.patterns import (
    ALLOWED,
    HIDDEN,
    And,
    Bidirectional,
    Blocks,
    Causal,
    Dense,
    Global,
    Mask,
    Not,
    Or,
    Packed,
    Padding,
    Prefix,
    RandomBlocks,
    Strided,
    Window,
)
from headwise.interp.masks.recognise import recognise
from headwise.interp.masks.segments import Columns, Drawn, Listed, Marked, PerHead, Segments, Shifted, within

__all__ = [
    "ALLOWED",
    "HIDDEN",
    "And",
    "Bidirectional",
    "Blocks",
    "Buckets",
    "Causal",
    "Chunks",
    "Columns",
    "Dense",
    "Drawn",
    "Global",
    "Listed",
    "Marked",
    "Mask",
    "Not",
    "Or",
    "Order",
    "Packed",
    "Padding",
    "PerHead",
    "Prefix",
    "RandomBlocks",
    "Segments",
    "Shifted",
    "SortedChunks",
    "Strided",
    "Window",
    "Windows2d",
    "recognise",
    "within",
]
