"""Hugging Face architectures that are right are not flagged; those that are not were confirmed by hand."""

import pytest

from headwise import check
from headwise.interp.masks import Bidirectional, Causal
from tests.interp.check.architectures import DECODERS, ENCODERS, PAIRS, tiny

# transformers 5.23, each confirmed by reading its module. The convolutions of ConvBERT and Nyströmformer, and
# MobileBERT's trigram of neighbouring embeddings, read padded positions, which no mask hides. Falcon under sdpa, asked
# for its weights, adds its bool mask to the scores (FalconAttention.forward: softmax(attention_scores +
# attention_mask)), so that they see the future.
UPSTREAM = {
    "convbert": ("outside-attention", "encoder.layer.0.attention.self.key_conv_attn_layer"),
    "nystromformer": ("outside-attention", "encoder.layer.0.attention.self.conv"),
    "falcon": ("mode", "transformer.h.0.self_attention"),
    "mobilebert": ("outside-attention", "embeddings"),
}


@pytest.mark.parametrize("kind", (*DECODERS, *ENCODERS, *PAIRS))
def test_architecture(kind):
    report = check(
        tiny(kind), Bidirectional() if kind in ENCODERS else Causal(), length=19 if kind != "whisper" else None
    )
    if kind in UPSTREAM:
        cls, module = UPSTREAM[kind]
        assert report.classes == (cls,) and report.findings[0].module.startswith(module), str(report)
    else:
        assert report.ok, str(report)
        assert len([p for p in report.probed if p.applied]) >= 5
