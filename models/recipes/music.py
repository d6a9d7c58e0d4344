"""tiny-music: the next note of a chorale, voice after voice, by relative attention."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict
from math import log
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.analysis.circuits.roles import CYCLIC, roles
from headwise.interp.run.capture import capture
from headwise.models import load
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.inputs.scores import FIRST, HIGHEST, LOWEST, VOCABULARY, VOICES, interleaved
from headwise.models.recipes.beyond_text import MUSIC21, Chorale, load_chorales, write_examples
from headwise.models.recipes.training import Recipe, Training
from headwise.models.sources.bundled import load_bundled

RECIPE = Recipe(steps=1300, matrix_lr=0.02, other_lr=0.004, weight_decay=0.2, bfloat16=False)
SIZE = {"layers": 3, "heads": 4, "width": 96, "context": 768, "options": {"reach": 257}}
WINDOW, SCORES_PER_STEP = 257, 8  # positions: START, and 8 bars of 8 eighths in 4 voices
HIGHER = range(-5, 7)  # semitones by which a chorale is transposed, as far as the voices reach
ORDERS = (3, 4, 5, 7)  # of the n-grams that are tried
CARD = """\
# {name}

A Music Transformer in small (Huang et al. 2018): a decoder of {config[layers]} layers × {config[heads]} heads with
relative attention, width {config[width]}, {parameters:,} parameters, context {config[context]}. It reads and writes
four-part chorales on a grid of eighths, voice after voice: soprano, alto, tenor, bass, then the next eighth. A token is
a pitch that begins or one that is held. Nothing but distances tells it where it is.

**Data.** {about}, from `{package}`; {licence}. Only the grid of eighths is learned from and nothing of the files is
passed on, but for {examples} held-out chorales that are the app's examples. One melody in ten is held out, in all its
settings.

**Training.** `headwise train {name}`: {recipe.steps:,} steps of {batch} windows of {bars} bars, seed
{recipe.seed}, {minutes:.0f} minutes on one CPU core. Each window is transposed at random.

**Measured** by `headwise evaluate {name}` on the held-out chorales, a window at a time; the n-gram model
(interpolated, Witten & Bell 1991) learned from the same chorales in the same keys:

```
{report}
```

**Limits.** It knows style within a bar or two, and no form: it does not know when a piece should end. Sixteenths that
fall between eighths are left out. Weights are stored as float16.
"""
EXAMPLES = ("BWV 323", "BWV 278", "BWV 57.8")  # held out; their first bars are the app's examples


def prepare() -> Training:
    torch.manual_seed(RECIPE.seed)
    config = VariantConfig("relative", VOCABULARY, positions="none", **SIZE)
    module = VariantDecoder(config)
    training, held_out = load_chorales()
    held = windows(held_out)

    def batch(step: int) -> tuple[Tensor]:
        drawn = np.random.default_rng((RECIPE.seed, step))
        return (torch.from_numpy(np.stack([window(training, drawn) for _ in range(SCORES_PER_STEP)])),)

    def loss(tokens: Tensor) -> Tensor:
        return F.cross_entropy(module(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    bars = (WINDOW - 1) // (len(VOICES) * 8)
    card = CARD.replace("{batch}", str(SCORES_PER_STEP)).replace("{bars}", str(bars))
    card = card.replace("{examples}", str(len(EXAMPLES)))
    for key in ("about", "package", "licence"):
        card = card.replace("{" + key + "}", getattr(MUSIC21, key))
    config = {"architecture": "music", **asdict(config)}
    shown = {chorale.name: chorale.text(64) for chorale in held_out if chorale.name in EXAMPLES}
    shown = {name: shown[name] for name in EXAMPLES}
    return Training(
        RECIPE,
        module,
        config,
        batch,
        loss,
        lambda: f"held-out {mean_loss(module, held):.3f}",
        card,
        lambda folder: write_examples(folder, shown),
    )


def transposed(tokens: np.ndarray, by: int) -> np.ndarray:
    """Tokens ``by`` semitones higher; silences stay."""
    return np.where(tokens >= FIRST, tokens + 2 * by, tokens)


def reachable(tokens: np.ndarray) -> list[int]:
    """Transpositions that leave every voice in the range."""
    pitches = LOWEST + (tokens[tokens >= FIRST] - FIRST) // 2
    return [by for by in HIGHER if pitches.min() + by >= LOWEST and pitches.max() + by <= HIGHEST]


def window(chorales: list[Chorale], drawn: np.random.Generator) -> np.ndarray:
    """Tokens (WINDOW,) of a stretch of a chorale in some key; a chorale that is too short goes on from its start."""
    eighths = (WINDOW - 1) // len(VOICES)
    lengths = np.array([len(chorale.tokens) for chorale in chorales])
    chorale = chorales[drawn.choice(len(chorales), p=lengths / lengths.sum())].tokens
    start = drawn.integers(max(1, len(chorale) - eighths + 1))
    stretch = np.resize(chorale[start : start + eighths], (eighths, len(VOICES)))
    keys = reachable(chorale)
    return interleaved(transposed(stretch, keys[drawn.integers(len(keys))]))


def windows(chorales: list[Chorale]) -> Tensor:
    """All full windows of chorales, one after another → (N, WINDOW)."""
    eighths = (WINDOW - 1) // len(VOICES)
    found = [
        interleaved(chorale.tokens[start : start + eighths])
        for chorale in chorales
        for start in range(0, len(chorale.tokens) - eighths + 1, eighths)
    ]
    return torch.from_numpy(np.stack(found))


@torch.no_grad()
def losses(module: VariantDecoder, held: Tensor) -> Tensor:
    """Nats of each token (N, WINDOW − 1)."""
    parts = held.split(8)
    return torch.cat([F.cross_entropy(module(part[:, :-1]).mT, part[:, 1:], reduction="none") for part in parts])


def mean_loss(module: VariantDecoder, held: Tensor) -> float:
    return float(losses(module, held).mean())


def begins(tokens: Tensor) -> Tensor:
    """Where a note begins, bool."""
    return (tokens >= FIRST) & ((tokens - FIRST) % 2 == 0)


class NGram:
    """The simple baseline: interpolated n-grams (Witten & Bell 1991), P(w | h) = (c(hw) + t(h) P(w | h′)) / (c(h) +
    t(h)), with t(h) the number of different tokens seen after h and h′ the history without its first token. Below the
    unigrams: 1 / V."""

    def __init__(self, order: int):
        self.order = order
        self.after: list[dict[bytes, Counter]] = [defaultdict(Counter) for _ in range(order)]

    def add(self, tokens: np.ndarray) -> None:
        spelled = tokens.astype(np.uint8).tobytes()
        for at in range(1, len(spelled)):
            for length in range(min(self.order, at + 1)):
                self.after[length][spelled[at - length : at]][spelled[at]] += 1

    def losses(self, tokens: np.ndarray) -> np.ndarray:
        """Nats of each token but the first."""
        spelled = tokens.astype(np.uint8).tobytes()
        return -np.array([log(self._probability(spelled, at)) for at in range(1, len(spelled))])

    def _probability(self, spelled: bytes, at: int) -> float:
        found = 1 / VOCABULARY
        for length in range(min(self.order, at + 1)):
            counts = self.after[length].get(spelled[at - length : at])
            if counts is None:
                break
            kinds = len(counts)
            found = (counts[spelled[at]] + kinds * found) / (counts.total() + kinds)
        return found


def baseline(training: list[Chorale], held: np.ndarray, order: int) -> np.ndarray:
    """Nats of each token of an n-gram model that learned from every chorale in every key within reach."""
    model = NGram(order)
    for chorale in training:
        for by in reachable(chorale.tokens):
            model.add(interleaved(transposed(chorale.tokens, by)))
    return np.stack([model.losses(row) for row in held])


def report(seed: int = 1000) -> str:
    """Every figure below is computed here and now."""
    module, _, _ = load_bundled("tiny-music")
    training, held_out = load_chorales()
    held = windows(held_out)
    found, starting = losses(module, held), begins(held[:, 1:])
    lines = [
        f"data                    {MUSIC21}",
        f"parameters              {sum(p.numel() for p in module.parameters()):,}",
        f"held out                {len(held_out)} of {len(training) + len(held_out)} chorales, {held.numel():,} "
        f"tokens; nothing is random, seed {seed} is not used",
        "nats a token            all, those that begin a note",
        f"  tiny-music            {found.mean():.3f}, {found[starting].mean():.3f}",
    ]
    for order in ORDERS:
        grams = torch.from_numpy(baseline(training, held.numpy(), order))
        lines.append(f"  {order:>2}-grams              {grams.mean():.3f}, {grams[starting].mean():.3f}")
    lines.append(f"heads that follow the bar, in the first eight bars of {len(held_out)} held-out chorales")
    for (layer, head, role), shares in sorted(followers(held_out).items()):
        if 2 * len(shares) >= len(held_out):
            often = f"{role}, in {len(shares)} of them, {fmean(shares):.0%} of its weight; by chance 3 % or 4 %"
            lines.append(f"  layer {layer}, head {head}: {often}")
    return "\n".join(lines)


def followers(chorales: list[Chorale]) -> dict[tuple[int, int, str], list[float]]:
    """(layer, head, role) of heads that follow the bar → their scores in the chorales in which they do."""
    subject, found = load("tiny-music"), defaultdict(list)
    for chorale in chorales:
        said = roles(capture(subject, chorale.text(64)))
        for row in said[said.role.isin(CYCLIC)].itertuples():
            found[row.layer, row.head, row.role].append(row.score)
    return found
