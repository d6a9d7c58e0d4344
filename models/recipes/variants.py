"""tiny-longformer, tiny-transformer-xl …: one small decoder, trained again and again on the same text, with another
attention each time; beside them full attention, an LSTM of the same size, and XLNet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import log
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn

from headwise.models.architectures.lstm import LSTM, LSTMConfig
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.architectures.xlnet import XLNet, XLNetConfig
from headwise.models.inputs.bundled import MASK
from headwise.models.recipes.data import END_OF_TEXT, SPEECHES, load_speeches, token_stream
from headwise.models.recipes.decoder import repeat_passage
from headwise.models.recipes.language import (
    IGNORE,
    KneserNeyTrigram,
    LanguageRecipe,
    make_optimizers,
    random_window,
    speech_window,
    token_losses,
)
from headwise.models.recipes.training import Training
from headwise.models.sources.bundled import load_bundled

RECIPE = LanguageRecipe(steps=600, bfloat16=False)
SIZE = {"context": 8192, "layers": 4, "heads": 4, "width": 128}
TOKENS_PER_STEP = 4096
WINDOW = 512  # tokens
RANDOM, REPEATED = 0.25, 0.15  # share of the windows that repeat random tokens, and a passage of the speech
ANY_ORDER = 0.5  # share of XLNet's steps that predict in an order drawn at random
LAYERS = f"{SIZE['layers']} layers × {SIZE['heads']} heads, width {SIZE['width']}"
MEASURED = (512, 2048)  # tokens a window, of the held-out losses
PROGRESS = 8192  # held-out tokens that are looked at on the way

Next = Callable[[Tensor], Tensor]  # input ids (B, T) → logits (B, T, V) of the token after each


@dataclass(frozen=True)
class Run:
    """One model of the family: its mechanism, the mechanism's options, and where its positions come from."""

    name: str
    title: str
    mechanism: str
    options: dict[str, Any] = field(default_factory=dict)
    positions: str = "rotary"
    cells: int = 0  # of the LSTM, a layer

    architecture = "variant"

    @property
    def told(self) -> str:
        """What it is made of, in a sentence of the card."""
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return (
            f"{LAYERS}; its attention is `{self.mechanism}` of `models/variants`"
            f"{f' with {options}' if options else ''}. All else is what the other variants have"
        )

    def model(self, vocab_size: int, **size: int) -> nn.Module:
        size = SIZE | size
        return VariantDecoder(
            VariantConfig(self.mechanism, vocab_size, **size, options=self.options, positions=self.positions)
        )

    def following(self, module: nn.Module) -> Next:
        return module

    def batch(self, step: int, stream: Tensor, vocab_size: int, bos: int) -> tuple[Tensor, ...]:
        return batch(step, stream, vocab_size, bos)

    def tokenizer(self) -> Tokenizer:
        return load_bundled("tiny-decoder")[1]["text"]

    def save(self, folder: Path) -> None:
        """What a model needs beside its weights: nothing, where the tokenizer is tiny-decoder's."""

    def prepare(self) -> Training:
        torch.manual_seed(RECIPE.seed)
        tokenizer = self.tokenizer()
        bos, vocab_size = tokenizer.token_to_id(END_OF_TEXT), tokenizer.get_vocab_size()
        stream, held_out = (torch.tensor(token_stream(tokenizer, texts)) for texts in load_speeches())
        module = self.model(vocab_size)

        def loss(x: Tensor, y: Tensor, *order: Tensor) -> Tensor:
            logits = module(x, order=order[0]) if order else module(x)
            return F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE)

        def progress() -> str:
            return f"held-out {token_losses(self.following(module), held_out[: PROGRESS + 1].tolist(), 512).mean():.3f}"

        return Training(
            RECIPE,
            module,
            {"architecture": self.architecture, **asdict(module.config)},
            lambda step: self.batch(step, stream, vocab_size, bos),
            loss,
            progress,
            card_of(self),
            self.save,
            make_optimizers(module, RECIPE),
        )

    def report(self, seed: int = 1000) -> str:
        """Every figure below is computed here and now."""
        module, tokenizers, _ = load_bundled(self.name)
        losses = held_out_losses(self.following(module), tokenizers["text"])
        training, held_out = load_speeches()
        known, stream = (token_stream(tokenizers["text"], texts) for texts in (training, held_out))
        trigram = KneserNeyTrigram(known, tokenizers["text"].get_vocab_size()).loss(stream)
        lines = [
            f"data                    {SPEECHES}",
            f"held out                {len(held_out)} speeches, {len(stream):,} tokens",
            f"parameters              {sum(p.numel() for p in module.parameters()):,}",
        ]
        for window, (nats, bits) in losses.items():
            lines.append(f"{f'loss, {window:,} tokens':<24}{nats:.4f} nats/token  {bits:.4f} bits/byte")
        return "\n".join([*lines, f"Kneser–Ney trigram      {trigram:.4f} nats/token"])


class TwoStreams(Run):
    """XLNet, which tells each token from those before it in an order: in half of the steps left to right, in the others
    in one that is drawn at random."""

    architecture = "xlnet"

    @property
    def told(self) -> str:
        return (
            f"{LAYERS}, in two streams (`models/architectures/xlnet.py`). In {ANY_ORDER:.0%} of the steps it predicts "
            "in an order drawn at random, else left to right. What is measured is left to right; a `[MASK]` in a text "
            "comes last, and so is told from both sides. The tokenizer has this one token more"
        )

    def tokenizer(self) -> Tokenizer:
        """A [MASK] stands where a token is to be told from both sides."""
        tokenizer = super().tokenizer()
        tokenizer.add_special_tokens([AddedToken(MASK, lstrip=True)])  # the space before it is the token's
        return tokenizer

    def save(self, folder: Path) -> None:
        self.tokenizer().save(str(folder / "tokenizer.json"))

    def model(self, vocab_size: int, **size: int) -> nn.Module:
        return XLNet(XLNetConfig(vocab_size, **(SIZE | size)))

    def following(self, module: nn.Module) -> Next:
        """Left to right what stands at a place is told from what stands before, whatever is written there."""
        return lambda ids: module(F.pad(ids, (0, 1)))[:, 1:]

    def batch(self, step, stream, vocab_size, bos):
        x, y = batch(step, stream, vocab_size, bos)
        ids, targets = torch.cat([x, y[:, -1:]], 1), F.pad(y, (1, 0), value=IGNORE)
        generator = RECIPE.generator(-step - 1)
        if float(torch.rand((), generator=generator)) >= ANY_ORDER:
            return ids, targets
        return ids, targets, torch.randperm(ids.shape[1], generator=generator)


class Recurrent(Run):
    """The LSTM."""

    architecture = "lstm"

    @property
    def told(self) -> str:
        return (
            f"2 layers of {self.cells} cells (`models/architectures/lstm.py`), without attention. It had more tries "
            "than the others, which had one each: its first form, without a norm of the embeddings and with AdamW for "
            "its matrices, came to 4.76 nats (windows of 512); of three forms with that norm (AdamW at 0.003 and 0.01, "
            "Muon at 0.02) this one was best after 150 steps, on the first 8,192 held-out tokens. So its lead in loss "
            "is not one of equal care"
        )

    def model(self, vocab_size: int, **size: int) -> nn.Module:
        size = SIZE | size
        return LSTM(LSTMConfig(vocab_size, size["context"], 2, size["width"], self.cells))


def held_out_losses(following: Next, tokenizer: Tokenizer) -> dict[int, tuple[float, float]]:
    """Of the held-out speeches, window → (nats a token, bits a byte)."""
    _, held_out = load_speeches()
    stream = token_stream(tokenizer, held_out)
    per_token = sum(len(speech.encode()) for speech in held_out) / (len(stream) - len(held_out))
    nats = {window: float(token_losses(following, stream, window).mean()) for window in MEASURED}
    return {window: (each, each / log(2) / per_token) for window, each in nats.items()}


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


def card_of(run: Run) -> str:
    """The card but for what is known after the training."""
    return f"""\
# {{name}}

{run.title}: a language model of {{parameters:,}} parameters with tiny-decoder's tokenizer.
{run.told}.

**Data.** {SPEECHES.about}, from `{SPEECHES.package}`;
{SPEECHES.licence}. Every 20th speech is held out.

**Training.** `headwise train {{name}}`: {{recipe.steps:,}} steps of {TOKENS_PER_STEP:,} tokens in windows of {WINDOW},
seed {{recipe.seed}}, {{minutes:.0f}} minutes on one CPU core beside other work. {RANDOM:.0%} of the windows repeat a
block of random tokens, {REPEATED:.0%} a passage of the speech. Muon for the maps, AdamW for the rest, linear decay to
zero.

**Measured** by `headwise evaluate {{name}}` on the held-out speeches:

```
{{report}}
```

**Limits.** It is for looking at one mechanism beside the others, all trained for minutes: a trigram knows the speeches
better. Weights are stored as float16.
"""


RUNS = {
    run.name: run
    for run in (
        Run("tiny-full", "Full attention", "full"),
        Run("tiny-longformer", "Longformer", "longformer", {"window": 32, "globals": 1}),
        Run("tiny-transformer-xl", "Transformer-XL", "transformer_xl", {"segment": 64, "memory": 64}, "none"),
        Run("tiny-reformer", "Reformer", "reformer", {"buckets": 16, "rounds": 2, "chunk": 32, "local": 2}),
        Run("tiny-performer", "Performer", "performer", {"features": 64}),
        Run("tiny-sparse", "Sparse Transformer", "sparse", {"stride": 16}),
        Run("tiny-bigbird", "BigBird", "bigbird", {"block": 16, "window": 1, "globals": 1, "random": 1, "seed": 0}),
        TwoStreams("tiny-xlnet", "XLNet", "xlnet"),
        Recurrent("tiny-lstm", "LSTM", "lstm", cells=232),  # as many parameters as the others have
    )
}
