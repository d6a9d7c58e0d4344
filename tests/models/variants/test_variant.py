"""The decoder that takes any mechanism: with full attention it is the decoder, and steps are the forward."""

import pytest
import torch

from headwise.models.architectures.decoder import Decoder, DecoderConfig
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.variants import mechanism
from tests.models.variants.decoding import assert_steps_are_the_forward

SIZE = {"vocab_size": 13, "context": 32, "layers": 2, "heads": 2, "width": 16}
IDS = torch.randint(13, (2, 9), generator=torch.Generator().manual_seed(0))


def model(positions: str = "rotary", kind: str = "full", **options) -> VariantDecoder:
    torch.manual_seed(0)
    return VariantDecoder(VariantConfig(kind, **SIZE, positions=positions, options=options)).eval()


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_with_full_attention_it_is_the_decoder(positions):
    plain = Decoder(DecoderConfig(**SIZE, positions=positions)).eval()
    same = model(positions)
    same.load_state_dict(plain.state_dict())
    assert torch.equal(same(IDS), plain(IDS))


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoids", "none"])
@pytest.mark.parametrize("chunks", [(1,) * 9, (4, 1, 4), (9,)])
def test_steps_are_the_forward(positions, chunks):
    assert_steps_are_the_forward(model(positions), IDS, chunks)


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"mechanism expects one of full.*got 'fool'"):
        mechanism("fool")
    with pytest.raises(ValueError, match="33 tokens exceed the context of 32"):
        model()(torch.zeros(1, 33, dtype=torch.long))
