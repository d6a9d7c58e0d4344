"""What a run is given beside tensors: flags, None, caches, positional arguments, in any order."""

import pytest
import torch
import transformers
from torch import nn

from headwise.interp.run.capture import capture
from headwise.interp.subject import Inputs, Subject, tensors_only

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": 99, "pad_token_id": 0,
}  # fmt: skip
T, PAST = 9, 4


@pytest.fixture(params=["Llama", "Gemma2"])  # Gemma 2 caps its logits, so a capture of it runs twice
def pair(request):
    """A model, and its eager twin."""
    config = getattr(transformers, f"{request.param}Config")(**SIZES, head_dim=8)
    auto = transformers.AutoModelForCausalLM
    module = auto.from_config(config).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.25)
    twin = auto.from_config(config, attn_implementation="eager").eval()
    twin.load_state_dict(module.state_dict())
    return Subject(module, tensors_only(module), "tiny", "decoder"), twin


def same_weights(cap, theirs):
    assert len(cap.calls) == len(theirs)
    return all((c.band(0, c.queries) - t).abs().max() <= 1e-5 for c, t in zip(cap.calls, theirs, strict=True))


FLAGS = (
    {"use_cache": False},
    {"use_cache": True, "past_key_values": None, "position_ids": None},
    {"use_cache": False, "return_dict": True, "output_hidden_states": True, "inputs_embeds": None},
)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("first", [True, False])
def test_flags_and_none_are_passed_as_they_are(pair, flags, first):
    subject, twin = pair
    ids = torch.randint(2, 98, (2, T))
    raw = {**flags, "input_ids": ids} if first else {"input_ids": ids, **flags}
    cap = capture(subject, raw)
    with torch.no_grad():
        reference = twin(input_ids=ids, output_attentions=True)
    assert cap.inputs.batch == 2 and not cap.unseen
    assert same_weights(cap, reference.attentions)
    torch.testing.assert_close(cap.logits, reference.logits, atol=1e-4, rtol=1e-4)


def test_tuples_are_asked_for_with_a_flag(pair):
    subject, twin = pair
    ids = torch.randint(2, 98, (1, T))
    cap = capture(subject, {"return_dict": False, "input_ids": ids})
    with torch.no_grad():
        torch.testing.assert_close(cap.logits, twin(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("grad", [False, True])
def test_a_cache_is_read_and_not_grown(pair, grad):
    """However often the input is run: for the capture, for its fidelity, for its residuals; and whatever made it."""
    subject, twin = pair
    ids = torch.randint(2, 98, (2, T))
    with torch.set_grad_enabled(grad):
        past = subject.module(input_ids=ids[:, :PAST], use_cache=True).past_key_values
    with torch.no_grad():
        theirs = twin(input_ids=ids, output_attentions=True).attentions
    for _ in range(2):
        cap = capture(subject, {"past_key_values": past, "use_cache": True, "input_ids": ids[:, PAST:]})
        assert [c.shape for c in cap.calls] == [(2, 4, T - PAST, T)] * 2
        assert same_weights(cap, [t[:, :, PAST:] for t in theirs])
        assert cap.fidelity <= 1e-4
        assert [r.shape for r in cap.residuals] == [(2, T - PAST, 32)] * 3
    assert past.get_seq_length() == PAST


@pytest.mark.parametrize("values, batch", [
    ({"use_cache": False, "scale": 2.0, "name": "x", "nothing": None, "ids": torch.zeros(3, 5)}, 3),
    ({"temperature": torch.tensor(0.5), "ids": torch.zeros(4, 5)}, 4),
    ({"flag": True}, 1),
])  # fmt: skip
def test_the_batch_is_that_of_the_first_tensor_with_axes(values, batch):
    assert Inputs(values).batch == batch
    assert Inputs({}, args=tuple(values.values())).batch == batch


class AnyArguments(nn.Module):
    """Takes whatever is given by position, as Keras models do."""

    def forward(self, *args, **kwargs):
        x, scale = args
        return (x @ x.mT * scale).softmax(-1) @ x


def test_positional_arguments():
    x = torch.randn(2, 5, 8)
    subject = Subject(AnyArguments(), lambda raw: raw, "any")
    cap = capture(subject, Inputs({}, args=(x, 0.5)))
    torch.testing.assert_close(cap.calls[0].weights(0), (x @ x.mT * 0.5).softmax(-1))
