"""Training: batches of the decoder, checkpoints that go on as if not stopped, and what is published."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from headwise.models.architectures.decoder import Decoder, DecoderConfig
from headwise.models.recipes import train as home
from headwise.models.recipes.decoder import RECIPE, batch, prefer_offsets, repeat_passage, window_length
from headwise.models.recipes.language import IGNORE, random_window, speech_window
from headwise.models.recipes.train import train
from headwise.models.recipes.training import Recipe, Training, optimizers

# What the decoder learns from


def test_speech_window_is_a_part_of_the_stream():
    stream, begun = torch.arange(1, 500), 0
    for seed in range(60):
        window = speech_window(stream, 33, bos=0, generator=torch.Generator().manual_seed(seed))
        assert len(window) == 33 and torch.equal(window[1:].diff(), torch.ones(31).long())
        assert window[0] in (0, window[1] - 1)
        begun += int(window[0] == 0)
    assert 15 < begun < 45  # half begin with bos
    assert torch.equal(stream, torch.arange(1, 500))


def test_random_window_repeats_and_hides_the_first_copy():
    for _ in range(20):
        inputs, targets = random_window(1000, 257, bos=0, generator=torch.default_generator)
        assert len(inputs) == len(targets) == 256
        first = int((targets != IGNORE).nonzero()[0])
        size = first - 1
        assert torch.equal(targets[first:-1], inputs[first + 1 :])
        window = torch.cat([inputs, targets[-1:]])[1:]  # the first token may be bos
        assert torch.equal(window[size:], window[:-size])


def test_repeat_passage_writes_an_earlier_passage_later():
    before = torch.arange(257)
    for seed in range(20):
        after = repeat_passage(before.clone(), torch.Generator().manual_seed(seed))
        changed = (after != before).nonzero().flatten()
        distance = before[changed] - after[changed]
        assert 16 <= len(changed) <= 100 and len(distance.unique()) == 1 and distance[0] >= len(changed)


def test_window_lengths():
    lengths = [window_length(step, RECIPE, RECIPE.generator(step)) for step in range(RECIPE.steps)]
    sixth = RECIPE.steps // 6 + 1
    assert set(lengths[:sixth]) == {128} and set(lengths[sixth:]) == {256, 1024, 2048}
    last = lengths[-500:]
    assert 0.2 < sum(length > 256 for length in last) / 500 < 0.4


def test_batches_depend_on_seed_and_step_alone():
    stream = torch.arange(10_000) % 500
    for step in range(0, RECIPE.steps, 300):
        x, y = batch(step, RECIPE, stream, vocab_size=500, bos=0)
        assert x.numel() == y.numel() == RECIPE.tokens_per_step and x.shape[1] in (128, 256, 1024, 2048)
        assert torch.equal(x, batch(step, RECIPE, stream, vocab_size=500, bos=0)[0])
    other = replace(RECIPE, seed=RECIPE.seed + 1)
    assert not torch.equal(batch(0, RECIPE, stream, 500, 0)[0], batch(0, other, stream, 500, 0)[0])


def test_heads_of_the_first_block_start_at_their_offsets():
    config = DecoderConfig(vocab_size=300, context=128, layers=1, heads=4, width=128)
    attention = Decoder(config).blocks[0].attention
    prefer_offsets(attention, strength=2.0)
    places = torch.arange(40)[None]
    q, k, _ = attention.project(torch.zeros(1, 40, 128), positions=places)  # biases and positions alone
    scores = (q @ k.mT / 32**0.5)[0]  # (H, T, T)
    for head in range(4):
        assert int(scores[head, 20, :21].argmax()) == 20 - (head + 1)
        torch.testing.assert_close(scores[head, 20, 19 - head], torch.tensor(2.0 * 16))  # strength · D/2


# Runs


def test_learning_rate_rises_then_falls_to_zero():
    factors = [RECIPE.factor(step) for step in range(RECIPE.steps)]
    assert factors[0] == 1 / RECIPE.warmup and max(factors) > 0.97 and factors[-1] == pytest.approx(1 / RECIPE.steps)
    assert factors[24] == 25 / 50 and factors[1000] == 0.5


def test_muon_learns_hidden_matrices_and_adamw_the_rest():
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    muon, adamw = optimizers(module, Recipe(steps=10))
    learned = [[id(p) for group in optimizer.param_groups for p in group["params"]] for optimizer in (muon, adamw)]
    assert isinstance(muon, torch.optim.Muon) and learned[0] == [id(module[1].weight)]
    others = [module[0].weight, module[1].bias, module[2].weight, module[2].bias]
    assert isinstance(adamw, torch.optim.AdamW) and learned[1] == [id(p) for p in others]


CARD = "# {name}\n{parameters:,} of {config[width]}, {recipe.steps:,} steps, {minutes:.0f} min\n{report}\n"


def tiny_training(recipe: Recipe) -> Training:
    """A line through made-up data; dropout draws at random, so that a stopped run could differ."""
    torch.manual_seed(recipe.seed)
    module = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.Linear(6, 2))

    def draw(step):
        x = torch.randn(8, 4, generator=recipe.generator(step))
        return x, x[:, :2] * x[:, 2:]

    def loss(x, y):
        return F.mse_loss(module(x), y)

    def save(folder):
        (folder / "tokenizer.json").write_text("{}", encoding="utf-8")

    return Training(recipe, module, {"architecture": "line", "width": 6}, draw, loss, lambda: "fine", CARD, save)


RUN = Recipe(steps=230, warmup=10, bfloat16=False)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Checkpoints and assets under tmp_path; reports need a model of the list, so a sentence stands for one."""
    monkeypatch.setattr(home, "ASSETS", tmp_path / "assets")
    monkeypatch.setattr(home, "recipe_of", lambda name: SimpleNamespace(report=lambda: f"{name} {{as measured}}"))
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "whole"))
    return tmp_path


def test_a_resumed_run_equals_an_uninterrupted_one(place, monkeypatch, capsys):
    whole = tiny_training(RUN)
    start = whole.module[0].weight.detach().clone()
    assert train("line", whole)
    assert not torch.equal(whole.module[0].weight, start) and not whole.module.training
    monkeypatch.setenv("HEADWISE_CACHE", str(place / "parts"))
    assert not train("line", tiny_training(RUN), stop_after=100)
    assert not train("line", tiny_training(RUN), stop_after=150)  # goes on from 100, and again afterwards
    resumed = tiny_training(RUN)
    capsys.readouterr()
    assert train("line", resumed)
    assert capsys.readouterr().out.startswith("continuing from step 100\n")
    for key, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[key]), key


def test_the_checkpoint_of_another_recipe_is_refused(place):
    train("line", tiny_training(RUN), stop_after=100)
    with pytest.raises(ValueError, match=r"line holds .*'steps': 230.*, expected Recipe\(steps=231.*delete the folder"):
        train("line", tiny_training(replace(RUN, steps=231)))


def test_a_finished_run_is_published(place):
    training = tiny_training(RUN)
    train("line", training)
    folder = place / "assets" / "line"
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert json.loads((folder / "config.json").read_text()) == {"architecture": "line", "width": 6}
    for key, value in load_file(folder / "model.safetensors").items():
        assert torch.equal(value, training.module.state_dict()[key].half())
    assert (folder / "README.md").read_text() == "# line\n44 of 6, 230 steps, 0 min\nline {as measured}\n"
