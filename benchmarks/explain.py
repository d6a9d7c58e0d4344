"""What explanations cost on SmolLM2-135M: ratios within one run, so that a busy machine changes little.

    python benchmarks/explain.py [NAME] [--alone 12]

- plain        one forward pass of the clean prompt
- patching     the residual stream, attentions and MLPs, block × position, exactly
- alone        the same one run at a time, from a sample
- estimated    the same by attribution patching, and how close it comes to the exact effects
- peer         the same by TransformerLens 4's hooks, from a sample, where it can be imported
- gradients    integrated gradients of the answer, beside Captum's LayerIntegratedGradients called by hand
- graph        the path graph of the answer
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from headwise import attribute, capture, edits, load, patch, rerun
from headwise.interp.analysis.patching import closeness
from headwise.interp.analysis.targets import target

CLEAN = "When Mary and John went to the store today, John gave a drink to"
CORRUPTED = "When Mary and John went to the store today, Mary gave a drink to"
KINDS = {"residual": "hook_resid_pre", "attention": "hook_attn_out", "mlp": "hook_mlp_out"}
PEER = "transformer_lens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="smollm2-135m", help="a decoder that `load` knows")
    parser.add_argument("--alone", type=int, default=12, help="runs of those that are also made one by one")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    subject = load(options.name)
    clean, corrupted = (capture(subject, text) for text in (CLEAN, CORRUPTED))
    aim = target(clean, " Mary", " John")
    clean.anatomy  # noqa: B018 -- found once a model

    def plain() -> None:
        with torch.no_grad():
            subject.module(**clean.inputs.kwargs)

    plain()
    one = statistics.median(seconds(plain) for _ in range(7))
    tokens = clean.find(0).queries
    print(f"{subject.name}, {options.threads} threads, {tokens} tokens")
    print(f"plain      {one:8.3f} s")
    exact, estimated = {}, {}
    spent = {kind: seconds(lambda k=kind: exact.update({k: patch(clean, corrupted, k, aim)})) for kind in KINDS}
    runs, total = sum(len(table) for table in exact.values()), sum(spent.values())
    told = ", ".join(f"{kind} {spent[kind]:.1f} s" for kind in KINDS)
    print(f"patching   {total:8.2f} s = {total / one:.0f} × plain for {runs} effects ({told})")
    made = sum(len(table) for table in exact.values() if table.attrs["runs"])
    sample = exact["residual"].iloc[:: max(1, len(exact["residual"]) // options.alone)]
    alone = statistics.mean(seconds(lambda row=row: single(clean, corrupted, row)) for row in sample.itertuples())
    print(f"alone      {alone * made:8.2f} s = {alone * made / total:.1f} × patching")
    quick = seconds(lambda: [estimated.update({k: patch(clean, corrupted, k, aim, approximate=True)}) for k in KINDS])
    close = ", ".join(f"{kind} {closeness(exact[kind], estimated[kind]).correlation:.2f}" for kind in KINDS)
    print(f"estimated  {quick:8.2f} s, patching takes {total / quick:.0f} ×; correlation {close}")
    if find_spec(PEER) and hasattr(subject.module, "config"):
        peer(subject, clean, corrupted, aim, options.alone, total)
    gradients(subject, clean, aim)


def single(clean, corrupted, row) -> float:
    """One state of the corrupted run replaced by that of the clean one, in a run of its own."""
    site = edits.Residual(int(row.block))
    changed = rerun(corrupted, [edits.Resample(site, clean, positions=int(row.position))])
    return float(changed.logits_at(-1)[0, 0])


def gradients(subject, cap, aim) -> None:
    from captum.attr import LayerIntegratedGradients

    ours = min(seconds(lambda: attribute(subject, cap.inputs, "integrated gradients", aim)) for _ in range(2))
    ids = cap.inputs.kwargs["input_ids"]
    table = subject.module.get_input_embeddings()
    method = LayerIntegratedGradients(lambda x: aim.measured(subject.module(x).logits), table)
    ids, base = ids.clone(), torch.zeros_like(ids)
    by_hand = min(seconds(lambda: method.attribute(ids, base, n_steps=64, internal_batch_size=8)) for _ in range(2))
    print(f"gradients  {ours:8.2f} s, Captum by hand {by_hand:.2f} s = {by_hand / ours:.2f} ×")


def peer(subject, clean, corrupted, aim, count: int, ours: float) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(subject.origin or subject.name, hf_model=subject.module, device="cpu")
    given, run = (cap.inputs.kwargs["input_ids"] for cap in (clean, corrupted))
    with torch.no_grad():
        _, cache = bridge.run_with_cache(given)
    layers, positions = bridge.cfg.n_layers, given.shape[1]
    places = [(name, layer, at) for name in KINDS.values() for layer in range(layers) for at in range(positions)]

    def patched(name: str, layer: int, at: int) -> None:
        place = f"blocks.{layer}.{name}"

        def change(x, hook):
            x = x.clone()
            x[:, at] = cache[place][:, at]
            return x

        with torch.no_grad():
            aim.measured(bridge.run_with_hooks(run, fwd_hooks=[(place, change)]))

    patched(*places[0])
    sample = places[:: max(1, len(places) // count)]
    all_of_them = statistics.mean(seconds(lambda p=p: patched(*p)) for p in sample) * len(places)
    print(f"peer       {all_of_them:8.2f} s = {all_of_them / ours:.1f} × patching")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
