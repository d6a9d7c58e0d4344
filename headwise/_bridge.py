"""In a checkout ``import interp`` and ``import models`` go on working: they mean ``headwise.interp`` and
``headwise.models``, never a second copy of the engine, whose classes would not know those of the first."""

import sys
from importlib import import_module
from pkgutil import walk_packages

MOVED = {  # modules that were asked for by name from outside → where they are now
    "interp.answers": "headwise.interp.analysis.answers",
    "interp.attribution": "headwise.interp.analysis.attribution",
    "interp.call": "headwise.interp.attention.call",
    "interp.capture": "headwise.interp.run.capture",
    "interp.checking": "headwise.interp.check",
    "interp.conventions": "headwise.interp.masks.code",
    "interp.cost": "headwise.interp.run.cost",
    "interp.edits": "headwise.interp.run.edits",
    "interp.embeddings": "headwise.interp.analysis.embeddings",
    "interp.export": "headwise.interp.drawing.files",
    "interp.generate": "headwise.interp.run.generate",
    "interp.maskfile": "headwise.interp.masks.read",
    "interp.metrics": "headwise.interp.analysis.metrics",
    "interp.reach": "headwise.interp.masks.reach",
    "interp.tap": "headwise.interp.run.tap",
    "interp.testing": "headwise.testing",
    "interp.view": "headwise.interp.drawing.matrix",
    "models.fetch": "headwise.models.sources.packages",
    "models.huggingface": "headwise.models.sources.huggingface",
    "models.media": "headwise.models.inputs.media",
}


def bridge(name: str) -> dict[str, object]:
    """Enter every module of ``headwise.<name>`` under its old name → what ``from <name> import …`` shall find."""
    whole = import_module(f"headwise.{name}")
    for found in walk_packages(whole.__path__, f"headwise.{name}."):
        if not found.name.endswith("__main__"):
            sys.modules[found.name.removeprefix("headwise.")] = import_module(found.name)
    for old, new in MOVED.items():
        if old.startswith(f"{name}."):
            sys.modules[old] = import_module(new)
    face = import_module("headwise")
    offered = {public: getattr(face, public) for public in face.__all__}
    return {**{k: v for k, v in vars(whole).items() if not k.startswith("__")}, **offered}
