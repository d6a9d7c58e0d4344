"""The models that come with Headwise: one folder each under assets/, weights as safetensors only."""

import json
from pathlib import Path

from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn

from .decoder import Decoder, DecoderConfig

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {
    "tiny-decoder": "GPT-style decoder, 4 layers × 8 heads, trained on the State of the Union speeches",
}
ARCHITECTURES = {"decoder": (DecoderConfig, Decoder)}  # "architecture" in config.json → its two classes
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def load_bundled(name: str) -> tuple[nn.Module, Tokenizer, dict]:
    """→ (module in eval mode and float32, its tokenizer, the dict of config.json)."""
    if name not in BUNDLED:
        raise KeyError(f"no bundled model is called {name!r}; choose one of {', '.join(BUNDLED)}")
    folder = ASSETS / name
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} should hold {', '.join(FILES)}, but lacks {', '.join(missing)}; "
            f"restore the folder, or train the model again with python -m models.train"
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    options = dict(config)
    architecture = options.pop("architecture", None)
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{folder / 'config.json'}: architecture should be one of {', '.join(ARCHITECTURES)}, "
            f"got {architecture!r}; correct the file"
        )
    make_config, make_module = ARCHITECTURES[architecture]
    module = make_module(make_config(**options))
    weights = load_file(folder / "model.safetensors")
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    came = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    if wrong := {key for key in expected | came if expected.get(key) != came.get(key)}:
        key = min(wrong)
        raise ValueError(
            f"{folder / 'model.safetensors'} and config.json disagree in {len(wrong)} tensors; first {key}: "
            f"expected {expected.get(key, 'no such tensor')}, got {came.get(key, 'none')}; "
            f"restore both files from one source"
        )
    module.load_state_dict({key: tensor.float() for key, tensor in weights.items()})  # stored as float16
    return module.eval(), Tokenizer.from_file(str(folder / "tokenizer.json")), config
