"""Mechanisms of attention, one short file each: the idea, the paper's equation, the code, the mask.

Each is a subclass of ``blocks.Attention`` with the same forward, computes no n × n matrix, and tells its call through
``interp.attention.report``.
"""

from __future__ import annotations

from importlib import import_module

from headwise.models.architectures.blocks import Attention

# name → the file here, and the class in it
MECHANISMS: dict[str, tuple[str, str]] = {
    "full": ("full", "Full"),
    "longformer": ("longformer", "Longformer"),
    "bigbird": ("bigbird", "BigBird"),
    "sparse": ("sparse", "Sparse"),
    "transformer_xl": ("transformer_xl", "TransformerXL"),
    "relative": ("relative", "Relative"),
    "alibi": ("positions", "ALiBi"),
    "t5": ("positions", "T5"),
    "grouped": ("grouped", "Grouped"),
    "performer": ("performer", "Performer"),
    "reformer": ("reformer", "Reformer"),
}


def mechanism(name: str) -> type[Attention]:
    """The class of a mechanism. Raises ValueError naming those there are."""
    if name not in MECHANISMS:
        raise ValueError(f"mechanism expects one of {', '.join(MECHANISMS)}; got {name!r}")
    file, kind = MECHANISMS[name]
    return getattr(import_module(f"{__name__}.{file}"), kind)
