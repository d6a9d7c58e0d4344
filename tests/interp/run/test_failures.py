"""Whatever a stranger's model raises is one sentence: where, on what it was given, and what it seems to want."""

import pytest
import torch
import transformers as tf
from torch import nn

from headwise import capture, wrap
from headwise.interp.errors import InputError

TEXT = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**{k: v for k, v in TEXT.items() if k != "vocab_size"}, "image_size": 28, "patch_size": 14}
IDS = torch.arange(3, 9)[None]


def clip():
    return tf.CLIPModel(tf.CLIPConfig(text_config={**TEXT, "eos_token_id": 2}, vision_config=VISION, projection_dim=16))


def siglip():
    return tf.SiglipModel(tf.SiglipConfig(text_config=TEXT, vision_config=VISION))


def vilt():
    return tf.ViltModel(tf.ViltConfig(**TEXT, image_size=28, patch_size=14))


@pytest.mark.parametrize("make", [clip, siglip, vilt])
def test_a_model_of_two_inputs_given_a_text_names_the_other(make):
    with pytest.raises(InputError) as raised:
        capture(wrap(make().eval()), {"input_ids": IDS})
    said = str(raised.value)
    assert "input_ids (1, 6) int64" in said and "also takes pixel_values" in said and "\n" not in said
    assert raised.value.__cause__ is not None


def test_a_wrong_shape_says_where_it_broke_and_what_was_given():
    model = tf.BertForMultipleChoice(tf.BertConfig(**TEXT)).eval()
    with pytest.raises(
        InputError, match=r"BertForMultipleChoice could not run on input_ids \(1, 6\) int64.*It takes|kind it takes"
    ):
        capture(wrap(model), {"input_ids": IDS})


def test_the_module_that_raised_is_named():
    class Inner(nn.Module):
        def forward(self, x):
            return {}["gone"]

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Identity(), Inner()])

        def forward(self, x):
            return self.blocks[1](x)

    with pytest.raises(InputError, match=r"Outer could not run on x \(1, 2\) float32: KeyError in blocks\.1: 'gone'\."):
        capture(wrap(Outer()), torch.ones(1, 2))


def test_arguments_that_are_not_taken_or_missing():
    layer = nn.TransformerDecoderLayer(8, 2, batch_first=True).eval()
    with pytest.raises(InputError, match=r"does not take these inputs: .*memory.*It takes tgt, memory"):
        capture(wrap(layer), {"tgt": torch.ones(1, 3, 8)})
    with pytest.raises(InputError, match=r"does not take these inputs: .*colour"):
        capture(wrap(layer), {"tgt": torch.ones(1, 3, 8), "memory": torch.ones(1, 3, 8), "colour": 1})


def test_an_operation_that_refuses_its_argument_is_no_argument_of_the_module():
    class Stack(nn.Module):
        def forward(self, x):
            return torch.stack(x[0])  # "argument 'tensors' … must be tuple of Tensors, not Tensor"

    with pytest.raises(InputError, match=r"Stack could not run on x \(1, 2\) float32: TypeError.*argument 'tensors'"):
        capture(wrap(Stack()), torch.ones(1, 2))


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_too_little_memory_is_said_as_that(error):
    class Greedy(nn.Module):
        def forward(self, x):
            raise error

    with pytest.raises(InputError, match=r"ran out of memory on this input\. Use a shorter input"):
        capture(wrap(Greedy()), torch.ones(1, 2))


def test_a_long_message_is_cut_to_a_sentence():
    class Chatty(nn.Module):
        def forward(self, x):
            raise RuntimeError("first line\n" + "and more " * 200)

    with pytest.raises(InputError) as raised:
        capture(wrap(Chatty()), torch.ones(1, 2))
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)


def test_a_crash_of_ours_is_not_the_model_s(monkeypatch):
    def crash(*args, **kwargs):
        raise KeyError("ours")

    monkeypatch.setattr("headwise.interp.run.running.listen", crash)
    with pytest.raises(KeyError, match="ours"):
        capture(wrap(nn.Linear(2, 2)), torch.ones(1, 2))
