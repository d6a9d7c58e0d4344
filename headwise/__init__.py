"""Headwise: see every head of any transformer, and trust every mask.

>>> from headwise import capture, load
>>> cap = capture(load("tiny-decoder"), "The people of the United States")
>>> cap.calls[0].weights(head=0).shape[0]
1
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

_here = Path(__file__).parent
if not (_here / "interp").is_dir():  # a checkout: the rooms stand beside this folder; installed, they stand in it
    __path__.append(str(_here.parent))

if TYPE_CHECKING:
    from headwise.interp import masks
    from headwise.interp.analysis.metrics import sweep
    from headwise.interp.check import check, check_mask
    from headwise.interp.run import edits
    from headwise.interp.run.capture import Capture, capture
    from headwise.models import available, load, wrap

_FACE = {  # name → where it lives; imported when first asked for, so that `import headwise` loads no torch
    "Capture": "interp.run.capture",
    "available": "models",
    "capture": "interp.run.capture",
    "check": "interp.check",
    "check_mask": "interp.check",
    "edits": "interp.run.edits",
    "load": "models",
    "masks": "interp.masks",
    "sweep": "interp.analysis.metrics",
    "wrap": "models",
}
__all__ = [
    "Capture",
    "available",
    "capture",
    "check",
    "check_mask",
    "edits",
    "load",
    "masks",
    "sweep",
    "wrap",
]


def __getattr__(name: str):
    if name not in _FACE:
        raise AttributeError(f"module 'headwise' has no attribute {name!r}")
    module = import_module(f"headwise.{_FACE[name]}")
    found = globals()[name] = getattr(module, name, module)
    return found


def __dir__() -> list[str]:
    return __all__
