"""Associative recall: which value stood beside this key, up to thousands of tokens ago? A small model of each mechanism
is trained on it from nothing, and asked at all distances.

Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models", §3 (multi-query associative
recall, MQAR): a text holds pairs of a key and its value; wherever a key stands again, its value is to be told. Here
pairs stand anywhere in the first half, keys come back at distances that are spread evenly over their logarithm, and
between them stand tokens that mean nothing.

Every embedding adds the token before (``WithPrevious``), as a short convolution does in the models of that paper: what
is measured is how far a mechanism finds a content, not how soon a head for the previous token forms. It was the second
form of this task: with rotary positions and without that sum, full attention told 11 % right beyond 1,024 tokens after
800 steps, so that there was nothing to compare. The form was chosen by full attention alone; all have one seed, and
what a model has not learned in these steps it may still be able to.

Axis letters: B batch, T positions, C model width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.models.recipes.language import IGNORE, LanguageRecipe, make_optimizers
from headwise.models.recipes.variants import Next, Run

KEYS = VALUES = NOISE = 32  # tokens of each kind
VOCABULARY = KEYS + VALUES + NOISE
PAIRS, ASKED = 16, 8  # pairs of a text, and how often each key stands again at most
SIZE = {"layers": 2, "heads": 4, "width": 64}
CELLS = 78  # of the LSTM: as many parameters as the others have
LENGTHS = (128, 512, 1024, 4096)  # tokens of a text
TOKENS_PER_STEP = 4096
BORDERS = (16, 64, 256, 1024, 4096)  # tokens between a pair and its key's return: the ends of the classes
TEXTS, TEXT, SEED = 32, 4096, 1000  # what is asked at last


@dataclass(frozen=True)
class RecallRecipe(LanguageRecipe):
    steps: int = 500
    warmup: int = 20
    bfloat16: bool = False

    def length(self, step: int) -> int:
        """Of the texts of a step: short ones in the first third, then all lengths by turns."""
        return LENGTHS[0 if step < self.steps // 3 else step % len(LENGTHS)]


RECIPE = RecallRecipe()


@dataclass(frozen=True, eq=False)
class Asked:
    """Texts ``ids`` (B, T) and what they ask: ``targets`` (B, T), a value where a key has come back and IGNORE
    elsewhere, and ``distances`` (B, T), how far back its pair is."""

    ids: Tensor
    targets: Tensor
    distances: Tensor


def asked(count: int, length: int, generator: torch.Generator) -> Asked:
    """``count`` texts of ``length`` tokens."""
    ids = torch.randint(KEYS + VALUES, VOCABULARY, (count, length), generator=generator)
    targets, distances = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
    pairs = min(PAIRS, length // 8)
    for row in range(count):
        keys = torch.randperm(KEYS, generator=generator)[:pairs]
        values = KEYS + torch.randint(VALUES, (pairs,), generator=generator)
        places = 2 * torch.randperm(length // 4, generator=generator)[:pairs]
        ids[row, places], ids[row, places + 1] = keys, values
        free = torch.ones(length, dtype=torch.bool)
        free[places] = free[places + 1] = False
        share = torch.rand(ASKED, pairs, generator=generator)
        back = places + 2 + (length - 2 - places).pow(share).long().clamp(max=length - 3)
        for turn in back.clamp(max=length - 1).tolist():
            for at, place, key, value in zip(turn, places.tolist(), keys.tolist(), values.tolist(), strict=True):
                if free[at]:
                    free[at] = False
                    ids[row, at], targets[row, at], distances[row, at] = key, value, at - place
    return Asked(ids, targets, distances)


class WithPrevious(nn.Embedding):
    """ids (B, T) → (B, T, C): each token, and a linear map of the one before it."""

    def __init__(self, vocab_size: int, width: int):
        super().__init__(vocab_size, width)
        self.previous = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.weight, std=0.02)
        nn.init.normal_(self.previous.weight, std=width**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        x = super().forward(ids)
        return x + F.pad(self.previous(x)[:, :-1], (0, 0, 1, 0))


def recaller(run: Run) -> nn.Module:
    """A small model with a run's attention, the same options, and no positions but the mechanism's own: content is
    looked for."""
    torch.manual_seed(RECIPE.seed)
    module = replace(run, positions="none", cells=CELLS).model(VOCABULARY, **SIZE)
    module.token_embedding = WithPrevious(VOCABULARY, SIZE["width"])
    return module


def learn(run: Run, progress: Callable[[int, float], None] = lambda step, loss: None) -> nn.Module:
    """The model after its training: a minute or two of one core."""
    module = recaller(run)
    following, optimizers = run.following(module), make_optimizers(module, RECIPE)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    module.train()
    for step in range(RECIPE.steps):
        for optimizer, rates in zip(optimizers, peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = peak * RECIPE.factor(step)
        length = RECIPE.length(step)
        texts = asked(TOKENS_PER_STEP // length, length, RECIPE.generator(step))
        loss = F.cross_entropy(following(texts.ids).flatten(0, 1), texts.targets.flatten(), ignore_index=IGNORE)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        progress(step + 1, loss.item())
    return module.eval()


@torch.no_grad()
def recalled(following: Next) -> dict[int, float]:
    """The upper border of each class of distances → the share of values told right, in texts of 4,096 tokens. By chance
    it is 1 / 32."""
    texts = asked(TEXTS, TEXT, torch.Generator().manual_seed(SEED))
    told = torch.cat([following(ids[None]).argmax(-1) for ids in texts.ids])
    right, shares, before = told == texts.targets, {}, 0
    for border in BORDERS:
        here = (texts.targets != IGNORE) & (texts.distances > before) & (texts.distances <= border)
        shares[border], before = float(right[here].float().mean()), border
    return shares
