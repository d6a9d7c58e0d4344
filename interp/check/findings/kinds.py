"""What a line of the catalogue is, and words that several lines share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One line of the catalogue. ``sure`` is "certain" where the evidence leaves no other reading."""

    cls: str  # one of report.CLASSES
    says: str
    cause: str = ""
    fix: str = ""
    sure: str = "likely"


NEGATE = "True means padding in nn.MultiheadAttention's key_padding_mask and real in Hugging Face's attention_mask"
LOWEST = "use −inf or torch.finfo(scores.dtype).min"
LOOK = "compare the picture with the promise"
