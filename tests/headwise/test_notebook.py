"""A capture as the last line of a cell: the widget where there is one, a picture where not, a line in a terminal."""

import importlib.util
import sys

import pytest
import torch

from headwise import capture, load, notebook, wrap
from headwise.interp.drawing.canvas import pack
from headwise.interp.subject import Inputs
from tests.pages.test_canvas import unpack

TEXT = "The people of the United States and the people of the world."


@pytest.fixture(scope="module")
def cap():
    return capture(load("tiny-decoder"), TEXT)


def test_what_a_terminal_says_is_a_line(cap):
    assert repr(cap) == f"Capture('tiny-decoder', input of {len(cap.axes['input'])}; decoder: 4 layers)"
    assert "ipykernel" in sys.modules or cap._repr_mimebundle_() == {"text/plain": repr(cap)}
    assert len(repr(cap.subject).splitlines()) <= 4


def test_without_the_extra_a_sentence_and_a_picture(cap, monkeypatch):
    monkeypatch.setattr(notebook, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    data, _ = cap._repr_mimebundle_()
    assert 'pip install "headwise[notebook]"' in data["text/plain"] and "layer 1, head 6" in data["text/plain"]
    assert "<svg" in data["image/svg+xml"] and "layer 1 · head 6" in data["image/svg+xml"]
    assert "layer 3 · head 1" in cap.head(3, 1)._repr_mimebundle_()["image/svg+xml"]


@pytest.mark.parametrize(("layer", "head", "said"), [(9, 0, "has layers"), (1, 8, "head expects 0 … 7")])
def test_a_head_that_is_not_there(cap, layer, head, said):
    with pytest.raises(IndexError, match=said):
        cap.head(layer, head)


def test_nothing_to_look_at_is_text():
    plain = wrap(torch.nn.Linear(3, 3), encode=lambda raw: Inputs({}, args=(raw,)), kind="custom")
    nothing = capture(plain, torch.zeros(1, 3))
    assert notebook.shown(nothing) == repr(nothing)


needs_widget = pytest.mark.skipif(importlib.util.find_spec("anywidget") is None, reason="anywidget is an extra")


@needs_widget
def test_the_widget_holds_every_head_exactly(cap):
    widget = cap._display_()
    header, arrays = unpack(widget.all_heads)
    assert (widget.layer, widget.head) == (1, 6) and len(header["entries"]) == 32 and header["exact"]
    size = len(cap.axes["input"])
    for row, head, _, mask, first, title in header["entries"]:
        mine = torch.from_numpy(arrays["values"][first : first + size * size].copy()).view(size, size)
        assert torch.equal(mine, cap.find(row).weights(head)[0].float()) and title == f"layer {row} · head {head}"
        assert torch.equal(torch.from_numpy(arrays[f"mask.{mask}"].copy()), torch.ones_like(mine).triu(1).byte())
    assert unpack(widget.one)[0]["heads"] == header["id"] and not unpack(widget.one)[1]
    assert "induction" in unpack(widget.grid)[0]["captions"]["1.6"]


@needs_widget
def test_python_hears_and_answers(cap):
    widget = cap._display_()
    widget.act = {"layer": 2, "head": 3, "token": {"axis": "query", "index": 4}, "turn": 7}
    assert (widget.layer, widget.head, widget.pin) == (2, 3, {"axis": "query", "index": 4})
    header, _ = unpack(widget.one)
    assert (header["chosen"], header["selected"], header["turn"]) == ([2, 3], {"axis": "query", "index": 4}, 7)
    widget.layer = 0
    assert unpack(widget.one)[0]["chosen"] == [0, 3]


@needs_widget
def test_one_head_travels_alone(cap):
    widget = cap.head(3, 1)
    assert not widget.all_heads and not widget.grid
    header, arrays = unpack(widget.one)
    assert torch.equal(torch.from_numpy(arrays["matrix"].copy()), cap.find(3).weights(1)[0]) and header["heads"] is None


@needs_widget
def test_another_stack():
    widget = capture(load("tiny-encoder-decoder"), "knight")._display_()
    assert widget.stack == "cross" and unpack(widget.words)[0]["key"]["words"][:2] == ["k", "n"]
    widget.stack = "encoder"
    assert (widget.layer, widget.head) == (0, 0) and unpack(widget.words)[0]["key"] is None


def test_a_message_is_what_was_packed():
    header, arrays = unpack(pack({"a": 1}, half=torch.tensor([0.5, 65504.0]).half().numpy()))
    assert header == {"a": 1} and arrays["half"].tolist() == [0.5, 65504.0]
