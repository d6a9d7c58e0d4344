"""What the browser draws, packed for it. The app and notebooks draw with the same JavaScript, so they send the same
messages; who carries them is their own business."""

from headwise.interp.drawing.canvas.explorer import Look, Packed, all_heads, running_text
from headwise.interp.drawing.canvas.message import (
    LARGEST_HEAD,
    LARGEST_PICTURE,
    LEAST_PIXELS,
    MESSAGE,
    head_message,
    over_picture,
)
from headwise.interp.drawing.canvas.packing import CANVAS, FILES, SHEETS, UNREAD, pack, script

__all__ = [
    "CANVAS",
    "FILES",
    "LARGEST_HEAD",
    "LARGEST_PICTURE",
    "LEAST_PIXELS",
    "MESSAGE",
    "SHEETS",
    "UNREAD",
    "Look",
    "Packed",
    "all_heads",
    "head_message",
    "over_picture",
    "pack",
    "running_text",
    "script",
]
