"""A Hugging Face checkpoint from tensors by the names that files on the hub have.

Those names outlive the names of modules, which transformers changes and translates when it loads.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from headwise.interp.errors import LoadError


def save_checkpoint(model_class: type, config, state: dict[str, Tensor], folder: Path):
    """Write ``config.json`` and ``model.safetensors``, and load them → the module.

    Tied tensors are given once. Raises LoadError unless the tensors are exactly those the model has.
    """
    config.architectures, config.dtype = [model_class.__name__], torch.float32
    config.save_pretrained(folder)
    state = {name: value.float().contiguous() for name, value in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    module, info = model_class.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: sorted(info[kind], key=str) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        details = "; ".join(f"{kind.replace('_', ' ')} {names[:3]}" for kind, names in wrong.items() if names)
        raise LoadError(
            f"The weights do not fit transformers' {model_class.__name__}: {details}. Another version of transformers "
            "may fit: see requirements.txt."
        )
    return module
