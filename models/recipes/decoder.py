"""tiny-decoder: a GPT on the State of the Union speeches, with repetitions enough that induction heads form."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from headwise.models.architectures.decoder import Decoder, DecoderConfig
from headwise.models.recipes.data import END_OF_TEXT, SPEECHES, load_speeches, token_stream, train_tokenizer
from headwise.models.recipes.language import (
    KneserNeyTrigram,
    LanguageRecipe,
    head_lines,
    language_training,
    prefer_offsets,
    random_window,
    speech_window,
    token_losses,
)
from headwise.models.recipes.training import Training
from headwise.models.sources.bundled import load_bundled

CARD = """\
# {name}

A GPT-style decoder for looking at attention: {config[layers]} layers × {config[heads]} heads, width
{config[width]}, {config[positions]} positions, context {config[context]:,}, byte-level BPE with
{config[vocab_size]:,} tokens. Small enough to study whole, trained enough to have the heads that
textbooks describe: previous-token heads, and induction heads, which find an earlier occurrence of the
present token and look at what came next.

**Data.** State of the Union speeches from 1790 to 2021, from `{package}` (contents CC0 1.0, database
PDDL 1.0: public domain). Every 20th speech is held out, from the tokenizer too. The weights come under
the licence of this repository.

**Training.** `headwise train {name} --compile`: {recipe.steps:,} steps of
{recipe.tokens_per_step:,} tokens ({tokens:,} in all), seed {recipe.seed}, {minutes:.0f} minutes on 2 CPU
cores shared with other work. Muon for the hidden matrices, AdamW for the rest, linear decay to zero.
{recipe.repeated_passage:.0%} of the windows repeat a passage of the speech. Others repeat a block of
random tokens: {recipe.repeated_random[0]:.0%} of the windows at first, {recipe.repeated_random[1]:.0%}
from a third of the steps on. Most windows hold 256 tokens, a growing share 1,024 or 2,048 (all hold 128
in the first sixth of the run). Half of them begin with `<|endoftext|>`, so inputs with and without it
are both natural to the model. In the first block, head h starts with a mild preference for the token h +
1 positions back (`prefer_offsets` in `models/recipes/language.py`), which training was free to change; in four
trials without it, 480 to 900 steps long and with other mixtures and learning rates, no head passed a
previous-token score of 0.5. The induction heads had no such start.

**Measured** by `headwise evaluate {name}` on the held-out speeches:

```
{report}
```

**Limits.** It knows one kind of English, the presidential, and no facts worth asking for. It carries the
views and the words of its speakers, many of them of the 18th and 19th centuries. Repetition was
practised on purpose, so how soon its induction heads form says little about other models. Weights are
stored as float16.
"""


@dataclass(frozen=True)
class DecoderRecipe(LanguageRecipe):
    tokens_per_step: int = 4096
    repeated_passage: float = 0.15  # share of the windows
    repeated_random: tuple[float, float] = (0.5, 0.1)  # the same: at first, and from a third of the steps on


RECIPE = DecoderRecipe(steps=2000, bfloat16=False)


def window_length(step: int, recipe: DecoderRecipe, generator: torch.Generator) -> int:
    """128 in the first sixth of the steps: heads form sooner where there is less to look at.

    Then mostly 256, and 1,024 or 2,048 in a share of the steps that grows to 35 %.
    """
    if step < recipe.steps / 6:
        return 128
    u = torch.rand(2, generator=generator)
    if u[0] > 0.05 + 0.3 * step / recipe.steps:
        return 256
    return 1024 if u[1] < 0.5 else 2048


def repeat_passage(window: Tensor, generator: torch.Generator) -> Tensor:
    """Write a passage of 16–100 tokens (less than half of the window) once more, somewhere after its end."""
    size = int(torch.randint(16, min(101, len(window) // 2 - 1), (), generator=generator))
    source = int(torch.randint(1, len(window) - 2 * size, (), generator=generator))
    target = int(torch.randint(source + size, len(window) - size + 1, (), generator=generator))
    window[target : target + size] = window[source : source + size]
    return window


def batch(step: int, recipe: DecoderRecipe, stream: Tensor, vocab_size: int, bos: int) -> tuple[Tensor, Tensor]:
    """→ input ids (B, T) and targets (B, T) of one step."""
    generator = recipe.generator(step)
    length = window_length(step, recipe, generator)
    first, last = recipe.repeated_random
    repeated_random = max(last, first + (last - first) * 3 * step / recipe.steps)
    inputs, targets = [], []
    for kind in torch.rand(recipe.tokens_per_step // length, generator=generator).tolist():
        if kind < repeated_random:
            x, y = random_window(vocab_size, length + 1, bos, generator)
        else:
            window = speech_window(stream, length + 1, bos, generator)
            if kind < repeated_random + recipe.repeated_passage:
                window = repeat_passage(window, generator)
            x, y = window[:-1], window[1:]
        inputs.append(x)
        targets.append(y)
    return torch.stack(inputs), torch.stack(targets)


def prepare() -> Training:
    torch.manual_seed(RECIPE.seed)
    training, held_out = load_speeches()
    tokenizer = train_tokenizer(training, vocab_size=2048)
    bos = tokenizer.token_to_id(END_OF_TEXT)
    stream, held_out = (torch.tensor(token_stream(tokenizer, texts)) for texts in (training, held_out))
    config = DecoderConfig(vocab_size=tokenizer.get_vocab_size(), context=2048, layers=4, heads=8, width=256)
    model = Decoder(config)
    prefer_offsets(model.blocks[0].attention, RECIPE.offset_strength)

    return language_training(
        RECIPE,
        model,
        lambda step: batch(step, RECIPE, stream, config.vocab_size, bos),
        tokenizer,
        held_out,
        CARD.replace("{package}", SPEECHES.package).replace("{tokens:,}", f"{RECIPE.steps * RECIPE.tokens_per_step:,}"),
    )


def report(seed: int = 1000) -> str:
    """Every figure below is computed here and now; nothing is remembered from training."""
    model, tokenizers, _ = load_bundled("tiny-decoder")
    tokenizer = tokenizers["text"]
    bos = tokenizer.token_to_id(END_OF_TEXT)
    training, held_out = load_speeches()
    stream = token_stream(tokenizer, held_out)
    bytes_per_token = sum(len(speech.encode()) for speech in held_out) / (len(stream) - len(held_out))

    def both(nats):
        return f"{nats:.4f} nats/token  {nats / log(2) / bytes_per_token:.4f} bits/byte"

    by_256, by_2048 = token_losses(model, stream, 256), token_losses(model, stream, 2048)
    trigram = KneserNeyTrigram(token_stream(tokenizer, training), model.config.vocab_size).loss(stream)
    return "\n".join(
        [
            f"data                    {SPEECHES}",
            f"held out                {len(held_out)} speeches, {len(stream):,} tokens",
            f"bytes per token         {bytes_per_token:.3f}",
            f"parameters              {sum(p.numel() for p in model.parameters()):,}",
            f"loss, 256 tokens        {both(float(by_256.mean()))}",
            f"loss, 2,048 tokens      {both(float(by_2048.mean()))}",
            f"  at 128–256            {both(float(by_2048[:, 128:256].mean()))}",
            f"  at 1,024–2,048        {both(float(by_2048[:, 1024:].mean()))}",
            f"Kneser–Ney trigram      {both(trigram)}",
            *head_lines(model, bos, seed),
        ]
    )
