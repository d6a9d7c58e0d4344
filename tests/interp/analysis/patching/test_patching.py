"""Patching against plain forward hooks, against TransformerLens, and by what must hold whatever the model."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from headwise import capture, load
from headwise.assets import ASSETS
from headwise.interp.analysis.patching import closeness, patch
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.edits import HeadOutput, Write
from headwise.interp.run.sweeping import Cancelled
from headwise.models import read_image

CLEAN, CORRUPTED = "The Congress of the United", "The people of the United"
PEER = json.loads(Path(__file__).with_name("transformerlens.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tiny():
    subject = load("tiny-decoder")
    return capture(subject, CLEAN), capture(subject, CORRUPTED)


@pytest.fixture(scope="module")
def story(smollm2_folder):
    subject = load("smollm2-135m")
    return capture(subject, PEER["text"]), capture(subject, PEER["corrupted text"])


@pytest.fixture(scope="module")
def maps(story):
    """All five, exact, in one sweep, and estimated."""
    kinds = ["residual", "attention", "mlp", "heads", "patterns"]
    return [patch(*story, kinds, " Mary", " John", approximate=rough) for rough in (False, True)]


KINDS = {"residual": "residual before", "attention": "attention", "mlp": "mlp", "heads": "head", "patterns": "pattern"}


def grid(table: pd.DataFrame, kind: str) -> torch.Tensor:
    """(layers, positions or heads)."""
    part = table[table.kind == KINDS[kind]]
    return torch.tensor(part.effect.tolist()).view(30, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_map_as_transformerlens_has_it(maps, kind):
    """benchmarks/transformerlens.py wrote its figures."""
    exact, _ = maps
    expected = torch.tensor(PEER[kind])
    found = grid(exact, kind)[PEER["layers"]]
    assert (found - expected).abs().max() <= 1e-4 * max(1, float(expected.abs().max()))
    assert exact.attrs["clean"] == pytest.approx(PEER["clean"], abs=1e-4)
    assert exact.attrs["corrupted"] == pytest.approx(PEER["corrupted"], abs=1e-4)


@pytest.mark.parametrize("kind", ["residual", "attention", "mlp"])
def test_estimates_as_its_gradients_have_them(maps, kind):
    _, estimated = maps
    expected = torch.tensor(PEER["approximate"][kind])
    assert (grid(estimated, kind) - expected).abs().max() <= 1e-4 * max(1, float(expected.abs().max()))


def test_estimates_correlate(maps):
    exact, estimated = maps
    near = {k: closeness(*(t[t.kind == name] for t in (exact, estimated))) for k, name in KINDS.items()}
    assert near["attention"].correlation > 0.95 and near["heads"].correlation > 0.95
    assert min(one.correlation for one in near.values()) > 0.8
    wrong = exact[exact.kind == "mlp"].iloc[near["mlp"].row]
    assert (wrong.block, wrong.token) == (0, " John")  # the first MLP reads the changed word: there the estimate fails


def test_before_the_first_difference_nothing_can_be_restored(maps):
    exact, _ = maps
    early = exact[exact.position < 9]
    assert len(early) == 9 * 30 * 3 and (early.effect == 0).all()
    assert exact.attrs["runs"] == len(exact) - len(early) - 4  # nor the other four embeddings after it


def by_hook(cap, module, change, wanted):
    """The target with the output, or (change of a) input, of a module overwritten by a plain hook."""

    def after(module, args, out):
        return change(out)

    handle = module.register_forward_hook(after)
    try:
        return wanted.value(capture(cap.subject, cap.inputs))
    finally:
        handle.remove()


@pytest.mark.parametrize("how", ["denoising", "noising"])
def test_writes_as_plain_hooks_have_them(tiny, how):
    """The MLP's output at each block and position, by a hook on the module."""
    run, source = tiny[::-1] if how == "denoising" else tiny
    wanted = target(tiny[0])
    table = patch(*tiny, "mlp", how=how)
    plain = wanted.value(run)
    for branch in run.anatomy.stream().writes:
        if branch.kind != "mlp":
            continue
        module = run.subject.module.get_submodule(branch.path)
        kept = []
        by_hook(source, module, kept.append, wanted)
        for position in range(len(tiny[0].axes["input"])):

            def change(out, at=position, given=kept[0]):
                new = out.clone()
                new[:, at] = given[:, at]
                return new

            row = table[(table.block == branch.block) & (table.position == position)].iloc[0]
            assert row.effect == pytest.approx(by_hook(run, module, change, wanted) - plain, abs=1e-4)
    assert table.effect.abs().max() > 0.05


def test_the_whole_stream_restores_everything(tiny):
    """All of the stream at once is the other run; at the end only the last position matters."""
    clean, corrupted = tiny
    table = patch(clean, corrupted, "residual")
    changed = table[(table.block == 0) & (table.position == 3)].iloc[0]
    assert changed.token == " Congress" and changed.restored == pytest.approx(1, abs=1e-4)  # the only one that differs
    whole = patch(clean, corrupted, [HeadOutput(0, None), Write(0, "mlp")], how="noising")
    assert whole.kind.tolist() == ["head", "mlp"] and len(whole) == 2
    gap = table.attrs["clean"] - table.attrs["corrupted"]
    assert table.restored.tolist() == pytest.approx((table.effect / gap).tolist())


def test_prompts_of_different_length():
    subject = load("tiny-decoder")
    clean, longer = capture(subject, CLEAN), capture(subject, "The great people of the United")
    table = patch(clean, longer, "residual")
    assert table.partner.tolist()[: len(set(table.position))] != table.position.tolist()[: len(set(table.position))]
    last = table[(table.block == 3) & (table.position == table.position.max())].iloc[0]
    assert last.partner == len(longer.axes["input"]) - 1
    with pytest.raises(InputError, match="Patterns are exchanged only between inputs of one length"):
        patch(clean, longer, "patterns")
    assert len(patch(clean, longer, "heads")) == 32


def test_every_kind_of_model():
    speller = load("tiny-encoder-decoder")
    clean, other = (capture(speller, (word, "nˈIt")) for word in ("knight", "knitts"))
    table = patch(clean, other, ["residual", "attention", "heads"])
    assert set(table["stack"]) == {"encoder", "decoder", "cross"} and "cross" in set(table.kind)
    reader = load("tiny-classifier")
    good, bad = (capture(reader, f"A {word} film") for word in ("moving", "boring"))
    table = patch(good, bad, ["residual", "mlp", "patterns"])
    assert table.attrs["clean"] > table.attrs["corrupted"] and table.restored.max() > 0.9
    eye = load("tiny-vit")
    seven, three = (capture(eye, read_image(ASSETS / f"examples/{name}.png")) for name in ("seven", "three"))
    table = patch(seven, three, "residual", "7", "3")
    assert table.restored.max() > 0.5 and table.attrs["gap"] < 1e-3
    assert patch(seven, three, "heads", "7", "3", approximate=True).effect.abs().max() > 0


def test_nothing_stays(tiny):
    clean, corrupted = tiny
    before = {name: p.clone() for name, p in clean.subject.module.named_parameters()}
    with pytest.raises(Cancelled):
        patch(clean, corrupted, cancel=lambda: True)
    with pytest.raises(Cancelled):
        patch(clean, corrupted, approximate=True, cancel=lambda: True)
    told = []
    patch(clean, corrupted, "heads", progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0
    patch(clean, corrupted, "heads", approximate=True)
    module = clean.subject.module
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in module.named_parameters())
    assert torch.equal(capture(clean.subject, CLEAN).logits, clean.logits)


def test_what_cannot_be_asked(tiny):
    clean, corrupted = tiny
    with pytest.raises(InputError, match="no difference to trace"):
        patch(clean, clean)
    with pytest.raises(InputError, match="same"):
        patch(clean, corrupted, target=" the", against=" the")
    with pytest.raises(InputError, match="how to be denoising or noising; got 'both'"):
        patch(clean, corrupted, how="both")
    with pytest.raises(InputError, match="residual, attention, mlp, heads, patterns or a list of sites; got 'neurons'"):
        patch(clean, corrupted, "neurons")
    with pytest.raises(InputError, match="Both runs must be of one model"):
        patch(clean, capture(load("tiny-attention-only"), CORRUPTED))
    with pytest.raises(InputError, match="no mlp that writes by itself"):
        subject = load("tiny-attention-only")
        patch(capture(subject, CLEAN), capture(subject, CORRUPTED), "mlp")
