"""How each bundled model was made and is measured: a file each, with its data, its training, its held-out figures."""

from importlib import import_module
from types import ModuleType
from typing import Any

from headwise.models.catalogue import BUNDLED


def recipe_of(name: str) -> ModuleType | Any:
    """What has ``prepare() → Training`` and ``report(seed) → str``. Raises ValueError naming those there are."""
    if name not in BUNDLED:
        raise ValueError(f"There is no recipe for {name!r}. Choose one of {', '.join(BUNDLED)}.")
    made = import_module(f"headwise.models.recipes.{BUNDLED[name].recipe}")
    return made.RUNS[name] if hasattr(made, "RUNS") else made  # of a family, the member
