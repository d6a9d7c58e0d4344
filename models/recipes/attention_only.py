"""tiny-attention-only: two layers of attention alone, in which the textbook induction circuit forms."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.models.architectures.attention_only import AttentionOnly, AttentionOnlyConfig
from headwise.models.recipes.data import END_OF_TEXT, SPEECHES, load_speeches, token_stream
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

RECIPE = LanguageRecipe(steps=1200, other_lr=0.005, weight_decay=0.05, offset_strength=8.0, bfloat16=False)
SIZE = {"layers": 2, "heads": 4, "width": 192, "context": 512}
TOKENS_PER_STEP = 4096
RANDOM = 0.6  # share of the windows that repeat a block of random tokens
CARD = """\
# {name}

Two layers × {config[heads]} heads of attention and nothing else (Elhage et al. 2021): {parameters:,} parameters,
width {config[width]}, context {config[context]}, rotary positions, and
tiny-decoder's tokenizer. The circuit of the textbooks: a previous-token head in layer 0 writes into each place
what stood before it; an induction head in layer 1 looks for the place whose predecessor is the present token, and
copies what stands there.

**Data.** {about}, from `{package}`; {licence}. Every 20th speech is held out.

**Training.** `headwise train {name}`: {recipe.steps:,} steps of {tokens:,} tokens, seed {recipe.seed},
{minutes:.0f} minutes on one CPU core beside other work. {random:.0%} of the windows repeat a block of random
tokens, of 12 to half a window, over and over; the others are speech. Muon for the matrices, AdamW for the
embeddings, linear decay to zero. In layer 0, head h starts with a preference for the token h + 1 positions back
(`prefer_offsets` in `models/recipes/language.py`), which training was free to change: in trials with a weaker one
or none, no previous-token head had formed after 300 to 400 steps. The induction head had no such start.

**Measured** by `headwise evaluate {name}` on held-out speeches and on random tokens it never saw:

```
{report}
```

**Limits.** It is for looking at a circuit. As a language model it is worse than the trigram model beside it.
Weights are stored as float16.
"""


def prepare() -> Training:
    torch.manual_seed(RECIPE.seed)
    tokenizer = load_bundled("tiny-decoder")[1]["text"]
    bos = tokenizer.token_to_id(END_OF_TEXT)
    stream, held_out = (torch.tensor(token_stream(tokenizer, texts)) for texts in load_speeches())
    config = AttentionOnlyConfig(vocab_size=tokenizer.get_vocab_size(), **SIZE)
    model = AttentionOnly(config)
    prefer_offsets(model.blocks[0].attention, RECIPE.offset_strength)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        generator = RECIPE.generator(step)
        length = 128 if step < RECIPE.steps // 2 else 256
        pairs = []
        for kind in torch.rand(TOKENS_PER_STEP // length, generator=generator).tolist():
            if kind < RANDOM:
                pairs.append(random_window(config.vocab_size, length + 1, bos, generator))
            else:
                window = speech_window(stream, length + 1, bos, generator)
                pairs.append((window[:-1], window[1:]))
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    card = CARD.replace("{tokens:,}", f"{TOKENS_PER_STEP:,}").replace("{random:.0%}", f"{RANDOM:.0%}")
    for key in ("about", "package", "licence"):
        card = card.replace("{" + key + "}", getattr(SPEECHES, key))
    return language_training(RECIPE, model, batch, tokenizer, held_out, card)


def report(seed: int = 1000) -> str:
    """Every figure below is computed here and now."""
    model, tokenizers, _ = load_bundled("tiny-attention-only")
    tokenizer = tokenizers["text"]
    training, held_out = load_speeches()
    stream = token_stream(tokenizer, held_out)
    trigram = KneserNeyTrigram(token_stream(tokenizer, training), model.config.vocab_size).loss(stream)
    return "\n".join(
        [
            f"data                    {SPEECHES}",
            f"held out                {len(held_out)} speeches, {len(stream):,} tokens",
            f"parameters              {sum(p.numel() for p in model.parameters()):,}",
            f"loss, 256 tokens        {float(token_losses(model, stream, 256).mean()):.4f} nats/token",
            f"Kneser–Ney trigram      {trigram:.4f} nats/token",
            *head_lines(model, tokenizer.token_to_id(END_OF_TEXT), seed),
        ]
    )
