"""How a model is told which positions are padding: the argument's name and polarity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.errors import CheckError
from headwise.interp.check.target.arguments import arguments

KEEP_MASKS = ("attention_mask", "attn_mask_1d")  # 1 = real
HIDE_MASKS = ("src_key_padding_mask", "key_padding_mask", "tgt_key_padding_mask")  # True = padding
OTHER_MASKS = ("padding_mask", "pad_mask", "mask")  # either: told by behaviour
LENGTH_ARGUMENTS = ("lengths", "seq_lens", "seq_lengths", "lens")
MASKS = (*KEEP_MASKS, *HIDE_MASKS, "decoder_attention_mask", "padding_mask", "pad_mask", "mask", "real")  # no content


@dataclass
class PaddingArgument:
    """The argument that takes a padding mask; ``name`` is None where there is none."""

    name: str | None = None
    keeps: bool = True  # 1 means real
    settled: bool = False  # its polarity was told by behaviour
    dtype: torch.dtype | None = None  # of a mask that no name tells
    boolean: bool = False  # a 1/0 mask is given as integers, as Hugging Face does, unless only bool is taken

    @property
    def ambiguous(self) -> bool:
        """Its name says nothing of its polarity."""
        known = (*KEEP_MASKS, *HIDE_MASKS, *LENGTH_ARGUMENTS, "decoder_attention_mask")
        return self.keeps and self.name is not None and self.name not in known

    @property
    def tells_sides(self) -> bool:
        """Can it say that padding stands on the left?"""
        return self.name is not None and self.name not in LENGTH_ARGUMENTS

    @property
    def hides(self) -> bool:
        return self.name in HIDE_MASKS

    def taken(self, mask: Tensor) -> Tensor:
        """A mask (B, T), 1 = real, as the argument takes it."""
        if self.name in LENGTH_ARGUMENTS:
            return mask.sum(1)
        if self.name in (*KEEP_MASKS, "decoder_attention_mask"):
            return mask.bool() if self.boolean else mask.long()
        taken = mask.bool() == self.keeps
        return taken if self.dtype is None else taken.to(self.dtype)


def padding_argument(parameters: Mapping, stream: str | None, forward=None, said: str | None = None) -> PaddingArgument:
    """Of a module whose forward takes ``parameters``, or of ``forward(model, x, mask)``. ``said``: its name, where the
    caller says it."""
    if said is not None:
        if said not in (parameters if forward is None else arguments(forward)):
            there = ", ".join(parameters if forward is None else arguments(forward))
            raise CheckError(f"padding_mask= names {said!r}, which is no argument; there are {there}.")
        return PaddingArgument(said, keeps=said not in HIDE_MASKS)
    if forward is not None:
        names = arguments(forward)
        known = next((n for n in (*KEEP_MASKS, *OTHER_MASKS) if n in names), None)
        return PaddingArgument(known or (list(names)[2] if len(names) > 2 else None))
    if stream == "decoder_input_ids":
        return PaddingArgument("decoder_attention_mask" if "decoder_attention_mask" in parameters else None)
    for names, keeps in ((KEEP_MASKS, True), (HIDE_MASKS, False), (OTHER_MASKS, True), (LENGTH_ARGUMENTS, True)):
        for name in names:
            square = name == "mask" and {"src_key_padding_mask", "src_mask", "is_causal"} & set(parameters)
            if name in parameters and not square:
                return PaddingArgument(name, keeps)
    return PaddingArgument()
