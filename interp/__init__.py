"""Headwise's engine: capture attention of any torch model, measure it, check its masks.

>>> from models import load
>>> from interp import capture
>>> cap = capture(load("tiny-decoder"), "The people of the United States")
>>> cap.calls[0].weights(head=0).shape[0]
1
"""

from interp import edits, masks
from interp.capture import Capture, capture
from interp.checking import check, check_mask
from interp.metrics import sweep

__all__ = ["Capture", "capture", "check", "check_mask", "edits", "masks", "sweep"]
