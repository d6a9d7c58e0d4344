"""Patching: what one run has put into another, part by part, to see which part carries the difference.

Two inputs that differ in one respect, a clean and a corrupted one, are aligned (``align``; ``corruptions`` proposes a
corrupted one). ``patch`` exchanges what stands at a site, ``path_patch`` what goes from one head to another.
"""

from headwise.interp.analysis.patching.activations import patch
from headwise.interp.analysis.patching.alignment import Alignment, align
from headwise.interp.analysis.patching.approximate import Closeness, closeness
from headwise.interp.analysis.patching.corrupting import Corruption, corrupted, corruptions, telling
from headwise.interp.analysis.patching.paths import path_patch, receiver_of
from headwise.interp.analysis.patching.places import KINDS, kinds_of

__all__ = [
    "KINDS",
    "Alignment",
    "Closeness",
    "Corruption",
    "align",
    "closeness",
    "corrupted",
    "corruptions",
    "kinds_of",
    "patch",
    "path_patch",
    "receiver_of",
    "telling",
]
