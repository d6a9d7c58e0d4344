"""How each bundled model was made and is measured: a file each, with its data, its training, its held-out figures."""

from importlib import import_module
from types import ModuleType

RECIPES = {  # bundled model → the file beside this one
    "tiny-decoder": "decoder",
    "tiny-attention-only": "attention_only",
    "tiny-encoder": "encoder",
    "tiny-classifier": "classifier",
    "tiny-encoder-decoder": "encoder_decoder",
    "tiny-vit": "vision",
}


def recipe_of(name: str) -> ModuleType:
    """The module with ``prepare() → Training`` and ``report(seed) → str``."""
    return import_module(f"headwise.models.recipes.{RECIPES[name]}")
