"""What an answer can be attributed to: the units of a text, a picture and a recording, and the answer as a function."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headwise.interp.analysis.attribution.features import features
from headwise.interp.analysis.targets import Target, target
from headwise.interp.attention.axes import Axis, Sound
from headwise.interp.errors import InputError
from headwise.interp.run.capture import capture, rerun
from headwise.interp.run.edits import HeadOutput, Zero
from headwise.interp.subject import Inputs
from headwise.models import load, wrap

GREY = Image.fromarray((np.arange(28 * 28).reshape(28, 28) % 251).astype("uint8"))
RAW = {
    "tiny-decoder": "The people of the United",
    "tiny-encoder": "The LORD said unto [MASK] , go .",
    "tiny-classifier": "A wonderful film with a bad ending",
    "tiny-encoder-decoder": ("headwise", ""),
    "tiny-vit": GREY,
}


@pytest.mark.parametrize("name", RAW)
def test_the_input_as_it_is_gives_what_the_run_said(name):
    cap = capture(load(name), RAW[name])
    found, wanted = features(cap), target(cap)
    value = found.forward(wanted)
    assert value(*found.embedded).item() == pytest.approx(wanted.value(cap), abs=1e-5)
    whole = torch.ones(3, found.count, dtype=torch.bool)
    kept = found.kept(whole)
    assert all(torch.equal(one, other.expand_as(one)) for one, other in zip(kept, found.embedded, strict=True))
    assert value(*kept).tolist() == pytest.approx([wanted.value(cap)] * 3, abs=1e-4)


@pytest.mark.parametrize("name", RAW)
def test_many_in_one_run_are_what_they_are_alone(name):
    cap = capture(load(name), RAW[name])
    found = features(cap)
    value, masks = found.forward(target(cap)), torch.rand(7, found.count) > 0.4
    together = value(*found.kept(masks))
    alone = [value(*found.kept(one[None])).item() for one in masks]
    assert together.tolist() == pytest.approx(alone, abs=1e-4)


def test_a_removed_token_is_another_input():
    """A token replaced by the mask token is the text that has [MASK] there."""
    subject = load("tiny-encoder")
    cap = capture(subject, "The LORD said unto [MASK] , go .")
    found, wanted = features(cap), target(cap, position=5)
    mask = torch.tensor([label != "lord" for label in found.labels])
    other = capture(subject, "The [MASK] said unto [MASK] , go .")
    value = found.forward(wanted)(*found.kept(mask[None], "mask"))
    assert value.item() == pytest.approx(wanted.value(other), abs=1e-4)
    assert found.fixed.tolist() == [label in ("[CLS]", "[SEP]", "[MASK]") for label in found.labels]


def test_sums_over_units_by_hand():
    cap = capture(load("tiny-vit"), GREY)
    found = features(cap)
    pixels = found.embedded[0]
    by_hand = pixels[0, 0].unflatten(0, (7, 4)).unflatten(2, (7, 4)).sum((1, 3)).flatten()  # patches of 4 × 4
    torch.testing.assert_close(found.gathered(pixels), by_hand)
    assert found.count == 49 and found.labels[0] == "0,0"
    one = found.sequences[0].from_positions(torch.arange(50.0))
    assert one.tolist() == [*range(1, 50)], "the class token is no patch"
    mask = torch.ones(1, 49, dtype=torch.bool)
    mask[0, 8] = False  # second row, second column
    (changed,) = found.kept(mask, "zero")
    assert bool((changed[0, 0, 4:8, 4:8] == 0).all())
    changed[0, 0, 4:8, 4:8] = pixels[0, 0, 4:8, 4:8]
    assert torch.equal(changed, pixels)


def test_a_recording_is_cut_into_strips():
    """One second of a spectrogram of 3 seconds: ten strips of a tenth, and what pads it, which stays."""

    class Listener(nn.Module):
        def forward(self, input_features):
            return input_features.mean((1, 2))[:, None] * torch.tensor([1.0, 2.0])

    sound = Sound(np.zeros((4, 300), "float32"), hop=0.01, step=0.02, seconds=1.0)
    axis = Axis(tuple(map(str, range(150))), sound=sound)
    module = Listener()
    heard = torch.arange(1200.0).view(1, 4, 300)
    subject = wrap(module, encode=lambda raw: Inputs({"input_features": raw}, {"input": axis}))
    found = features(capture(subject, heard))
    assert found.labels == (*(f"0.{i}0 s" for i in range(10)), "after the end")
    assert found.fixed.tolist() == [False] * 10 + [True] and found.axes[0][1].sound.step == pytest.approx(0.1)
    assert found.gathered(heard)[1] == heard[0, :, 10:20].sum()
    places = found.sequences[0].from_positions(torch.ones(150))
    assert places.tolist() == [5] * 10 + [100]
    least = found.baseline()[0]
    assert torch.equal(least[0, :, :100], heard[0, :, :1].expand(4, 100)) and torch.equal(
        least[..., 100:], heard[..., 100:]
    )


def test_vectors_are_units_too():
    subject = wrap(nn.Linear(3, 2))
    cap = capture(subject, {"input": torch.tensor([[1.0, 2.0, 4.0]])})
    found = features(cap)
    value = found.forward(Target(1))
    weight, bias = subject.module.weight[1].tolist(), subject.module.bias[1].item()
    without = value(*found.kept(torch.tensor([[True, False, True]])))
    assert without.item() == pytest.approx(weight[0] + 4 * weight[2] + bias, abs=1e-6)


def test_a_bare_encoder_decoder_has_a_source_and_a_target():
    from_words = load("tiny-encoder-decoder")
    given = from_words.encode(("headwise", "")).kwargs
    found = features(capture(wrap(from_words.module, kind="encoder-decoder"), dict(given)))
    assert [name for name, _ in found.axes] == ["source", "target"]
    assert found.labels[:2] == ("0", "1") and not bool(found.fixed.any())


def test_edits_of_the_run_stay():
    cap = capture(load("tiny-classifier"), RAW["tiny-classifier"])
    edited = rerun(cap, [Zero(HeadOutput(0, 1)), Zero(HeadOutput(2, 3))])
    wanted = target(cap)
    assert abs(wanted.value(edited) - wanted.value(cap)) > 1e-3
    found = features(edited)
    value = found.forward(wanted)
    twice = value(*found.kept(torch.ones(2, found.count, dtype=torch.bool)))
    assert twice.tolist() == pytest.approx([wanted.value(edited)] * 2, abs=1e-4)


def test_a_model_that_takes_no_batch_is_run_one_by_one():
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 9)

        def forward(self, input_ids):
            if len(input_ids) > 1:
                raise ValueError("one text at a time")
            return self.head(self.embed(input_ids).cumsum(1))

    subject = wrap(Alone(), encode=lambda raw: {"input_ids": raw}, kind="decoder")
    cap = capture(subject, torch.tensor([[1, 5, 2]]))
    found = features(cap)
    vectors = subject.module.embed(torch.tensor([1, 2]))
    value = found.forward(Target(3, position=2))(*found.kept(torch.tensor([[True, False, True], [True, True, True]])))
    assert value[0].item() == pytest.approx(subject.module.head(vectors.sum(0))[3].item(), abs=1e-5)


def test_refused_in_one_sentence():
    subject = load("tiny-decoder")
    two = capture(subject, {"input_ids": torch.ones(2, 3, dtype=torch.long)})
    with pytest.raises(InputError, match="batch of 2"):
        features(two)
    with pytest.raises(InputError, match="zero, mean"):
        features(capture(subject, "The people")).baseline("noise")

    class Counter(nn.Module):
        def forward(self, input_ids):
            return torch.nn.functional.one_hot(input_ids, 5).float()

    with pytest.raises(InputError, match="looks up no tokens"):
        features(capture(wrap(Counter(), kind="decoder"), torch.tensor([[1, 2]])))
