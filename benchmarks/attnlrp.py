"""What lxt, the AttnLRP paper's own package, says of three models: its explicit rules, for the tests.

    pip install lxt safetensors transformers     # in an environment of its own
    python benchmarks/attnlrp.py FOLDER [tests/interp/analysis/attribution/lxt.json]

FOLDER holds SmolLM2-135M as Hugging Face saves it; the two bundled models are read from assets/. Each model is written
out here in lxt's operations, in float64 and with an ε so small that it does not count, on the weights alone.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import lxt.explicit.functional as lf
import lxt.explicit.rules as rules
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "tests/interp/analysis/attribution/lxt.json"
EPSILON = 1e-14
linear = partial(lf.linear_epsilon, epsilon=EPSILON)
matmul = partial(lf.matmul, epsilon=EPSILON)
add = partial(lf.add2, epsilon=EPSILON)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("place", nargs="?", default=PLACE, type=Path)
    options = parser.parse_args()
    found = {"tiny-decoder": decoder(), "tiny-classifier": classifier(), "smollm2-135m": llama(Path(options.folder))}
    options.place.write_text(json.dumps(found) + "\n", "utf-8")
    print(json.dumps(found))


def decoder() -> dict:
    """Pre-LN, rotary positions, GELU: the next token after some ids."""
    w, config = weights(ROOT / "assets/tiny-decoder")
    ids = [20, 300, 41, 7, 300, 52, 99]
    x = start = w["token_embedding.weight"][ids][None].requires_grad_()
    for n in range(config["layers"]):
        block = part(w, f"blocks.{n}.")
        h = norm(x, block, "attention_norm", 1e-5)
        x = add(x, attention(h, block, "attention.", config["heads"], causal=True, base=10_000.0))
        h = norm(x, block, "mlp_norm", 1e-5)
        h = rules.identity(partial(F.gelu, approximate="tanh"), named(h, block, "mlp.expand"))
        x = add(x, named(h, block, "mlp.contract"))
    row = linear(norm(x, w, "final_norm", 1e-5), w["token_embedding.weight"])[0, -1]
    return told(start, row, ids)


def classifier() -> dict:
    """Post-LN, learned positions, GELU, a tanh pooler: the class of some ids."""
    w, config = weights(ROOT / "assets/tiny-classifier")
    ids = [2, 60, 311, 92, 400, 77, 3]
    start = w["token_embedding.weight"][ids][None].requires_grad_()
    x = add(start, w["segment_embedding.weight"][0].expand_as(start))
    x = norm(add(x, w["position_embedding.weight"][: len(ids)][None]), w, "embedding_norm", 1e-12)
    for n in range(config["layers"]):
        block = part(w, f"blocks.{n}.")
        x = norm(add(x, attention(x, block, "attention.", config["heads"])), block, "attention_norm", 1e-12)
        h = rules.identity(F.gelu, named(x, block, "mlp.expand"))
        x = norm(add(x, named(h, block, "mlp.contract")), block, "mlp_norm", 1e-12)
    pooled = rules.identity(torch.tanh, named(x[:, 0], w, "pooler"))
    return told(start, named(pooled, w, "classifier")[0], ids)


def llama(folder: Path) -> dict:
    """RMSNorm, rotary positions, keys shared by several heads, SwiGLU: the next token after some ids."""
    w, config = weights(folder)
    ids = [2683, 8814, 284, 5330, 3349, 288, 260, 3751, 28, 5330, 3136, 253, 5682, 288]
    start = x = w["model.embed_tokens.weight"][ids][None].requires_grad_()
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    base = (config.get("rope_parameters") or config).get("rope_theta", 10_000.0)
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    for n in range(config["num_hidden_layers"]):
        block = part(w, f"model.layers.{n}.")
        own = {f"attention.{ours}.weight": block[f"self_attn.{theirs}.weight"] for ours, theirs in names.items()}
        h = lf.rms_norm_identity(x, block["input_layernorm.weight"], config["rms_norm_eps"])
        x = add(x, attention(h, own, "attention.", heads, causal=True, base=base, shared=shared))
        h = lf.rms_norm_identity(x, block["post_attention_layernorm.weight"], config["rms_norm_eps"])
        gate = rules.identity(F.silu, named(h, block, "mlp.gate_proj"))
        x = add(x, named(lf.mul2(gate, named(h, block, "mlp.up_proj")), block, "mlp.down_proj"))
    row = linear(
        lf.rms_norm_identity(x, w["model.norm.weight"], config["rms_norm_eps"]), w["model.embed_tokens.weight"]
    )
    return told(start, row[0, -1], ids)


def attention(x, w, name, heads, *, causal=False, base=None, shared=None):
    """x (1, T, C) → (1, T, C) by lxt's rules: two products, a softmax between them."""
    q, k, v = (
        named(x, w, name + side).unflatten(-1, (count, -1)).transpose(1, 2)
        for side, count in (("query", heads), ("key", shared or heads), ("value", shared or heads))
    )  # (1, H, T, D)
    if base is not None:
        q, k = (rules.epsilon_lrp(partial(rotate, base=base), EPSILON, t) for t in (q, k))
    k, v = (t.repeat_interleave(heads // t.shape[1], 1) for t in (k, v))
    scores = lf.mul2(matmul(q, k.mT), q.shape[-1] ** -0.5)
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    out = matmul(lf.softmax(scores, -1), v)
    return named(out.transpose(1, 2).flatten(2), w, name + "output")


def rotate(x, base):
    """Rotary positions, the halves of D paired."""
    half = x.shape[-1] // 2
    rates = base ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = torch.arange(x.shape[-2], dtype=torch.float32)[:, None] * rates
    cos, sin = angles.cos().double(), angles.sin().double()
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def named(x, w, name):
    return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(x, w, name, eps):
    return lf.layer_norm_grad_fn.apply(x, w[f"{name}.weight"], w[f"{name}.bias"], eps, EPSILON)


def told(start, row, ids) -> dict:
    """Relevance of each id for the best of a row of logits: what is handed back is that logit."""
    best = row.max()
    best.backward(best.detach())
    relevance = start.grad[0].sum(-1)
    numbers = [round(float(number), 7) for number in relevance]
    return {"ids": ids, "token": int(row.argmax()), "logit": float(best.detach()), "relevance": numbers}


def weights(folder: Path) -> tuple[dict, dict]:
    held = load_file(folder / "model.safetensors")
    return {name: t.double() for name, t in held.items()}, json.loads((folder / "config.json").read_text("utf-8"))


def part(w: dict, prefix: str) -> dict:
    return {name.removeprefix(prefix): t for name, t in w.items() if name.startswith(prefix)}


if __name__ == "__main__":
    main()
