"""What a line of the catalogue is, and words that several lines share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One line of the catalogue. ``sure`` is "certain" where the probe itself shows the cause; elsewhere the cause is
    where to look first, and is not said to be the cause.
    """

    cls: str  # one of report.CLASSES
    says: str
    cause: str = ""
    fix: str = ""
    sure: str = ""


NEGATE = (
    "negate it: True means padding in nn.MultiheadAttention's key_padding_mask, and real in Hugging Face's "
    "attention_mask"
)
LOWEST = "use −inf or torch.finfo(scores.dtype).min"
UNFOUND = "we did not find why"
UNKNOWN = f"the leak enters here; {UNFOUND}"
LOOK = "compare the picture with the promise"
