"""All methods by name: on every kind of model they answer, or say in one sentence why not."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headwise.interp.analysis.attribution import METHODS, attribute, explain, features, why_not
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.capture import capture
from headwise.interp.run.sweeping import Cancelled
from headwise.models import load, wrap
from headwise.models.inputs.media import Waveform

DIGIT = Image.fromarray((np.arange(28 * 28).reshape(28, 28) % 251).astype("uint8"))
RAW = {
    "tiny-decoder": "The people of the United",
    "tiny-attention-only": "a b c d a b",
    "tiny-encoder": "The LORD said unto [MASK] , go .",
    "tiny-classifier": "A wonderful film with a bad ending",
    "tiny-encoder-decoder": ("headwise", ""),
    "tiny-vit": DIGIT,
}
ONE_STACK = {"attention rollout", "attention flow"}


def answered(cap, method):
    found = explain(cap, method)
    assert found.scores.shape == (features(cap).count,) and bool(found.scores.isfinite().all())
    assert bool((found.scores != 0).any())
    assert found.signed == METHODS[method].signed and (found.signed or bool((found.scores >= 0).all()))
    assert (found.baseline is not None) == METHODS[method].baseline
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", RAW)
def test_every_method_on_every_bundled_model(name, method):
    cap = capture(load(name), RAW[name])
    if name == "tiny-encoder-decoder" and method in ONE_STACK:
        reason = why_not(cap, method)
        assert reason.endswith("Chefer relevance has rules for both.") and reason.startswith(method.capitalize()[:9])
        with pytest.raises(InputError, match="one stack of self-attention"):
            explain(cap, method)
        return
    assert why_not(cap, method) is None
    found = answered(cap, method)
    assert found.seconds > 0


def test_a_recording(whisper_folder):
    """Frames of the source and tokens of the target, both in one attribution."""
    sound = Waveform((np.sin(np.arange(16_000) * 0.05) * 0.3).astype("float32"), 16_000)
    cap = capture(load("whisper-tiny-en"), (sound, "Hello there"))
    for method in ("Chefer relevance", "AttnLRP"):
        found = answered(cap, method)
        assert len(found.of("source")[0]) == 11 and found.of("source")[0].sound.step == pytest.approx(0.1)
        assert found.of("target")[0].labels[2].strip() == "Hello"
    assert "300 take too long" not in (why_not(cap, "attention rollout") or "")


def test_every_method_says_what_it_is():
    for name, method in METHODS.items():
        assert method.name == name and method.family in ("gradients", "removal", "attention", "relevance")
        assert method.sentence.endswith(".") and method.limits.endswith(".")
        assert method.paper[1].startswith("https://arxiv.org/abs/")
    assert len(METHODS) == 12


def test_refused_in_one_sentence():
    cap = capture(load("tiny-classifier"), RAW["tiny-classifier"])
    with pytest.raises(InputError, match="The methods are integrated gradients, saliency"):
        explain(cap, "magic")
    with pytest.raises(InputError, match="The methods are"):
        why_not(cap, "magic")
    with pytest.raises(InputError, match="The baselines here are zero, mean"):
        explain(cap, baseline="blur")
    with pytest.raises(InputError, match="steps expects a whole number"):
        explain(cap, steps=0)
    with pytest.raises(InputError, match="the same, 'favourable'"):
        attribute(cap.subject, RAW["tiny-classifier"], target="favourable", against="favourable")


def test_a_model_without_attention():
    cap = capture(wrap(nn.Linear(3, 2)), {"input": torch.ones(1, 3)})
    assert "no attention over positions was seen" in why_not(cap, "attention rollout")
    assert why_not(cap, "saliency") is None


def test_windows_of_attention_are_no_positions_of_the_input():
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
    module = SwinForImageClassification(config).eval()
    cap = capture(wrap(module, kind="vision"), {"pixel_values": torch.rand(1, 3, 32, 32)})
    for method in ("attention rollout", "Chefer relevance"):
        assert why_not(cap, method).startswith(method.split()[0].capitalize()) and "does not apply" in why_not(
            cap, method
        )
    for method in ("integrated gradients", "occlusion", "AttnLRP"):
        answered(cap, method)


@pytest.mark.parametrize("method", ["integrated gradients", "feature ablation", "attention flow", "AttnLRP"])
def test_cancelled_in_the_middle(method):
    cap = capture(load("tiny-decoder"), RAW["tiny-decoder"])
    asked = iter([False, True, True, True])
    with pytest.raises(Cancelled):
        explain(cap, method, cancel=lambda: next(asked, True))
    answered(cap, method)  # nothing was lost


def test_progress_ends_at_one():
    cap = capture(load("tiny-decoder"), RAW["tiny-decoder"])
    for method in METHODS:
        told = []
        explain(cap, method, progress=told.append)
        assert told[-1] == 1 and all(0 <= fraction <= 1 for fraction in told)


def test_two_threads_on_one_model():
    """One hooks copies, the other runs plainly: neither sees the other."""
    cap = capture(load("tiny-classifier"), RAW["tiny-classifier"])
    wanted = target(cap)
    alone = {name: explain(cap, name, wanted).scores for name in ("DeepLIFT", "AttnLRP", "GradientSHAP", "saliency")}
    failed = []

    def often(name):
        for _ in range(4):
            if not torch.allclose(explain(cap, name, wanted).scores, alone[name], atol=1e-5):
                failed.append(name)

    threads = [threading.Thread(target=often, args=(name,)) for name in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
