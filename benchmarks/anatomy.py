"""On how many architectures of Hugging Face a residual stream is found and proven: tiny random ones, all disturbed.

    python benchmarks/anatomy.py                     # the named list, then all other names that shrink by themselves
    python benchmarks/anatomy.py --named             # the named list alone
    python benchmarks/anatomy.py gpt2 bert whisper   # these

Every configuration that transformers knows is made small by its numbers (layers, widths, heads, vocabulary, pictures)
and built with random weights, none of them a zero or a one. Each architecture runs in a process of its own, for
``--seconds`` of a processor at most. An architecture is believed when its anatomy is proven on one input (errors at
most 1e-5), holds on a second of another length (Σ again), and the outputs of the run that reads are those of a plain
run, bit for bit.
Architectures that do not build, or do not run on the input that was made for them, are counted apart, and so are
convolutional networks, which have no attention.
"""

import argparse
import os
import pickle
import resource
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers.models.auto import configuration_auto, modeling_auto  # noqa: E402

from headwise import wrap  # noqa: E402
from headwise.interp.run.anatomy import anatomy, read  # noqa: E402
from headwise.interp.subject import Inputs  # noqa: E402

LIMIT, WANTED = 1e-5, 0.92
NAMED = """
gpt2 gpt_neo gptj gpt_neox opt bloom falcon llama mistral qwen2 qwen3 qwen2_moe qwen3_moe mixtral gemma gemma2
gemma3_text phi phi3 cohere cohere2 granite granitemoe olmo olmo2 olmo3 stablelm mpt gpt_oss deepseek_v3 smollm3
jamba bamba bert roberta albert distilbert electra deberta deberta-v2 modernbert xlnet t5 bart marian mbart pegasus
whisper vit dinov2 clip_text_model clip_vision_model deit swin swinv2 beit wav2vec2 hubert codegen ctrl openai-gpt
biogpt xglm persimmon glm glm4 exaone4 ernie4_5 helium starcoder2 mamba qwen3_next falcon_h1 lfm2 granitemoehybrid
squeezebert mpnet xlm funnel fnet roformer convbert siglip_vision_model vit_mae data2vec-vision yolos
audio-spectrogram-transformer wav2vec2-conformer phimoe bitnet diffllama nystromformer longformer led big_bird
prophetnet mt5 umt5 m2m_100 blenderbot plbart esm ibert gpt_bigcode deepseek_v4 gemma3n_text
""".split()  # noqa: SIM905
CONVOLUTIONS = {  # without attention or anything that stands for it: to be refused, and counted apart
    "bit", "convnext", "convnextv2", "dinov3_convnext", "hgnet_v2", "mobilenet_v1", "mobilenet_v2", "poolformer",
    "pp_lcnet", "regnet", "resnet", "textnet",
}  # fmt: skip
AUTO = (
    "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "MASKED_LM", "SPEECH_SEQ_2_SEQ", "IMAGE_CLASSIFICATION", "CTC", "",
)  # fmt: skip
SIZES = {  # a configuration's number, by how its name is spelled → how large it is made
    ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "depth",
     "num_encoder_layers", "num_decoder_layers", "encoder_depth", "decoder_depth", "decoder_num_hidden_layers",
     "num_blocks", "depths"): 2,
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
     "num_encoder_attention_heads", "num_decoder_attention_heads", "decoder_num_attention_heads", "attention_heads"): 4,
    ("num_key_value_heads", "num_kv_heads"): 2,
    ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "emb_dim", "decoder_hidden_size", "projection_dim",
     "embedding_size", "encoder_embed_dim", "decoder_embed_dim"): 64,
    ("head_dim", "d_kv", "d_head", "attention_head_size", "kv_channels", "rotary_dim", "qk_rope_head_dim",
     "qk_nope_head_dim", "v_head_dim", "global_head_dim"): 16,
    ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "d_inner", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim",
     "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size", "decoder_intermediate_size",
     "encoder_ffn_dim", "shared_intermediate_size"): 96,
    ("vocab_size", "vocab_size_or_config_json_file"): 320,
    ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_target_positions"): 128,
    ("max_source_positions",): 50,
    ("image_size",): 64,
    ("patch_size",): 8,
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"): 4,
    ("num_experts_per_tok", "moe_top_k", "num_experts_per_token"): 2,
    ("q_lora_rank", "kv_lora_rank", "o_lora_rank"): 32,
    ("mamba_d_state", "state_size", "ssm_state_size", "mamba_n_heads", "mamba_num_heads"): 8,
    ("mamba_d_head", "mamba_head_dim"): 16,
    ("mamba_d_ssm",): 128,
    ("window_size",): 4,
    ("n_group", "topk_group", "num_kv_shared_layers", "mamba_n_groups", "n_groups"): 1,
    ("num_mel_bins",): 16,
    ("num_conv_pos_embeddings",): 16,
    ("num_conv_pos_embedding_groups",): 4,
    ("sliding_window", "attention_window"): 8,
}  # fmt: skip
BY_NAME = {name: size for names, size in SIZES.items() for name in names}


@dataclass
class Row:
    """What was found of one architecture."""

    name: str
    verdict: str  # "believed" | "part" | "refused" | "wrong" | "not built" | "not run" | "slow"
    what: str = ""
    errors: tuple = ()
    why: str = ""

    def __str__(self) -> str:
        errors = " ".join("–" if e is None else f"{e:.0e}" for e in self.errors)
        return f"| {self.name} | {self.verdict} | {self.what} | {errors} | {self.why[:160]} |"


def shrunk(config):
    """A configuration made small, its parts too."""
    layers = getattr(config, "num_hidden_layers", None)
    for name, value in list(vars(config).items()):
        if isinstance(value, transformers.PreTrainedConfig):
            shrunk(value)
            continue
        try:
            if name in BY_NAME and isinstance(value, int) and not isinstance(value, bool):
                setattr(config, name, min(value, BY_NAME[name]) if value > 0 else value)
            elif name in BY_NAME and isinstance(value, list | tuple) and value and isinstance(value[0], int):
                setattr(config, name, type(value)(BY_NAME[name] for _ in value))
            elif name in ("vocab_size", "pad_token_id") and value is None:
                setattr(config, name, BY_NAME.get(name, 0))
            elif name == "layer_types" and isinstance(value, list):
                setattr(config, name, _first_of_each(value))
                config.num_hidden_layers = len(config.layer_types)
            elif isinstance(value, list) and layers and len(value) == layers:
                setattr(config, name, value[:2])
            elif name.endswith("_token_id") and isinstance(value, int) and value >= 300:
                setattr(config, name, 3)
        except (AttributeError, TypeError, ValueError, NotImplementedError):
            continue
    config.use_cache = False
    return config


def _first_of_each(kinds: list) -> list:
    """At least two layers, one of each kind."""
    found = list(dict.fromkeys(kinds))
    return found if len(found) > 1 else found * 2


def build(name: str):
    """(model, its configuration): tiny, random, disturbed."""
    config = shrunk(configuration_auto.CONFIG_MAPPING[name]())
    for kind in AUTO:
        mapping = getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING" if kind else "MODEL_MAPPING")
        if type(config) in mapping:
            model_class = mapping[type(config)]
            model_class = model_class[0] if isinstance(model_class, tuple) else model_class
            torch.manual_seed(0)
            return disturbed(model_class(config).eval().requires_grad_(False)), config
    raise LookupError("no model class in the automatic mappings")


def disturbed(model):
    """No weight stays a zero or a one: a bias that is left out, or a norm's weight, must show."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += (0.1 if parameter.ndim < 2 else 0.02) * noise.to(parameter.dtype)
    return model


def inputs_of(model, config, length: int, seed: int) -> Inputs:
    """An input of the model's own kind."""
    generator = torch.Generator().manual_seed(seed)
    main = model.main_input_name
    if main == "input_ids":
        ids = torch.randint(5, 200, (1, length), generator=generator)
        kwargs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    elif main == "pixel_values":
        size = getattr(config, "image_size", None) or 32
        height, width = (size, size) if isinstance(size, int) else size
        kwargs = {main: torch.randn(1, getattr(config, "num_channels", 3), height, width, generator=generator)}
    elif main == "input_features":
        bins = getattr(config, "num_mel_bins", None) or getattr(config, "feature_size", 16)
        frames = 2 * getattr(config, "max_source_positions", 50)
        shape = (1, bins, frames) if hasattr(config, "max_source_positions") else (1, frames, bins)
        kwargs = {main: torch.randn(shape, generator=generator)}
    elif hasattr(config, "max_length") and hasattr(config, "num_mel_bins"):
        kwargs = {main: torch.randn(1, config.max_length, config.num_mel_bins, generator=generator)}
    else:
        kwargs = {main: torch.randn(1, 6000 + 500 * length, generator=generator)}
    if config.is_encoder_decoder:
        kwargs["decoder_input_ids"] = torch.randint(5, 200, (1, length - 3), generator=generator)
    return Inputs(kwargs)


def tried(name: str) -> Row:
    """One architecture: found, proven, and read on an input of another length."""
    try:
        model, config = build(name)
    except Exception as error:  # a configuration that does not survive shrinking
        return Row(name, "not built", why=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    subject = wrap(model, name=name)
    try:
        with torch.no_grad():
            model(**inputs_of(model, config, 16, 0).kwargs)
    except Exception as error:
        return Row(name, "not run", why=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    found = anatomy(subject, inputs_of(model, config, 16, 0))
    proof, why = found.proof, " ".join(found.refused)
    what = "; ".join(repr(s).removeprefix("Stream(").rstrip(")") for s in found.streams)
    what += f"; {found.readout!r}" if found.readout is not None else ""
    if not found.streams:
        return Row(name, "refused", why=why)
    errors = (proof.total, proof.logits, proof.attribution, proof.heads)
    again = inputs_of(model, config, 21, 1)
    torch.manual_seed(0)
    with torch.no_grad():
        plain = model(**again.kwargs)
    torch.manual_seed(0)
    reading = read(subject, again, found)
    same = all(torch.equal(a, b) for a, b in zip(_tensors(plain), _tensors(reading.output), strict=True))
    errors = (*errors, reading.proof.total)
    wrong = not same or not proof.exact or not reading.proof.exact or max(e for e in errors if e is not None) > LIMIT
    return Row(name, "wrong" if wrong else "part" if found.refused else "believed", what, errors, why)


def _tensors(output):
    return [v for v in output.values() if isinstance(v, torch.Tensor)] if hasattr(output, "values") else [output]


def apart(name: str, seconds: int) -> Row:
    """``tried`` in a process of its own, which may take this long."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, resource.RLIM_INFINITY))
        try:
            row = tried(name)
        except Exception as error:
            row = Row(name, "wrong", why=f"{type(error).__name__}: {error}")
        with os.fdopen(send, "wb") as pipe:
            pickle.dump(row, pipe)
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(told) if told else Row(name, "slow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--named", action="store_true")
    parser.add_argument("--seconds", type=int, default=20)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    others = [n for n in configuration_auto.CONFIG_MAPPING if n not in NAMED]
    names = asked.names or NAMED + ([] if asked.named else others)
    tried("llama")  # what all architectures import is imported before they part
    began, rows = time.time(), []
    print("| architecture | verdict | streams | errors: Σ, logits, attribution, heads, Σ elsewhere | reasons |")
    print("|-|-|-|-|-|")
    for name in names:
        rows.append(apart(name, asked.seconds))
        print(rows[-1], flush=True)
    without = [r.verdict for r in rows if r.name in CONVOLUTIONS and r.verdict not in ("not built", "not run")]
    rows = [r for r in rows if r.name not in CONVOLUTIONS]
    counted = {v: sum(r.verdict == v for r in rows) for v in dict.fromkeys(r.verdict for r in rows)}
    ran = sum(counted.get(v, 0) for v in ("believed", "part", "refused", "wrong", "slow"))
    share = counted.get("believed", 0) / max(ran, 1)
    print(f"\n{counted}; {share:.1%} of the {ran} that build and run are believed, wanted {WANTED:.0%}")
    print(f"of {len(without)} convolutional networks {without.count('refused')} are refused")
    print(f"{time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
