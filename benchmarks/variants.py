"""What each mechanism costs as texts grow, beside full attention and beside the public implementation of the same.

    python benchmarks/variants.py [--lengths 256 512 … 16384] [--only longformer …] [--json FILE]

One layer of attention with its projections, one text, one thread: seconds of the processor, the best of several runs,
and the memory that torch holds at the peak beyond what was there before. Cells are measured one after another: on a
machine whose speed drifts (a shared one, by a factor of two within minutes) slopes and ratios drift with it. Slopes are
the exponents of time, fitted from 1,024 tokens on. The public ones need ``transformers``, ``performer-pytorch``,
``reformer-pytorch``, ``local-attention`` and ``pytorch-transformers`` (1.2.0, without its dependencies, with
``sacremoses``); what is not installed is left out and named. Sparse Transformer has no public implementation here that
runs without a GPU.

Settings are those of both sides alike: width 256, 4 heads; windows of 128 tokens, blocks of 64, 128 random features,
chunks of 64 in 4 rounds, segments and memory of 128, a stride of √n.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from headwise.models.variants import mechanism  # noqa: E402
from headwise.models.variants.peak import peak_bytes  # noqa: E402
from headwise.models.variants.xlnet import TwoStream, streams  # noqa: E402

WIDTH, HEADS = 256, 4
WINDOW, BLOCK, FEATURES, CHUNK, ROUNDS, SEGMENT = 128, 64, 128, 64, 4, 128
LENGTHS = tuple(2**power for power in range(8, 15))
FITTED = 1024  # tokens from which slopes are fitted
COMPARED = 4096  # tokens at which ours is held against theirs
ENOUGH = 2.0  # seconds of runs of one cell
SQUARE_MEMORY = 4096  # tokens beyond which what keeps n × n scores is not tried

Attend = Callable[[Tensor], object]  # x (1, n, C) → …


@dataclass(frozen=True)
class Entry:
    """``make(n)`` is the layer for texts of n tokens; ``beside`` names ours that a public one is held against;
    ``expected`` is the exponent of time that the paper gives; ``most`` tokens are tried."""

    make: Callable[[int], Attend]
    expected: float | None = None
    beside: str = ""
    most: int = LENGTHS[-1]


def ours(name: str, causal: bool = True, **options) -> Callable[[int], Attend]:
    def make(length: int) -> Attend:
        known = {key: value(length) if callable(value) else value for key, value in options.items()}
        layer = mechanism(name)(WIDTH, HEADS, **known).eval()
        return lambda x: layer(x, causal=causal)

    return make


def two_streams(length: int) -> Attend:
    layer, seen = TwoStream(WIDTH, HEADS).eval(), streams(None)
    return lambda x: layer(x, x, seen)


# -- the public ones ------------------------------------------------------------------------------------------------


def their_longformer(length: int) -> Attend:
    from transformers.models.longformer.modeling_longformer import LongformerConfig, LongformerSelfAttention

    config = LongformerConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, attention_window=[2 * WINDOW], attention_probs_dropout_prob=0.0
    )
    layer = LongformerSelfAttention(config, 0).eval()
    mask = torch.zeros(1, length)
    mask[:, 0] = 10_000.0  # the global token
    flags = {"is_index_masked": mask < 0, "is_index_global_attn": mask > 0, "is_global_attn": True}
    return lambda x: layer(x, mask, **flags)


def their_bigbird(length: int) -> Attend:
    from transformers.models.big_bird.modeling_big_bird import (
        BigBirdBlockSparseAttention,
        BigBirdConfig,
        BigBirdModel,
    )

    config = BigBirdConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, block_size=BLOCK, num_random_blocks=3,
        max_position_embeddings=length,
    )  # fmt: skip
    layer = BigBirdBlockSparseAttention(config, seed=0).eval()
    blocked, band, first, to = BigBirdModel.create_masks_for_block_sparse_attn(torch.ones(1, length), BLOCK)
    return lambda x: layer(x, band, first, to, blocked, blocked)


def their_performer(length: int) -> Attend:
    from performer_pytorch import SelfAttention

    return SelfAttention(WIDTH, causal=True, heads=HEADS, dim_head=WIDTH // HEADS, nb_features=FEATURES).eval()


def their_reformer(length: int) -> Attend:
    from reformer_pytorch import LSHSelfAttention

    return LSHSelfAttention(WIDTH, HEADS, bucket_size=CHUNK, n_hashes=ROUNDS, causal=True).eval()


def their_window(length: int) -> Attend:
    from local_attention import LocalAttention

    layer = LocalAttention(WINDOW, causal=True, look_backward=1, exact_windowsize=True, use_rotary_pos_emb=False).eval()
    maps = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def attend(x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in maps[:3])
        return maps[3](layer(q, k, v).transpose(1, 2).flatten(2))

    return attend


def their_transformer_xl(length: int) -> Attend:
    from pytorch_transformers.modeling_transfo_xl import PositionalEmbedding, RelPartialLearnableMultiHeadAttn

    biases = {"r_r_bias": nn.Parameter(torch.zeros(HEADS, WIDTH // HEADS))}
    biases["r_w_bias"] = nn.Parameter(torch.zeros(HEADS, WIDTH // HEADS))
    layer = RelPartialLearnableMultiHeadAttn(HEADS, WIDTH, WIDTH // HEADS, dropout=0.0, pre_lnorm=False, **biases)
    reach = PositionalEmbedding(WIDTH)(torch.arange(2 * SEGMENT - 1, -1, -1.0))
    later = torch.ones(SEGMENT, 2 * SEGMENT, dtype=torch.uint8).triu(1 + SEGMENT)[:, :, None].bool()

    def attend(x: Tensor) -> list[Tensor]:
        outs, memory = [], torch.zeros(SEGMENT, 1, WIDTH)
        for segment in x.transpose(0, 1).split(SEGMENT):  # time comes first
            outs.append(layer.eval()(segment, reach, attn_mask=later, mems=memory)[0])
            memory = segment
        return outs

    return attend


def their_xlnet(length: int) -> Attend:
    from transformers.models.xlnet.modeling_xlnet import XLNetConfig, XLNetModel, XLNetRelativeAttention

    config = XLNetConfig(d_model=WIDTH, n_head=HEADS, d_inner=4, n_layer=1, vocab_size=8, dropout=0.0)
    layer = XLNetRelativeAttention(config).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.02)
    reach = XLNetModel(config).relative_positional_encoding(length, length, bsz=1)
    hidden = torch.ones(length, length).triu()[:, :, None, None]
    own = hidden - torch.eye(length)[:, :, None, None]

    def attend(x: Tensor):
        x = x.transpose(0, 1)
        return layer(x, x, own, hidden, reach, None)

    return attend


ENTRIES = {
    "full": Entry(ours("full"), 2),
    "longformer, both ways": Entry(ours("longformer", False, window=WINDOW, globals=1), 1),
    "  Longformer of transformers": Entry(their_longformer, beside="longformer, both ways"),
    "longformer, causal": Entry(ours("longformer", window=WINDOW), 1),
    "  local-attention": Entry(their_window, beside="longformer, causal"),
    "bigbird, both ways": Entry(ours("bigbird", False, block=BLOCK, window=1, globals=1, random=3, seed=0), 1),
    "  BigBird of transformers": Entry(their_bigbird, beside="bigbird, both ways"),
    "sparse, strided": Entry(ours("sparse", stride=math.isqrt), 1.5),
    "sparse, fixed": Entry(ours("sparse", stride=math.isqrt, kind="fixed"), 1.5),
    "performer": Entry(ours("performer", features=FEATURES), 1),
    "  performer-pytorch": Entry(their_performer, beside="performer"),
    "reformer": Entry(ours("reformer", buckets=lambda n: max(2, n // CHUNK), rounds=ROUNDS, chunk=CHUNK), 1),
    "reformer, as published": Entry(
        ours("reformer", buckets=lambda n: max(2, n // CHUNK), rounds=ROUNDS, chunk=CHUNK, published=True), 1
    ),
    "  reformer-pytorch": Entry(their_reformer, beside="reformer, as published"),
    "transformer-xl": Entry(ours("transformer_xl", segment=SEGMENT, memory=SEGMENT), 1),
    "  pytorch-transformers": Entry(their_transformer_xl, beside="transformer-xl"),
    "xlnet, two streams": Entry(two_streams, 2, most=SQUARE_MEMORY),
    "  XLNet of transformers": Entry(their_xlnet, beside="xlnet, two streams", most=SQUARE_MEMORY),
}


# -- what is measured -----------------------------------------------------------------------------------------------


@torch.no_grad()
def cell(entry: Entry, length: int) -> dict[str, float]:
    """Seconds and bytes of one layer over one text."""
    torch.manual_seed(0)
    attend, x = entry.make(length), torch.randn(1, length, WIDTH)
    attend(x)
    seconds, began = [], time.process_time()
    while not seconds or (time.process_time() - began < ENOUGH and len(seconds) < 7):
        start = time.process_time()
        attend(x)
        seconds.append(time.process_time() - start)
    return {"seconds": min(seconds), "bytes": peak_bytes(lambda: attend(x))}


def measured(names: list[str], lengths: list[int]) -> Iterator[tuple[str, int, dict[str, float]]]:
    for name in names:
        for length in lengths:
            if length > ENTRIES[name].most:
                continue
            try:
                yield name, length, cell(ENTRIES[name], length)
            except ImportError as error:
                print(f"{name.strip()} is left out: {error}", file=sys.stderr)
                break


def slope(cells: dict[int, dict[str, float]]) -> float | None:
    """The exponent of time in the length."""
    long = [(n, found["seconds"]) for n, found in cells.items() if n >= FITTED]
    return float(np.polyfit(*np.log(long).T, 1)[0]) if len(long) > 1 else None


def table(found: dict[str, dict[int, dict[str, float]]], lengths: list[int]) -> str:
    """Markdown: milliseconds and MiB, the slope and what the paper says, and how ours compares with theirs."""
    heads = ["", *(f"{n:,}" for n in lengths), "slope", "paper", f"theirs / ours at {COMPARED:,}"]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name, cells in found.items():
        entry, row = ENTRIES[name], [name.replace("  ", "&nbsp;&nbsp;", 1)]
        for n in lengths:
            one = cells.get(n)
            row.append(f"{one['seconds'] * 1e3:,.1f} ms, {one['bytes'] / 2**20:,.0f} MiB" if one else "–")
        fitted = slope(cells)
        row += ["–" if fitted is None else f"{fitted:.2f}", "" if entry.expected is None else f"{entry.expected:g}"]
        mine = found.get(entry.beside, {}).get(COMPARED)
        row.append(f"{cells[COMPARED]['seconds'] / mine['seconds']:.2f}" if mine and COMPARED in cells else "")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--only", nargs="+", help="begin with one of these words", metavar="NAME")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = tuple(arguments.only or ("",))
    names = [name for name, entry in ENTRIES.items() if name.startswith(chosen) or entry.beside.startswith(chosen)]
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name, length, one in measured(names, arguments.lengths):
        found.setdefault(name, {})[length] = one
        print(f"{name.strip():<28} {length:>6,} {one['seconds'] * 1e3:>10,.1f} ms", file=sys.stderr, flush=True)
    print(table(found, arguments.lengths))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
