"""What travels to the browser: all heads of a stack, and the text that they look at."""

import numpy as np
import pytest
import torch

from headwise import capture, load
from headwise.interp.drawing.canvas import Look, all_heads, explorer, running_text
from headwise.interp.drawing.matrix import head_view
from headwise.interp.run.generate import extend
from tests.pages.test_canvas import unpack

TEXT = "The people spoke.\nAnd 🙂 then?"


@pytest.fixture(scope="module")
def cap():
    return capture(load("tiny-decoder"), TEXT)


def matrices(packed):
    header, arrays = unpack(packed.message)
    for row, head, axes, _, first, _ in header["entries"]:
        rows, columns = header["axes"][axes]["cells"]
        yield row, head, arrays["values"][first : first + rows * columns].reshape(rows, columns)


@pytest.mark.parametrize("quantity", ["weights", "scores", "value_weighted"])
@pytest.mark.parametrize("exact", [True, False])
def test_every_head_is_what_head_view_gives(cap, quantity, exact, monkeypatch):
    if not exact:
        monkeypatch.setattr(explorer, "EXACT", 0)
    found = list(matrices(all_heads(cap, quantity=quantity, explorer="e")))
    assert len(found) == 32
    for row, head, values in found:
        wanted = head_view(cap, cap.find(row), head, quantity).values.numpy()
        np.testing.assert_allclose(values, wanted, rtol=0 if exact else 2**-11, atol=0 if exact else 2**-25)


def test_words_and_special_tokens(cap):
    bert = capture(load("tiny-encoder"), "The unbelievable people.")
    look = Look(words=True, special=False)
    for row, head, values in matrices(all_heads(bert, look=look, explorer="e")):
        wanted = head_view(bert, bert.find(row), head, words=True, special=False)
        np.testing.assert_array_equal(values, wanted.values.numpy())
    assert running_text(bert, bert.find(0), look)["query"]["words"] == ["The", " unbelievable", " people", "."]


def test_what_does_not_fit_stays(cap, monkeypatch):
    monkeypatch.setattr(explorer, "MOST", 1000)
    assert all_heads(cap, explorer="e") is None
    monkeypatch.undo()
    monkeypatch.setattr(explorer, "LARGEST_HEAD", 4)
    assert all_heads(cap, explorer="e") is None


def test_numbers_beyond_half_precision_stay_too():
    values, forbidden = np.array([[1.0, -3e38], [np.nan, 7e4]], np.float32), np.array([[0, 1], [0, 0]], np.uint8)
    with pytest.raises(ValueError, match="half"):
        explorer._Heads._halved(values, forbidden)
    values[1, 1] = 2
    assert explorer._Heads._halved(values, forbidden).tolist()[0] == [1.0, -65504.0]


def test_the_same_heads_have_the_same_name(cap):
    again = capture(load("tiny-decoder"), TEXT)
    assert all_heads(cap, explorer="e") == all_heads(again, explorer="e")
    assert all_heads(cap, explorer="e").id != all_heads(cap, quantity="scores", explorer="e").id


def test_the_words_together_are_the_text(cap):
    text = running_text(cap, cap.find(0))
    face = [label for label in cap.axes["input"].labels if "🙂" in label]  # a token for each of its bytes
    assert "".join(text["query"]["words"]) == TEXT.replace("🙂", "".join(label.strip() for label in face))
    assert text["key"] is None and text["query"]["written"] is None


def test_what_was_written_begins_where_the_text_ended(cap):
    longer = capture(cap.subject, extend(cap.subject, cap.inputs, [300, 301]))
    assert running_text(longer, longer.find(0), written=2)["query"]["written"] == len(cap.axes["input"])


def test_special_tokens_are_named():
    bert = capture(load("tiny-encoder"), "The people.")
    text = running_text(bert, bert.find(0))["query"]
    assert text["special"] == [0, len(text["words"]) - 1] and text["words"][0] == "[CLS]"


def test_patches_and_frames_are_no_text():
    from PIL import Image

    seen = capture(load("tiny-vit"), Image.new("RGB", (28, 28)))
    assert running_text(seen, seen.find(0)) is None
    assert len(list(matrices(all_heads(seen, explorer="e")))) == sum(call.heads for call in seen.calls)
    assert torch.is_tensor(seen.find(0).weights(0))
