"""What the recipes of language models share: windows of text, repeated random tokens, losses, head scores, baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import log
from pathlib import Path
from statistics import fmean

import pandas as pd
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from headwise.interp.analysis.metrics import Induction, ToPrevious, repeated_random, sweep
from headwise.interp.run.capture import capture
from headwise.interp.subject import Inputs, Subject
from headwise.models import wrap
from headwise.models.architectures.attention_only import AttentionOnly
from headwise.models.architectures.blocks import Attention, rotate
from headwise.models.architectures.decoder import Decoder
from headwise.models.architectures.variant import VariantDecoder
from headwise.models.inputs.tokens import END_OF_TEXT
from headwise.models.recipes.training import Recipe, Training

ARCHITECTURES = {Decoder: "decoder", AttentionOnly: "attention-only", VariantDecoder: "variant"}
IGNORE = -100  # F.cross_entropy leaves these targets out


# -- what a language model learns from ------------------------------------------------------------------------------


def speech_window(stream: Tensor, length: int, bos: int, generator: torch.Generator) -> Tensor:
    """`length` successive tokens; half of the windows begin with bos, so inputs may or may not."""
    start = int(torch.randint(len(stream) - length, (), generator=generator))
    window = stream[start : start + length].clone()
    if torch.rand((), generator=generator) < 0.5:
        window[0] = bos
    return window


def random_window(vocab_size: int, length: int, bos: int, generator: torch.Generator):
    """A block of uniformly random tokens over and over → (window, targets); the first copy is no target."""
    shortest, longest = 12, min(length // 2, 512)
    size = int(shortest * (longest / shortest) ** torch.rand((), generator=generator))  # log-uniform
    block = torch.randint(vocab_size, (size,), generator=generator)
    window = block.repeat(length // size + 1)[:length]
    if torch.rand((), generator=generator) < 0.5:
        window = torch.cat([torch.tensor([bos]), window[:-1]])
    targets = window[1:].clone()
    targets[: size + 1] = IGNORE  # to the second copy's first token, which only the size foretells
    return window[:-1], targets


# -- how it starts and learns ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LanguageRecipe(Recipe):
    vector_lr: float = 0.003  # biases and gains
    offset_lr: float = 0.02  # biases of q and k: with rotary positions a sharp offset needs large ones
    offset_strength: float = 2.0  # see prefer_offsets


@torch.no_grad()
def prefer_offsets(attention: Attention, strength: float) -> None:
    """Start head h with a preference for the token h + 1 positions back, to be kept or lost in training.

    With rotary positions a head finds an offset through its query and key biases, the part of q and k that
    all tokens share; both at zero would be a saddle: neither has a gradient while the other is zero.
    Let k's bias be b in the first feature of every pair, and q's the same turned back by the offset. Then the
    scores are b²/√D · Σᵢ cos(θᵢ (distance − offset)), highest at the offset; `strength` is b²/√D.
    ALiBi (Press et al. 2022) likewise gives each head its distance.
    """
    heads = attention.heads
    bias = torch.zeros(1, heads, 1, attention.key.out_features // heads)  # (1, H, 1, D)
    bias[..., : bias.shape[-1] // 2] = (strength * bias.shape[-1] ** 0.5) ** 0.5
    attention.key.bias.copy_(bias.flatten())
    for head in range(heads):
        bias[:, head] = rotate(bias[:, head : head + 1], torch.tensor([[-head - 1]]))[:, 0]
    attention.query.bias.copy_(bias.flatten())


def make_optimizers(model: nn.Module, recipe: LanguageRecipe) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices, AdamW for what has a row a token, for biases, gains and what a mechanism learns beside
    its maps, and for the biases of q and k."""
    tokens = [p for p in model.parameters() if p.ndim == 2 and p.shape[0] == model.config.vocab_size]
    maps = [part.weight for part in model.modules() if isinstance(part, nn.Linear)]
    maps += [p for part in model.modules() if isinstance(part, nn.LSTM) for p in part.parameters() if p.ndim == 2]
    matrices = [p for p in maps if p.shape[0] != model.config.vocab_size]
    offsets = [p for name, p in model.named_parameters() if name.endswith(("query.bias", "key.bias"))]
    known = {id(p) for p in (*tokens, *matrices, *offsets)}
    others = [p for p in model.parameters() if id(p) not in known]
    rates = ((tokens, recipe.other_lr), (others, recipe.vector_lr), (offsets, recipe.offset_lr))
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_lr, weight_decay=recipe.weight_decay),
        *(torch.optim.AdamW(some, lr=lr, betas=(0.9, 0.95), weight_decay=0) for some, lr in rates if some),
    ]


def language_training(
    recipe: LanguageRecipe,
    model: nn.Module,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    tokenizer: Tokenizer,
    held_out: Tensor,
    card: str,
) -> Training:
    """What a decoder's training is, whatever its windows: cross-entropy of the next token, Muon, the heads on the
    way."""

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE)

    return Training(
        recipe,
        model,
        {"architecture": ARCHITECTURES[type(model)], **asdict(model.config)},
        batch,
        loss,
        lambda: head_progress(model, held_out, tokenizer.token_to_id(END_OF_TEXT)),
        card,
        _saving(model, tokenizer),
        make_optimizers(model, recipe),
    )


def _saving(model: nn.Module, tokenizer: Tokenizer) -> Callable[[Path], None]:
    """The tokenizer is tiny-decoder's, and stands in its folder alone."""
    own = isinstance(model, Decoder)
    return lambda folder: tokenizer.save(str(folder / "tokenizer.json")) if own else None


# -- heads ----------------------------------------------------------------------------------------------------------


def head_table(model: nn.Module, bos: int, length: int = 64, batch: int = 8, seed: int = 0) -> pd.DataFrame:
    """Previous-token and induction score of every head on repeated random tokens (``headwise.interp.analysis.metrics``
    defines both, and the text) → columns layer, head, previous, induction."""
    subject, inputs, start = _repeated(model, bos, length, batch, seed)
    return sweep(capture(subject, inputs), [ToPrevious, partial(Induction, start, length)])


def _repeated(model: nn.Module, bos: int, length: int, batch: int, seed: int) -> tuple[Subject, Inputs, int]:
    subject = replace(wrap(model, kind="decoder"), vocab_size=model.config.vocab_size, bos=bos)
    return subject, *repeated_random(subject, length, batch, seed)


def best_head(table: pd.DataFrame, metric: str) -> tuple[int, int, float]:
    """(layer, head, score) of the highest."""
    best = table.loc[table[metric].idxmax()]
    return int(best["layer"]), int(best["head"]), float(best[metric])


def head_lines(model: nn.Module, bos: int, seed: int) -> list[str]:
    """The best heads on repeated random tokens, for a report."""
    lines = [f"repeated random tokens  [bos] + r + r, |r| = 64, seeds {seed} to {seed + 7}"]
    table = head_table(model, bos, seed=seed)
    for what, metric in (("previous-token", "previous"), ("induction", "induction")):
        layer, head, score = best_head(table, metric)
        lines.append(f"  best {what:<17}{score:.3f} at layer {layer}, head {head}")
    return lines


@torch.no_grad()
def head_progress(model: nn.Module, stream: Tensor, bos: int) -> str:
    """Cheap figures on the way: loss on 8,192 held-out tokens, best heads on two random sequences."""
    loss = token_losses(model, stream[:8193].tolist(), 256).mean()
    random = _repeated(model, bos, 64, batch=2, seed=0)[1].kwargs["input_ids"]
    copied = F.cross_entropy(model(random)[:, 65:-1].mT, random[:, 66:])
    table = head_table(model, bos, batch=2)
    heads = (best_head(table, metric) for metric in ("previous", "induction"))
    previous, induction = (f"{score:.2f} (L{layer} H{head})" for layer, head, score in heads)
    return f"held-out {loss:.3f} | second copy {copied:.2f} | previous-token {previous} | induction {induction}"


# -- losses ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def token_losses(model: nn.Module, ids: list[int], window: int) -> Tensor:
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
