"""Train a bundled model from nothing: `headwise train tiny-encoder`.

A checkpoint is written every 100 steps under the cache folder; the same command goes on from it.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import torch
from safetensors.torch import load_file, save_file

from headwise.assets import ASSETS
from headwise.models.recipes import recipe_of
from headwise.models.recipes.training import Training
from headwise.models.sources.index import cache_folder

SHOWN, SAVED = 20, 100  # steps between two lines, and between two checkpoints


def train(name: str, training: Training, stop_after: int | None = None, compiled: bool = False) -> bool:
    """Run a training to its end, or to step ``stop_after`` → whether it is finished. Goes on from its checkpoint."""
    recipe, module, optimizers = training.recipe, training.module, training.optimizers
    loss_of = torch.compile(training.loss, dynamic=False) if compiled else training.loss
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    checkpoint = cache_folder() / "checkpoints" / name
    checkpoint.mkdir(parents=True, exist_ok=True)
    weights_file, state_file = checkpoint / "model.safetensors", checkpoint / "optimizers.pt"
    first, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise ValueError(f"{checkpoint} holds {state['recipe']}, expected {recipe}; delete the folder")
        module.load_state_dict(load_file(weights_file))
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first, seconds = state["step"], state["seconds"]
        print(f"continuing from step {first}")

    began, since, shown = time.perf_counter() - seconds, time.perf_counter(), first
    module.train()
    for step in range(first, min(recipe.steps, stop_after or recipe.steps)):
        for optimizer, rates in zip(optimizers, peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = peak * recipe.factor(step)
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout goes on as if the run had not been stopped
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            loss = loss_of(*training.batch(step))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        done = step + 1
        if done % SHOWN == 0:
            now = time.perf_counter()
            rate, since, shown = (done - shown) / (now - since), now, done
            print(
                f"step {done}/{recipe.steps} | loss {loss.item():.3f} | {rate:.2f} steps/s "
                f"| ETA {(recipe.steps - done) / rate / 60:.0f} min",
                flush=True,
            )
        if done % SAVED == 0 or done == recipe.steps:
            module.eval()
            with torch.no_grad():
                print(f"    {training.progress()}", flush=True)
            module.train()
            save_file(module.state_dict(), weights_file)
            state = {"recipe": asdict(recipe), "step": done, "seconds": time.perf_counter() - began}
            torch.save({**state, "optimizers": [optimizer.state_dict() for optimizer in optimizers]}, state_file)
    module.eval()
    if stop_after and stop_after < recipe.steps:
        return False
    publish(name, training, minutes=(time.perf_counter() - began) / 60)
    return True


def publish(name: str, training: Training, minutes: float) -> None:
    """Write the weights as float16, the configuration, the card with its figures, and what else the model needs."""
    folder = ASSETS / name
    folder.mkdir(parents=True, exist_ok=True)
    training.save(folder)
    (folder / "config.json").write_text(json.dumps(training.config, indent=2) + "\n", encoding="utf-8")
    halves = {key: tensor.half() for key, tensor in training.module.state_dict().items()}
    save_file(halves, folder / "model.safetensors")
    card = training.card.format(
        name=name,
        recipe=training.recipe,
        config=training.config,
        minutes=minutes,
        parameters=sum(p.numel() for p in training.module.parameters()),
        report=recipe_of(name).report(),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{training.recipe.steps:,} steps in {minutes:.1f} min → {folder}")
