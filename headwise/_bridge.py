"""In a checkout ``import interp`` and ``import models`` go on working: they mean ``headwise.interp`` and
``headwise.models``, never a second copy of the engine, whose classes would not know those of the first.

``interp/__init__.py`` and ``models/__init__.py`` call ``bridge`` where they are imported by that bare name.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import headwise

MOVED = {  # what an old module held → where that is now; others kept their place below interp or models
    "interp.answers": ("interp.analysis.answers",),
    "interp.attribution": ("interp.analysis.attribution",),
    "interp.bertviz": ("interp.drawing.bertviz",),
    "interp.call": ("interp.attention.call", "interp.attention.scores"),
    "interp.capture": ("interp.run.capture", "interp.run.outputs"),
    "interp.checking": ("interp.check",),
    "interp.checking.command": ("commands.check",),
    "interp.checking.compare": ("interp.check.gaps",),
    "interp.compare": ("interp.drawing.matrix", "interp.subject"),
    "interp.conventions": ("interp.masks.code",),
    "interp.cost": ("interp.run.cost",),
    "interp.edits": ("interp.run.edits",),
    "interp.embeddings": ("interp.analysis.embeddings",),
    "interp.export": ("interp.drawing.files",),
    "interp.figure": ("interp.drawing.paper",),
    "interp.generate": ("interp.run.generate",),
    "interp.maskfile": ("interp.masks.read",),
    "interp.metrics": ("interp.analysis.metrics",),
    "interp.reach": ("interp.masks.reach", "interp.analysis.travel"),
    "interp.subject": ("interp.subject", "interp.errors", "interp.attention.axes"),
    "interp.tap": ("interp.run.tap.recorder", "interp.run.tap.mode", "interp.run.tap.listening"),
    "interp.testing": ("testing",),
    "interp.view": ("interp.drawing.matrix", "interp.drawing.survey", "interp.drawing.words"),
    "models.attention_only": ("models.architectures.attention_only",),
    "models.audio_inputs": ("models.inputs.recordings",),
    "models.blocks": ("models.architectures.blocks",),
    "models.bundled": ("models.sources.bundled",),
    "models.bundled_inputs": ("models.inputs.bundled",),
    "models.conversions": ("models.sources.conversions",),
    "models.data": ("models.recipes.data",),
    "models.decoder": ("models.architectures.decoder",),
    "models.encoder": ("models.architectures.encoder",),
    "models.encoder_decoder": ("models.architectures.encoder_decoder",),
    "models.fetch": ("models.sources.packages",),
    "models.huggingface": ("models.sources.huggingface",),
    "models.media": ("models.inputs.media",),
    "models.registry": ("models.sources.index",),
    "models.text": ("models.inputs.tokens",),
    "models.text_inputs": ("models.inputs.texts",),
    "models.train": ("models.recipes.train",),
    "models.vision": ("models.architectures.vision",),
    "models.vision_inputs": ("models.inputs.pictures",),
}
RENAMED = {
    "HeadView": "Matrix",
    "Picture": "PixelGrid",
    "_names": "names_of",
    "expect_same_tokens": "same_tokens",
}


class Old(ModuleType):
    """``interp`` or ``models``: its functions are not replaced by modules of the same name, when those are imported."""

    def __getattr__(self, name: str):
        if name not in vars(self).get("__all__", ()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(headwise, name)

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and hasattr(self, name)):
            super().__setattr__(name, value)


class Parts(ModuleType):
    """An old module whose names live in several now."""

    def __getattr__(self, name: str):
        for wanted in (name, RENAMED.get(name, name)):
            for place in MOVED[self.__name__]:
                part = import_module(f"headwise.{place}")
                if hasattr(part, wanted):
                    return getattr(part, wanted)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class Signpost(MetaPathFinder, Loader):
    """Finds ``interp.…`` and ``models.…`` where they are now, and enters the module itself under the old name."""

    def __init__(self) -> None:
        self.roots: set[str] = set()

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name.partition(".")[0] not in self.roots or name.endswith("__main__"):
            return None
        found = len(places_of(name)) > 1 or find_spec(places_of(name)[0])
        return ModuleSpec(name, self) if found else None

    def exec_module(self, module: ModuleType) -> None:
        places = places_of(module.__name__)
        if len(places) > 1:
            module.__class__ = Parts
        else:
            sys.modules[module.__name__] = import_module(places[0])

    def get_code(self, name: str):
        raise ImportError(f"{name} is no command any more: see headwise --help")


SIGNPOST = Signpost()


def places_of(name: str) -> tuple[str, ...]:
    """ "interp.checking.lint" → ("headwise.interp.check.lint",)."""
    old, rest = name, ""
    while old not in MOVED and "." in old:
        old, _, last = old.rpartition(".")
        rest = f".{last}{rest}"
    return tuple(f"headwise.{place}{rest}" for place in MOVED.get(old, (old,)))


def bridge(root: str) -> dict[str, object]:
    """``root``, "interp" or "models", becomes a signpost to headwise → what it offers of its own."""
    sys.modules[root].__class__ = Old
    if SIGNPOST not in sys.meta_path:
        sys.meta_path.insert(0, SIGNPOST)
    SIGNPOST.roots.add(root)
    whole = vars(import_module(f"headwise.{root}"))
    modules = {name for name, value in whole.items() if isinstance(value, ModuleType)}  # found when they are asked for
    own = {name: value for name, value in whole.items() if not name.startswith("__") and name not in modules}
    return {**own, "__all__": whole.get("__all__", headwise.__all__)}


def withdraw(root: str) -> None:
    """``root`` is a stranger's package from now on, if the path holds one, and no signpost any more."""
    if root in SIGNPOST.roots:
        SIGNPOST.roots.discard(root)
        for known in [name for name in sys.modules if name == root or name.startswith(f"{root}.")]:
            del sys.modules[known]
