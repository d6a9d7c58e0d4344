"""What interventions cost on SmolLM2-135M: ratios within one run, so that a busy machine changes little.

    python benchmarks/effects.py [NAME] [--alone 12]

- plain        one forward pass of the input
- heads        every head mean-ablated, in copies along the batch; beside it one by one, from a sample, and as many
               plain passes
- mlps         every MLP
- stream       a capture that reads the residual stream too, against a plain pass
- anatomy      finding and proving the stream, once a model
- peer         the same heads by TransformerLens 4, from a sample, where it can be imported and the model is one of
               Hugging Face's
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

from headwise import ablate, anatomy, capture, edits, load, rerun

TEXT = "When Mary and John went to the store, John gave a drink to the"
PEER = "transformer_lens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="smollm2-135m", help="a decoder that `load` knows")
    parser.add_argument("--alone", type=int, default=12, help="heads that are also removed one by one")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    subject = load(options.name)
    began = time.perf_counter()
    anatomy(subject)
    print(f"{subject.name}, {options.threads} threads; anatomy {time.perf_counter() - began:.2f} s, once")
    cap = capture(subject, TEXT)
    places = [(call.layer, head) for call in cap.stack() for head in range(call.heads)]
    sample = places[:: max(1, len(places) // options.alone)]

    def plain() -> None:
        with torch.no_grad():
            subject.module(**cap.inputs.kwargs)

    def median(work: Callable[[], object], times: int = 7) -> float:
        work()
        return statistics.median(seconds(work) for _ in range(times))

    one = median(plain)
    print(f"plain      {one:8.3f} s for {cap.find(0).queries} tokens; {len(places)} times {one * len(places):.1f} s")
    found = ablate(cap)  # warm
    batched = min(seconds(lambda: ablate(cap)) for _ in range(2))
    mean = [(edits.MeanHead(*place),) for place in sample]
    alone = statistics.mean(seconds(lambda e=e: rerun(cap, e).logits_at(-1)) for e in mean) * len(places)
    how = f"{found.attrs['way']}, {found.attrs['copies']} copies, off by {found.attrs['gap']:.0e}"
    print(f"heads      {batched:8.2f} s = {batched / one:.1f} × plain ({how})")
    print(f"one by one {alone:8.2f} s = {alone / one:.1f} × plain, {alone / batched:.1f} × heads")
    mlps = seconds(lambda: ablate(cap, "mlps"))
    print(f"mlps       {mlps:8.2f} s = {mlps / one:.1f} × plain")
    both = median(lambda: capture(subject, cap.inputs, stream=True))
    print(f"stream     {both:8.3f} s = {both / median(plain):.2f} × plain")
    if find_spec(PEER) and hasattr(subject.module, "config"):
        peer(subject, cap, sample, len(places), batched)


def peer(subject, cap, sample: list[tuple[int, int]], count: int, batched: float) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(subject.origin or subject.name, hf_model=subject.module, device="cpu")
    ids = cap.inputs.kwargs["input_ids"]

    def without(layer: int, head: int) -> None:
        def change(z, hook):
            z = z.clone()
            z[:, :, head] = z[:, :, head].mean(1, keepdim=True)
            return z

        with torch.no_grad():
            bridge.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", change)])

    without(*sample[0])
    all_of_them = statistics.mean(seconds(lambda p=p: without(*p)) for p in sample) * count
    print(f"peer       {all_of_them:8.2f} s = {all_of_them / batched:.1f} × heads")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
