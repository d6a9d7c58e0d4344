"""What TransformerLens 4 says of SmolLM2-135M: ablations, direct logit attribution and patching, for the tests.

    pip install transformer-lens==4.3.0      # in an environment of its own: it brings forty packages
    python benchmarks/transformerlens.py FOLDER [tests/interp/analysis] [--only ablation|patching]

FOLDER holds the checkpoint as Hugging Face saves it. The figures are the change of logit(" Mary") − logit(" John") at
the last token, and the parts of that difference. Patching runs the corrupted text with what the clean one has, path
patching the clean text with what the corrupted one has.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = "When Mary and John went to the store, John gave a drink to"
ANSWER, ALTERNATIVE = " Mary", " John"
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"
SENDERS, RECEIVERS = ((3, 1), (12, 5), (17, 4)), (("q", 23, 3), ("k", 20, 0), ("v", 23, 1))  # (layer, head), by kind
PLACE = Path(__file__).parents[1] / "tests/interp/analysis"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("place", nargs="?", default=PLACE, type=Path)
    parser.add_argument("--every", type=int, default=6, help="so many layers apart are those whose heads are changed")
    parser.add_argument("--only", choices=("ablation", "patching"))
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32, attn_implementation="eager")
    words = AutoTokenizer.from_pretrained(options.folder)
    bridge = TransformerBridge.boot_transformers(options.folder, hf_model=model.eval(), tokenizer=words, device="cpu")
    if options.only != "patching":
        ablation(bridge, options)
    if options.only != "ablation":
        patched(bridge, options)


def asked(bridge, text: str = TEXT):
    """Ids of the text, and the difference of logits that is measured, of logits (1, T, V)."""
    ids = bridge.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    answer, other = (bridge.tokenizer(word, add_special_tokens=False).input_ids[-1] for word in (ANSWER, ALTERNATIVE))
    return ids, lambda logits: logits[0, -1, answer] - logits[0, -1, other]


def ablation(bridge, options) -> None:
    """Heads and MLPs taken out one at a time, and the direct parts."""
    ids, measured = asked(bridge)

    def difference(hooks=()) -> float:
        with torch.no_grad():
            return float(measured(bridge.run_with_hooks(ids, fwd_hooks=list(hooks)).double()))

    plain = difference()
    layers, heads = range(bridge.cfg.n_layers), range(bridge.cfg.n_heads)
    some = layers[:: options.every]
    found = {"layers": [*some], "text": TEXT, "answer": ANSWER, "against": ALTERNATIVE, "plain": round(plain, 6)}
    began = time.perf_counter()
    for how in ("zero", "mean"):
        found[f"heads {how}"] = [
            [round(difference([(f"blocks.{n}.attn.hook_z", part(how, head))]) - plain, 6) for head in heads]
            for n in some
        ]
    seconds = (time.perf_counter() - began) / 2
    for how in ("zero", "mean"):
        found[f"mlps {how}"] = [
            round(difference([(f"blocks.{n}.hook_mlp_out", whole(how))]) - plain, 6) for n in layers
        ]
    answer, other = (bridge.tokenizer(word, add_special_tokens=False).input_ids[-1] for word in (ANSWER, ALTERNATIVE))
    found |= attribution(bridge, ids, answer, other)
    (options.place / "transformerlens.json").write_text(json.dumps(found) + "\n", "utf-8")
    total = sum(found["attribution"].values())
    print(f"{plain:.4f}; {seconds:.1f} s for {len(some) * len(heads)} heads; the parts add up to {total:.4f}")


def patched(bridge, options) -> None:
    """Activation patching by its own functions, its gradients for attribution patching, path patching by its hooks."""
    (clean, measured), (corrupted, _) = asked(bridge), asked(bridge, CORRUPTED)
    some = range(bridge.cfg.n_layers)[:: options.every]
    with torch.no_grad():
        values = [float(measured(bridge(ids).double())) for ids in (clean, corrupted)]
        _, cache = bridge.run_with_cache(clean)
    found = {"layers": [*some], "text": TEXT, "corrupted text": CORRUPTED, "clean": values[0], "corrupted": values[1]}
    ways = {
        "residual": (patching.layer_pos_patch_setter, "resid_pre"),
        "attention": (patching.layer_pos_patch_setter, "attn_out"),
        "mlp": (patching.layer_pos_patch_setter, "mlp_out"),
        "heads": (patching.layer_head_vector_patch_setter, "z"),
        "patterns": (patching.layer_head_pattern_patch_setter, "pattern"),
    }
    began = time.perf_counter()
    for name, (setter, activation) in ways.items():
        across = range(clean.shape[1]) if activation.endswith(("pre", "out")) else range(bridge.cfg.n_heads)
        index = pd.DataFrame([(layer, place) for layer in some for place in across], columns=["layer", "place"])
        with torch.no_grad():
            measure = lambda logits: measured(logits.double())  # noqa: E731
            effects = patching.generic_activation_patch(
                bridge, corrupted, cache, measure, setter, activation, index_df=index
            )
        found[name] = rounded((effects - values[1]).view(len(some), -1))
    print(f"{time.perf_counter() - began:.0f} s for {len(some)} layers of all maps of patching")
    found["approximate"] = approximated(bridge, clean, corrupted, measured)
    found["paths"] = [
        {
            "sender": sender,
            "receiver": receiver,
            "effect": round(path(bridge, (clean, corrupted), measured, sender, receiver), 6),
        }
        for sender in SENDERS
        for receiver in RECEIVERS
    ]
    (options.place / "patching" / "transformerlens.json").write_text(json.dumps(found) + "\n", "utf-8")


def rounded(values: torch.Tensor) -> list:
    return [[round(float(value), 6) for value in row] for row in values]


def approximated(bridge, clean, corrupted, measured) -> dict[str, list]:
    """(clean − corrupted) · gradient in the corrupted run, at each block and position."""
    names = {"residual": "hook_resid_pre", "attention": "hook_attn_out", "mlp": "hook_mlp_out"}
    blocks = range(bridge.cfg.n_layers)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)
    kept = {}

    def keep(name):
        def look(x, hook):
            x.retain_grad()
            kept[name] = x

        return look

    wanted = [f"blocks.{n}.{name}" for n in blocks for name in names.values()]
    with bridge.hooks([(name, keep(name)) for name in wanted]):
        measured(bridge(corrupted)).backward()
    gaps = {name: ((cache[name] - x.detach()) * x.grad)[0].sum(-1) for name, x in kept.items()}
    bridge.zero_grad()
    return {kind: rounded(torch.stack([gaps[f"blocks.{n}.{at}"] for n in blocks])) for kind, at in names.items()}


def path(bridge, texts, measured, sender: tuple[int, int], receiver: tuple[str, int, int]) -> float:
    """One head to one input of another, all other heads held, MLPs free (Wang et al. 2023, §3.1)."""
    (clean, corrupted), (kind, layer, head) = texts, receiver
    reached = []

    def hold(name):
        def change(z, hook):
            z = kept[name].clone()
            if name == f"blocks.{sender[0]}.attn.hook_z":
                z[:, :, sender[1]] = other[name][:, :, sender[1]]
            return z

        return change

    def look(x, hook):
        reached.append((x[:, :, head] if x.ndim == 4 else x).clone())

    def give(x, hook):
        x = x.clone()
        x[:, :, head] = reached[0]
        return x

    with torch.no_grad():
        plain, kept = bridge.run_with_cache(clean)
        _, other = bridge.run_with_cache(corrupted)
        held = [(name, hold(name)) for n in range(bridge.cfg.n_layers) for name in [f"blocks.{n}.attn.hook_z"]]
        bridge.run_with_hooks(clean, fwd_hooks=[*held, (f"blocks.{layer}.attn.hook_{kind}", look)])
        changed = bridge.run_with_hooks(clean, fwd_hooks=[(f"blocks.{layer}.attn.hook_{kind}", give)])
    return float(measured(changed.double()) - measured(plain.double()))


def part(how: str, head: int):
    """One head of (B, T, H, D) silenced, or averaged over positions."""

    def change(z, hook):
        z = z.clone()
        z[:, :, head] = 0 if how == "zero" else z[:, :, head].mean(1, keepdim=True)
        return z

    return change


def whole(how: str):
    """The same of a whole write (B, T, C)."""
    return lambda x, hook: torch.zeros_like(x) if how == "zero" else x.mean(1, keepdim=True).expand_as(x)


def attribution(bridge, ids, answer: int, other: int) -> dict[str, dict[str, float]]:
    """The parts of the difference at the last token, with the final norm's scale held still."""
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids)
        direction = (bridge.W_U[:, answer] - bridge.W_U[:, other]) * bridge.ln_final.weight
        parts, labels = cache.decompose_resid(layer=-1, pos_slice=-1, return_labels=True)
        single, names = cache.stack_head_results(layer=-1, pos_slice=-1, return_labels=True)
        sides = []
        for stack, said in ((parts, labels), (single, names)):
            scaled = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1)[:, 0]
            sides.append({name: round(float(value), 6) for name, value in zip(said, scaled @ direction, strict=False)})
    return {"attribution": sides[0], "attribution of heads": sides[1]}


if __name__ == "__main__":
    main()
