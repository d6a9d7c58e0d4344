"""Headwise: see every head of any transformer, and trust every mask.

>>> from headwise import capture, load
>>> cap = capture(load("tiny-decoder"), "The people of the United States")
>>> cap.calls[0].weights(head=0).shape[0]
1
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ != "headwise":  # a checkout's own folder is among its rooms, and a second copy would not know the first
    raise ImportError(f"{__name__} is headwise itself: import that.")

_here = Path(__file__).parent
if not (_here / "interp").is_dir():  # a checkout: the rooms stand beside this folder; installed, they stand in it
    __path__.append(str(_here.parent))

if TYPE_CHECKING:
    from headwise.interp import masks
    from headwise.interp.analysis.ablation import ablate
    from headwise.interp.analysis.attribution import attribute
    from headwise.interp.analysis.attribution.faithfulness import faithfulness
    from headwise.interp.analysis.circuits.compositions import compositions
    from headwise.interp.analysis.lens import lens
    from headwise.interp.analysis.logits import logit_attribution
    from headwise.interp.analysis.metrics import sweep
    from headwise.interp.analysis.patching import patch
    from headwise.interp.check.check import check
    from headwise.interp.check.lint import check_mask
    from headwise.interp.run import edits
    from headwise.interp.run.anatomy import anatomy
    from headwise.interp.run.capture import Capture, capture, rerun
    from headwise.models import available, load, wrap

_FACE = {  # name → its module, and its name there; imported when first asked for, so that `import headwise` is light
    "Capture": ("interp.run.capture", "Capture"),
    "ablate": ("interp.analysis.ablation", "ablate"),
    "anatomy": ("interp.run.anatomy", "anatomy"),
    "attribute": ("interp.analysis.attribution", "attribute"),
    "available": ("models", "available"),
    "capture": ("interp.run.capture", "capture"),
    "check": ("interp.check", "check"),
    "check_mask": ("interp.check", "check_mask"),
    "compositions": ("interp.analysis.circuits.compositions", "compositions"),
    "edits": ("interp.run.edits", None),  # the module itself
    "faithfulness": ("interp.analysis.attribution.faithfulness", "faithfulness"),
    "lens": ("interp.analysis.lens", "lens"),
    "load": ("models", "load"),
    "logit_attribution": ("interp.analysis.logits", "logit_attribution"),
    "masks": ("interp.masks", None),
    "patch": ("interp.analysis.patching", "patch"),
    "rerun": ("interp.run.capture", "rerun"),
    "sweep": ("interp.analysis.metrics", "sweep"),
    "wrap": ("models", "wrap"),
}
__all__ = [
    "Capture",
    "ablate",
    "anatomy",
    "attribute",
    "available",
    "capture",
    "check",
    "check_mask",
    "compositions",
    "edits",
    "faithfulness",
    "lens",
    "load",
    "logit_attribution",
    "masks",
    "patch",
    "rerun",
    "sweep",
    "wrap",
]


def __getattr__(name: str):
    if name not in _FACE:
        raise AttributeError(f"module 'headwise' has no attribute {name!r}")
    place, there = _FACE[name]
    module = import_module(f"headwise.{place}")
    found = globals()[name] = module if there is None else getattr(module, there)
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
