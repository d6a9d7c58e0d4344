"""The models that come with Headwise: one folder each under assets/, weights as safetensors only."""

import json
from pathlib import Path

from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn

from headwise.assets import ASSETS
from headwise.models.architectures.attention_only import AttentionOnly, AttentionOnlyConfig
from headwise.models.architectures.decoder import Decoder, DecoderConfig
from headwise.models.architectures.encoder import Encoder, EncoderConfig
from headwise.models.architectures.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from headwise.models.architectures.lstm import LSTM, LSTMConfig
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.architectures.vision import VisionConfig, VisionTransformer
from headwise.models.architectures.xlnet import XLNet, XLNetConfig
from headwise.models.catalogue import BUNDLED

TUNED_LENS = "tuned-lens.safetensors"  # beside the weights, where one was trained

SPEECHES = "../tiny-decoder/tokenizer.json"  # one for all that read the speeches with it

ARCHITECTURES = {  # "architecture" in config.json → its two classes, and the files beside the weights
    "decoder": (DecoderConfig, Decoder, {"text": "tokenizer.json"}),
    "attention-only": (AttentionOnlyConfig, AttentionOnly, {"text": SPEECHES}),
    "encoder": (EncoderConfig, Encoder, {"text": "tokenizer.json"}),
    "encoder-decoder": (
        EncoderDecoderConfig,
        EncoderDecoder,
        {"source": "tokenizer.json", "target": "target-tokenizer.json"},
    ),
    "variant": (VariantConfig, VariantDecoder, {"text": SPEECHES}),
    "xlnet": (XLNetConfig, XLNet, {"text": "tokenizer.json"}),
    "lstm": (LSTMConfig, LSTM, {"text": SPEECHES}),
    "forecaster": (VariantConfig, VariantDecoder, {}),
    "music": (VariantConfig, VariantDecoder, {}),
    "vision": (VisionConfig, VisionTransformer, {}),
}


def load_bundled(name: str) -> tuple[nn.Module, dict[str, Tokenizer], dict]:
    """→ (module in eval mode and float32, its tokenizers by what they read, the dict of config.json)."""
    if name not in BUNDLED:
        raise KeyError(f"no bundled model is called {name!r}; choose one of {', '.join(BUNDLED)}")
    folder = ASSETS / name
    _expect_files(folder, ["config.json", "model.safetensors"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    architecture = options.pop("architecture", None)
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{folder / 'config.json'}: architecture should be one of {', '.join(ARCHITECTURES)}, "
            f"got {architecture!r}; correct the file"
        )
    make_config, make_module, tokenizers = ARCHITECTURES[architecture]
    _expect_files(folder, list(tokenizers.values()))
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
    read = {what: Tokenizer.from_file(str(folder / file)) for what, file in tokenizers.items()}
    return module.eval(), read, config


def _expect_files(folder: Path, files: list[str]) -> None:
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise FileNotFoundError(
            f"{folder} should hold {', '.join(files)}, but lacks {', '.join(missing)}; "
            f"restore the folder, or train the model again with headwise train {folder.name}"
        )
