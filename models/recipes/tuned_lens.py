"""Train the tuned lens of a bundled decoder: `headwise train tiny-decoder --lens`.

Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens", §3.1: for each place of the
residual stream one affine map, starting as the identity, learns to make the model's unembedding say there what the
model says at its end. The loss is the KL divergence between the two; the model itself stays as it is.
"""

from __future__ import annotations

import json
import time

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headwise.assets import ASSETS
from headwise.interp.analysis.tuned import divergence
from headwise.interp.run.capture import capture
from headwise.interp.subject import Subject
from headwise.models import load
from headwise.models.inputs.tokens import END_OF_TEXT
from headwise.models.recipes.data import load_speeches, token_stream
from headwise.models.recipes.language import speech_window
from headwise.models.sources.bundled import TUNED_LENS, load_bundled

STEPS, WINDOWS, LENGTH = 600, 8, 256  # windows a step, tokens a window
RATE = 1e-3  # Adam's, falling to 0
SEED = 1
HELD_OUT = 64  # windows that measure it
LENSES = ("tiny-decoder", "tiny-attention-only")


def train_lens(name: str) -> None:
    """Train the translators of a bundled decoder on its training speeches and write them, with what they gain on the
    held-out ones, beside its weights. Raises ValueError for a model without a recipe."""
    if name not in LENSES:
        raise ValueError(f"There is no recipe for a tuned lens of {name!r}. Choose one of {', '.join(LENSES)}.")
    subject, tokenizer = load(name), load_bundled(name)[1]["text"]
    bos = tokenizer.token_to_id(END_OF_TEXT)
    stream, held_out = (torch.tensor(token_stream(tokenizer, texts)) for texts in load_speeches())
    rows, width = _shape(subject, stream)
    weights = nn.Parameter(torch.zeros(rows - 1, width, width))
    biases = nn.Parameter(torch.zeros(rows - 1, width))
    optimizer = torch.optim.Adam([weights, biases], RATE)
    began = time.perf_counter()
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + step)
        ids = torch.stack([speech_window(stream, LENGTH, bos, generator) for _ in range(WINDOWS)])
        loss = torch.stack(_gaps(subject, ids, weights, biases)).mean(1).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}/{STEPS} | KL {loss.item() / (rows - 1):.4f} nats a row", flush=True)
    windows = held_out[: HELD_OUT * LENGTH].view(HELD_OUT, LENGTH)
    with torch.no_grad():
        tuned = _held_out(subject, windows, weights, biases)
        plain = _held_out(subject, windows, torch.zeros_like(weights), torch.zeros_like(biases))
    figures = {"logit_lens": plain, "tuned_lens": tuned, "tokens": HELD_OUT * LENGTH}
    tensors = {"weights": weights.detach().half(), "biases": biases.detach().half()}
    save_file(tensors, ASSETS / name / TUNED_LENS, metadata={"held_out": json.dumps(figures)})
    gains = ", ".join(f"{a:.2f} → {b:.2f}" for a, b in zip(plain, tuned, strict=True))
    print(f"{STEPS} steps in {(time.perf_counter() - began) / 60:.1f} min | held-out KL by row: {gains}")


def _shape(subject: Subject, stream: Tensor) -> tuple[int, int]:
    states = capture(subject, {"input_ids": stream[None, :16]}).stream.blocks()
    return len(states), states[-1].shape[-1]


def _gaps(subject: Subject, ids: Tensor, weights: Tensor, biases: Tensor) -> list[Tensor]:
    """KL of the model's answer to that of each row, at each position → R − 1 of (B · T,)."""
    reading = capture(subject, {"input_ids": ids}, stream=True).stream
    *states, end = reading.blocks()
    final = reading.unembed(end)
    carried = (x + x @ weight.mT + bias for x, weight, bias in zip(states, weights, biases, strict=True))
    return [divergence(final, reading.unembed(x)).flatten() for x in carried]


def _held_out(subject: Subject, windows: Tensor, weights: Tensor, biases: Tensor) -> list[float]:
    """Mean KL of each row on held-out windows."""
    parts = [torch.stack(_gaps(subject, ids, weights, biases)).mean(1) for ids in windows.split(WINDOWS)]
    return [round(value, 4) for value in torch.stack(parts).mean(0).tolist()]
