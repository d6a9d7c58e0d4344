"""tiny-longformer, tiny-transformer-xl …: one small decoder, trained again and again on the same text, with another
attention each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log
from typing import Any

import torch
from torch import Tensor

from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.recipes.data import END_OF_TEXT, SPEECHES, load_speeches, token_stream
from headwise.models.recipes.decoder import repeat_passage
from headwise.models.recipes.language import (
    LanguageRecipe,
    language_training,
    random_window,
    speech_window,
    token_losses,
)
from headwise.models.recipes.training import Training
from headwise.models.sources.bundled import load_bundled

RECIPE = LanguageRecipe(steps=600, bfloat16=False)
SIZE = {"layers": 4, "heads": 4, "width": 128, "context": 8192}
TOKENS_PER_STEP = 4096
WINDOW = 512  # tokens
RANDOM, REPEATED = 0.25, 0.15  # share of the windows that repeat random tokens, and a passage of the speech
CARD = """\
# {name}

{title}: a decoder of {config[layers]} layers × {config[heads]} heads, width {config[width]}, {parameters:,}
parameters, with tiny-decoder's tokenizer. Its attention is `{config[mechanism]}` of `models/variants`, with
{options}; all else is what the other variants have, so that they can be compared.

**Data.** {about}, from `{package}`; {licence}. Every 20th speech is held out.

**Training.** `headwise train {name}`: {recipe.steps:,} steps of {tokens:,} tokens in windows of {window}, seed
{recipe.seed}, {minutes:.0f} minutes on one CPU core beside other work. {random:.0%} of the windows repeat a block of
random tokens, {repeated:.0%} a passage of the speech. Muon for the matrices, AdamW for the rest, linear decay to zero.

**Measured** by `headwise evaluate {name}` on the held-out speeches:

```
{report}
```

**Limits.** It is for looking at one mechanism beside the others, all trained for minutes. Weights are stored as
float16.
"""


@dataclass(frozen=True)
class Run:
    """One model of the family: its mechanism, where its positions come from, and the mechanism's options."""

    name: str
    title: str
    mechanism: str
    options: dict[str, Any] = field(default_factory=dict)
    positions: str = "rotary"

    def prepare(self) -> Training:
        torch.manual_seed(RECIPE.seed)
        tokenizer = load_bundled("tiny-decoder")[1]["text"]
        bos = tokenizer.token_to_id(END_OF_TEXT)
        stream, held_out = (torch.tensor(token_stream(tokenizer, texts)) for texts in load_speeches())
        config = VariantConfig(
            self.mechanism,
            tokenizer.get_vocab_size(),
            **SIZE,
            positions=self.positions,
            options=self.options,
        )
        given = {"about": SPEECHES.about, "package": SPEECHES.package, "licence": SPEECHES.licence, "title": self.title}
        given |= {"tokens": f"{TOKENS_PER_STEP:,}", "window": WINDOW, "random": f"{RANDOM:.0%}"}
        given |= {"repeated": f"{REPEATED:.0%}", "options": _told(self.options)}
        card = CARD
        for key, text in given.items():
            card = card.replace("{" + key + "}", str(text)).replace("{" + key + ":,}", str(text))
            card = card.replace("{" + key + ":.0%}", str(text))
        return language_training(
            RECIPE,
            VariantDecoder(config),
            lambda step: batch(step, stream, config.vocab_size, bos),
            tokenizer,
            held_out,
            card,
        )

    def report(self, seed: int = 1000) -> str:
        """Every figure below is computed here and now."""
        model, tokenizers, _ = load_bundled(self.name)
        tokenizer = tokenizers["text"]
        _, held_out = load_speeches()
        stream = token_stream(tokenizer, held_out)
        per_token = sum(len(speech.encode()) for speech in held_out) / (len(stream) - len(held_out))
        lines = [
            f"data                    {SPEECHES}",
            f"held out                {len(held_out)} speeches, {len(stream):,} tokens",
            f"parameters              {sum(p.numel() for p in model.parameters()):,}",
        ]
        for window in (512, 2048):
            nats = float(token_losses(model, stream, window).mean())
            lines.append(
                f"{f'loss, {window:,} tokens':<24}{nats:.4f} nats/token  {nats / log(2) / per_token:.4f} bits/byte"
            )
        return "\n".join(lines)


def batch(step: int, stream: Tensor, vocab_size: int, bos: int) -> tuple[Tensor, Tensor]:
    """Input ids (B, T) and targets (B, T) of one step: the same for every member."""
    generator = RECIPE.generator(step)
    inputs, targets = [], []
    for kind in torch.rand(TOKENS_PER_STEP // WINDOW, generator=generator).tolist():
        if kind < RANDOM:
            x, y = random_window(vocab_size, WINDOW + 1, bos, generator)
        else:
            window = speech_window(stream, WINDOW + 1, bos, generator)
            if kind < RANDOM + REPEATED:
                window = repeat_passage(window, generator)
            x, y = window[:-1], window[1:]
        inputs.append(x)
        targets.append(y)
    return torch.stack(inputs), torch.stack(targets)


def _told(options: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "no options"


RUNS = {
    run.name: run
    for run in (
        Run("tiny-longformer", "Longformer", "longformer", {"window": 32, "globals": 1}),
        Run("tiny-transformer-xl", "Transformer-XL", "transformer_xl", {"segment": 64, "memory": 64}, "none"),
        Run("tiny-performer", "Performer", "performer", {"features": 64}),
        Run("tiny-sparse", "Sparse Transformer", "sparse", {"stride": 16}),
        Run("tiny-bigbird", "BigBird", "bigbird", {"block": 16, "window": 1, "globals": 1, "random": 1, "seed": 0}),
    )
}
