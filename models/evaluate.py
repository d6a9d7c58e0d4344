"""Measure a bundled model on held-out speeches: `python -m models.evaluate tiny-decoder`.

Prints the loss beside that of a Kneser–Ney trigram model trained on the same tokens, and the best
previous-token and induction heads (Olsson et al. 2022, "In-context Learning and Induction Heads").
"""

import argparse
from collections import Counter
from math import log
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from .bundled import BUNDLED, load_bundled
from .data import END_OF_TEXT, SPEECHES_SHA256, load_speeches, token_stream
from .decoder import Decoder


@torch.no_grad()
def attention_weights(model: Decoder, input_ids: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √D) under the causal mask, from the model's q and k. (B, T) → (L, B, H, T, T)."""
    x, positions, mask = model.embed(input_ids)
    future = torch.ones(input_ids.shape[1], input_ids.shape[1], dtype=torch.bool).triu(1)  # (T, T)
    weights = []
    for block in model.blocks:
        q, k, _ = block.attention.project(block.attention_norm(x), positions)
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf)  # (B, H, T, T)
        weights.append(scores.softmax(-1))
        x = block(x, positions, mask)
    return torch.stack(weights)


def repeated_random(vocab_size: int, length: int, seeds: range, bos: int) -> Tensor:
    """[bos] + r + r, with r drawn uniformly from the other tokens; one row per seed, (B, 1 + 2·length)."""
    rows = []
    for seed in seeds:
        r = torch.randint(vocab_size - 1, (length,), generator=torch.Generator().manual_seed(seed))
        r = r + (r >= bos)  # skip bos
        rows.append(torch.cat([torch.tensor([bos]), r, r]))
    return torch.stack(rows)


def head_scores(model: Decoder, bos: int, length: int = 64, seeds: range = range(8)) -> tuple[Tensor, Tensor]:
    """(previous-token scores, induction scores), each (L, H): mean attention on [bos] + r + r, |r| = length.

    previous-token: from every position t ≥ 1 to t − 1.
    induction: from t in the second copy to t − (|r| − 1), the token after the earlier occurrence of token t.
    """
    weights = attention_weights(model, repeated_random(model.config.vocab_size, length, seeds, bos))
    previous = weights.diagonal(-1, dim1=-2, dim2=-1).mean((1, 3))  # (L, B, H, T−1) → (L, H)
    induction = weights.diagonal(1 - length, dim1=-2, dim2=-1)  # entry c is query c + |r| − 1, key c
    return previous, induction[..., 2:].mean((1, 3))  # the second copy starts at query |r| + 1


def best_head(scores: Tensor) -> tuple[int, int, float]:
    """scores (L, H) → (layer, head, score) of the highest."""
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return layer, head, float(scores[layer, head])


@torch.no_grad()
def token_losses(model: Decoder, ids: list[int], window: int) -> Tensor:
    """Loss in nats of each next token, (number of windows, window); the tail that fills no window is left."""
    count = (len(ids) - 1) // window
    ids = torch.tensor(ids[: count * window + 1])
    inputs, targets = ids[:-1].view(count, window), ids[1:].view(count, window)
    losses = []
    for x, y in zip(inputs.split(max(1, 4096 // window)), targets.split(max(1, 4096 // window)), strict=True):
        losses.append(F.cross_entropy(model(x).mT, y, reduction="none"))  # (B, V, T), (B, T) → (B, T)
    return torch.cat(losses)


class KneserNeyTrigram:
    """Interpolated Kneser–Ney (Kneser & Ney 1995; Chen & Goodman 1999, section 2.7): one discount per order.

    P(w | uv) = max(c(uvw) − d, 0) / c(uv·) + d N(uv·) / c(uv·) · P(w | v), with N(uv·) the number of
    different tokens seen after uv and d = n₁ / (n₁ + 2 n₂) from the n₁ grams seen once and the n₂ seen twice.
    In the lower orders, N(·vw), the number of different tokens seen before vw, stands for the count.
    Below the unigrams: 1 / V.
    """

    def __init__(self, ids: list[int], vocab_size: int):
        trigrams = Counter(zip(ids, ids[1:], ids[2:], strict=False))
        bigrams = Counter(gram[1:] for gram in trigrams)  # N(·vw)
        unigrams = Counter(gram[1:] for gram in bigrams)  # N(·w)
        self.vocab_size = vocab_size
        self.orders = []
        for grams in (unigrams, bigrams, trigrams):
            seen = Counter(grams.values())
            discount = seen[1] / max(1, seen[1] + 2 * seen[2])
            total, followers = Counter(), Counter(gram[:-1] for gram in grams)
            for gram, count in grams.items():
                total[gram[:-1]] += count
            self.orders.append((grams, discount, total, followers))

    def probability(self, u: int, v: int, w: int) -> float:
        """P(w | uv)."""
        p = 1 / self.vocab_size
        for length, (grams, discount, total, followers) in enumerate(self.orders, 1):
            gram = (u, v, w)[-length:]
            if count := total[gram[:-1]]:  # an unseen context leaves the lower order's estimate
                p = (max(grams[gram] - discount, 0) + discount * followers[gram[:-1]] * p) / count
        return p

    def loss(self, ids: list[int]) -> float:
        """Mean nats per token, from the third token on."""
        return -fmean(log(self.probability(*gram)) for gram in zip(ids, ids[1:], ids[2:], strict=False))


def report(name: str, seed: int = 1000) -> str:
    """Every figure below is computed here and now; nothing is remembered from training."""
    model, tokenizer, _ = load_bundled(name)
    bos = tokenizer.token_to_id(END_OF_TEXT)
    training, held_out = load_speeches()
    stream = token_stream(tokenizer, held_out)
    bytes_per_token = sum(len(speech.encode()) for speech in held_out) / (len(stream) - len(held_out))

    def both(nats):
        return f"{nats:.4f} nats/token  {nats / log(2) / bytes_per_token:.4f} bits/byte"

    by_256, by_2048 = token_losses(model, stream, 256), token_losses(model, stream, 2048)
    trigram = KneserNeyTrigram(token_stream(tokenizer, training), model.config.vocab_size).loss(stream)
    lines = [
        f"speeches, sha256        {SPEECHES_SHA256} (checked)",
        f"held out                {len(held_out)} speeches, {len(stream):,} tokens",
        f"bytes per token         {bytes_per_token:.3f}",
        f"parameters              {sum(p.numel() for p in model.parameters()):,}",
        f"loss, 256 tokens        {both(float(by_256.mean()))}",
        f"loss, 2,048 tokens      {both(float(by_2048.mean()))}",
        f"  at 128–256            {both(float(by_2048[:, 128:256].mean()))}",
        f"  at 1,024–2,048        {both(float(by_2048[:, 1024:].mean()))}",
        f"Kneser–Ney trigram      {both(trigram)}",
        f"repeated random tokens  [bos] + r + r, |r| = 64, seeds {seed} to {seed + 7}",
    ]
    both_scores = head_scores(model, bos, seeds=range(seed, seed + 8))
    for what, scores in zip(("previous-token", "induction"), both_scores, strict=True):
        layer, head, score = best_head(scores)
        lines.append(f"  best {what:<17}{score:.3f} at layer {layer}, head {head}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m models.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(BUNDLED))
    parser.add_argument("--seed", type=int, default=1000, help="first of the 8 seeds of the random tokens")
    options = parser.parse_args(arguments)
    print(report(options.name, options.seed))


if __name__ == "__main__":
    main()
