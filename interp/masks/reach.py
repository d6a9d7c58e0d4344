"""How far information travels over several layers of a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.masks.patterns import Mask


def reach(mask: Mask, length: int, layers: int) -> Tensor:
    """Which inputs an output may depend on after ``layers`` layers of attention with residual connections → bool
    (length, length).

    Boolean matrix power of (mask or identity): a window of w keys reaches layers · (w − 1) positions back.

    >>> from headwise.interp.masks import Window
    >>> reach(Window(2, 0), 8, 2)[7].int().tolist()
    [0, 0, 0, 1, 1, 1, 1, 1]
    """
    step = (mask.dense(length, length) | torch.eye(length, dtype=torch.bool)).float()
    seen = torch.eye(length)
    for _ in range(layers):
        seen = ((step @ seen) > 0).float()
    return seen.bool()
