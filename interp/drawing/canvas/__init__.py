"""What the browser draws, packed for it. The app and notebooks draw with the same JavaScript, so they send the same
messages; who carries them is their own business."""

from headwise.interp.drawing.canvas.explorer import (
    Explorer,
    Look,
    Packed,
    all_heads,
    large_message,
    running_text,
    token,
)
from headwise.interp.drawing.canvas.grid import Heads, grid_message
from headwise.interp.drawing.canvas.message import (
    LARGEST_HEAD,
    LARGEST_PICTURE,
    LEAST_PIXELS,
    MESSAGE,
    drawn_message,
    head_message,
    over_picture,
)
from headwise.interp.drawing.canvas.packing import CANVAS, FILES, NOTEBOOK, SHEETS, UNREAD, pack, script

__all__ = [
    "CANVAS",
    "FILES",
    "LARGEST_HEAD",
    "LARGEST_PICTURE",
    "LEAST_PIXELS",
    "MESSAGE",
    "NOTEBOOK",
    "SHEETS",
    "UNREAD",
    "Explorer",
    "Heads",
    "Look",
    "Packed",
    "all_heads",
    "drawn_message",
    "grid_message",
    "head_message",
    "large_message",
    "over_picture",
    "pack",
    "running_text",
    "script",
    "token",
]
