"""What a subject says of itself, and the one contract of all readers."""

from functools import partial

import pytest
import torch
from accelerate import cpu_offload
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from headwise import capture, wrap
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs, Subject, tensors_only


class Packed(nn.Module):
    """A linear map of 8 → 6 numbers as quantisers hold it."""

    in_features, out_features = 8, 6

    def __init__(self, kind: str):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(6))
        if kind == "bitsandbytes, 4 bits":
            self.weight = nn.Parameter(torch.zeros(24, 1, dtype=torch.uint8), requires_grad=False)
        elif kind == "bitsandbytes, 8 bits":
            self.weight = nn.Parameter(torch.zeros(6, 8, dtype=torch.int8), requires_grad=False)
        else:  # GPTQ: eight weights of 4 bits in an int32
            self.register_buffer("qweight", torch.zeros(1, 6, dtype=torch.int32))


@pytest.mark.parametrize(
    ("kind", "bits"), [("bitsandbytes, 4 bits", 4), ("bitsandbytes, 8 bits", 8), ("GPTQ, 4 bits", 4)]
)
def test_packed_weights_count_as_what_they_stand_for(kind, bits):
    subject = wrap(nn.Sequential(nn.Embedding(10, 8, dtype=torch.float16), Packed(kind)))
    assert subject.parameters == 10 * 8 + 6 * 8 + 6
    assert subject.dtype == torch.float16 and subject.precision == f"float16, {bits}-bit weights"


def test_the_precision_is_that_of_most_weights():
    mixed = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4, dtype=torch.bfloat16), nn.Embedding(3, 4).bfloat16())
    assert wrap(mixed).dtype == torch.bfloat16
    assert wrap(nn.ReLU()).dtype == torch.float32 and wrap(nn.ReLU()).parameters == 0


def llama(**more) -> LlamaForCausalLM:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes, **more)).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_an_offloaded_model_is_where_it_runs(tied):
    module = llama(tie_word_embeddings=tied)
    # embedding, q k v o, gate up down, three norms, and the output embedding of its own where it is not tied
    expected = 50 * 16 + 4 * 16 * 16 + 3 * 16 * 32 + 3 * 16 + (0 if tied else 50 * 16)
    assert wrap(module).parameters == expected
    cpu_offload(module, torch.device("cpu"))
    subject = wrap(module, kind="decoder")
    assert next(module.parameters()).is_meta
    assert subject.parameters == expected and subject.device == torch.device("cpu")
    assert capture(subject, {"input_ids": torch.tensor([[1, 2, 3]])}).calls[0].weights(0).shape == (1, 3, 3)


def test_repr_is_three_lines():
    subject = Subject(llama(), None, "mine", "decoder", origin="a/folder")
    assert repr(subject) == "Subject 'mine': decoder\n  4,208 parameters, float32 on cpu\n  from a/folder"


# Readers


class Nameless(nn.Module):
    """As a keras.Model on torch: its forward names no argument."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, *args, **kwargs):
        return self.layer(*args, **kwargs)


class Named(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.forward = forward


def test_a_tensor_goes_where_the_module_takes_it():
    x = torch.ones(1, 3, 8)
    assert tensors_only(Nameless())(x).args == (x,) and tensors_only(Nameless())(x).batch == 1
    assert tensors_only(Named(lambda x, /: x))(x).args == (x,)
    assert tensors_only(Named(lambda src, mask=None: src))(x).kwargs == {"src": x}
    for refused in (lambda: None, lambda **options: None):
        with pytest.raises(InputError, match="so it cannot be given a tensor"):
            tensors_only(Named(refused))(x)
    cap = capture(wrap(Nameless().eval()), x)
    assert cap.calls[0].name == "layer.self_attn" and cap.fidelity < 1e-6


@pytest.mark.parametrize(
    "encode",
    [
        lambda raw: {"src": raw},
        lambda raw: Inputs({"src": raw}),
        lambda raw, truncate=False: Inputs({"src": raw}),
        lambda raw, **options: Inputs({"src": raw}),
        partial(lambda name, raw: {name: raw}, "src"),
        None,
    ],
)
def test_every_reader_takes_truncate(encode):
    subject = wrap(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), encode=encode)
    x = torch.ones(1, 3, 8)
    for inputs in (subject.encode(x), subject.encode(x, truncate=True), subject.encode(x, truncate=False)):
        assert isinstance(inputs, Inputs) and inputs.kwargs["src"] is x
    assert len(capture(subject, x).calls) == 1


def test_a_dict_may_hold_flags():
    cap = capture(wrap(llama(), kind="decoder"), {"input_ids": torch.tensor([[1, 2, 3]]), "use_cache": False})
    assert cap.inputs.kwargs["use_cache"] is False and cap.calls[0].queries == 3
