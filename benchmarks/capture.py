"""What a capture costs beside its peers: time and peak memory of one forward pass over a long real text.

    python benchmarks/capture.py FOLDER [--tokens 2048] [--repeats 3] [--text FILE] [--lens-python PATH]
    python benchmarks/capture.py FOLDER --tokens 8192      # capture only: eager would not fit

FOLDER is a Hugging Face decoder in safetensors (``headwise fetch smollm2-135m`` makes one). Each competitor runs
in a fresh process, in turns, so that its peak is its own; the table gives medians. Linux only: the peak is the kernel's
(VmHWM). Run it on a machine that does nothing else: threads that wait for a busy core multiply the seconds.

- plain      the forward pass alone, logits of the last position (``logits_to_keep=1``)
- headwise   ``headwise.capture``: q, k and v of every head kept, weights recomputed when looked at; logits of the last
             position computed, those of the others from the kept hidden states when looked at
- eager      Hugging Face ``output_attentions=True``, which keeps every weight
- lens       TransformerLens ≥ 4, patterns only, when the python of ``--lens-python`` (or this one) has it
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PEERS = ("plain", "headwise", "eager", "lens")
TIME_LIMIT = 1.05  # × plain, wanted of headwise
MEMORY_LIMIT = 250  # MiB, wanted of headwise's peak beyond plain's and the q, k and v that it keeps


def token_ids(folder: Path, text: str, tokens: int):
    """(1, tokens) ids of a real text, said again from its start where it is too short."""
    import torch
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    return torch.tensor([(ids * -(-tokens // len(ids)))[:tokens]])


def load(folder: Path, **options):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval().requires_grad_(False)


def plain(folder: Path):
    model = load(folder)
    return lambda ids: {"output": model(ids, logits_to_keep=1)}


def headwise(folder: Path):
    from headwise import capture, wrap

    model = load(folder)
    subject = wrap(model, kind="decoder", name=folder.name)

    def run(ids):
        cap = capture(subject, ids)
        heads = {(c.heads, c.kv_heads) for c in cap.calls}
        return {"output": cap, "kept": cap.nbytes, "calls": len(cap.calls), "heads": sorted(heads)}

    return run


def eager(folder: Path):
    model = load(folder, attn_implementation="eager")
    return lambda ids: {"output": model(ids, output_attentions=True)}


def lens(folder: Path):
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    bridge = TransformerBridge.boot_transformers(
        str(folder),
        hf_model=load(folder, attn_implementation="eager"),
        tokenizer=AutoTokenizer.from_pretrained(folder),
    )
    return lambda ids: {"output": bridge.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_pattern"))}


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (the most since the last reset) of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure(peer: str, folder: Path, text: str, tokens: int) -> dict:
    import torch

    run = {"plain": plain, "headwise": headwise, "eager": eager, "lens": lens}[peer](folder)
    ids = token_ids(folder, text, tokens)
    with torch.no_grad():
        run(ids[:, :64])  # the first run pays for imports and allocations
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
        start = time.perf_counter()
        result = run(ids)
        seconds = time.perf_counter() - start
    result.pop("output")
    return {"seconds": seconds, "peak": resident("VmHWM") - before, **result}


def in_fresh_process(peer: str, options: argparse.Namespace) -> dict | None:
    python = options.lens_python if peer == "lens" else sys.executable
    command = [
        python,
        __file__,
        str(options.folder),
        "--one",
        peer,
        "--tokens",
        str(options.tokens),
        "--text",
        str(options.text),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    print(f"{peer}: no result – {(done.stderr.strip().splitlines() or ['ended without a word'])[-1]}")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--text", type=Path, help="a text file; without it, a State of the Union speech")
    parser.add_argument("--lens-python", default=sys.executable, help="a python that has transformer-lens")
    parser.add_argument("--peers", nargs="+", choices=PEERS[1:], help="beside plain")
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.text is None:
        from headwise.models.recipes.data import load_speeches

        options.text = Path(tempfile.mkdtemp(), "speech.txt")
        options.text.write_text(max(load_speeches()[0], key=len), encoding="utf-8")
    if options.one:
        print(
            json.dumps(measure(options.one, options.folder, options.text.read_text(encoding="utf-8"), options.tokens))
        )
        return
    config = json.loads((options.folder / "config.json").read_text())
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    whole = layers * heads * options.tokens**2 * 4
    print(f"{options.folder.name}, {options.tokens} tokens; all weights of all heads: "
          f"{layers} × {heads} × {options.tokens}² × 4 B = {gib(whole)}")  # fmt: skip
    peers = ("plain", *(options.peers or (PEERS[1:] if options.tokens <= 4096 else ("headwise",))))
    if "eager" not in peers:
        print("eager and lens are left out: they would keep all of that")
    runs: dict[str, list[dict]] = {peer: [] for peer in peers}
    for _ in range(options.repeats):
        for peer in peers:
            if (result := in_fresh_process(peer, options)) is not None:
                runs[peer].append(result)
                print(f"  {peer}: {result['seconds']:.2f} s, {gib(result['peak'])}", file=sys.stderr)
    report({peer: results for peer, results in runs.items() if results})


def report(runs: dict[str, list[dict]]) -> None:
    middle = {
        peer: {what: statistics.median(r[what] for r in results) for what in ("seconds", "peak")}
        for peer, results in runs.items()
    }
    base = middle["plain"]
    print(f"{'':10} {'seconds':>8} {'× plain':>8} {'peak':>10} {'over plain':>11}")
    for peer, row in middle.items():
        print(f"{peer:10} {row['seconds']:8.2f} {row['seconds'] / base['seconds']:8.2f} {gib(row['peak']):>10} "
              f"{gib(row['peak'] - base['peak']):>11}")  # fmt: skip
    if "headwise" in runs:
        kept = runs["headwise"][0]["kept"]
        slower = middle["headwise"]["seconds"] / base["seconds"]
        extra = (middle["headwise"]["peak"] - base["peak"] - kept) / 2**20
        print(f"headwise keeps q, k, v: {gib(kept)} of {runs['headwise'][0]['calls']} calls")
        for what, ratio, limit in (
            ("time × plain", slower, TIME_LIMIT),
            ("peak beyond plain and kept, MiB", extra, MEMORY_LIMIT),
        ):
            print(f"{what}: {ratio:.2f}, wanted ≤ {limit:.2f}: {'met' if ratio <= limit else 'MISSED'}")


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


if __name__ == "__main__":
    main()
