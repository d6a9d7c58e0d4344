"""What TransformerLens 4 says of SmolLM2-135M: head and MLP ablations and direct logit attribution, for the tests.

    pip install transformer-lens==4.3.0      # in an environment of its own: it brings forty packages
    python benchmarks/transformerlens.py FOLDER [tests/interp/analysis/transformerlens.json]

FOLDER holds the checkpoint as Hugging Face saves it. The figures are the change of logit(" Mary") − logit(" John") at
the last token, and the parts of that difference.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = "When Mary and John went to the store, John gave a drink to"
ANSWER, ALTERNATIVE = " Mary", " John"
PLACE = Path(__file__).parents[1] / "tests/interp/analysis/transformerlens.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("place", nargs="?", default=PLACE, type=Path)
    parser.add_argument("--every", type=int, default=6, help="so many layers apart are those whose heads are ablated")
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32, attn_implementation="eager")
    words = AutoTokenizer.from_pretrained(options.folder)
    bridge = TransformerBridge.boot_transformers(options.folder, hf_model=model.eval(), tokenizer=words, device="cpu")
    ids = words(TEXT, return_tensors="pt").input_ids
    answer, other = (words(word).input_ids[-1] for word in (ANSWER, ALTERNATIVE))

    def difference(hooks=()) -> float:
        with torch.no_grad():
            row = bridge.run_with_hooks(ids, fwd_hooks=list(hooks))[0, -1].double()
        return float(row[answer] - row[other])

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
    found |= attribution(bridge, ids, answer, other)
    options.place.write_text(json.dumps(found) + "\n", "utf-8")
    total = sum(found["attribution"].values())
    print(f"{plain:.4f}; {seconds:.1f} s for {len(some) * len(heads)} heads; the parts add up to {total:.4f}")


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
