"""An estimate from the first few tokens is what the whole run then keeps."""

import pytest
import torch
import transformers
from torch import nn

from headwise import capture
from headwise.interp.attention.axes import Axis
from headwise.interp.run.cost import estimate
from headwise.interp.subject import Inputs, Subject, tensors_only

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
STACKS = {
    "d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 99, "pad_token_id": 0,
}  # fmt: skip


def subject(module: nn.Module, family: str) -> Subject:
    module = module.eval().requires_grad_(False)
    return Subject(module, tensors_only(module), type(module).__name__, family)


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(3, 99, shape)


def whisper() -> Subject:
    config = transformers.WhisperConfig(
        **STACKS, num_mel_bins=8, max_source_positions=150, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1
    )
    return subject(transformers.WhisperForConditionalGeneration(config), "audio")


def bart() -> Subject:
    config = transformers.BartConfig(**STACKS, max_position_embeddings=256)
    return subject(transformers.BartForConditionalGeneration(config), "encoder-decoder")


def llama() -> Subject:
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=2, vocab_size=99, pad_token_id=0)
    return subject(transformers.LlamaForCausalLM(config), "decoder")


def t5() -> Subject:
    config = transformers.T5Config(d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=48, vocab_size=99)
    return subject(transformers.T5ForConditionalGeneration(config), "encoder-decoder")


def vit() -> Subject:
    config = transformers.ViTConfig(**SMALL, image_size=48, patch_size=4)
    return subject(transformers.ViTForImageClassification(config), "vision")


def clip() -> Subject:
    text = SMALL | {"vocab_size": 99, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=SMALL | {"image_size": 12, "patch_size": 4}, projection_dim=8
    )
    return subject(transformers.CLIPModel(config), "custom")


def waves() -> Subject:
    """Two strides of 4: 800 samples are 199, then 49 positions."""
    conv = {"conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_feat_extract_layers": 2}
    config = transformers.Wav2Vec2Config(**SMALL, **conv, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    return subject(transformers.Wav2Vec2Model(config), "audio")


def layer() -> Subject:
    return subject(nn.TransformerEncoderLayer(32, 4, 48, batch_first=True), "custom")


MASK = torch.ones(2, 30).long()
MASK[1, :9] = 0
FRAMES = torch.randn(1, 8, 300)  # 150 positions
CASES = {  # subject, inputs, tokens
    "decoder": (llama, {"input_ids": ids(1, 90)}, 90),
    "decoder under the probe": (llama, {"input_ids": ids(1, 5)}, 5),
    "a flag": (llama, {"input_ids": ids(1, 60), "use_cache": False}, 60),
    "padded batch": (llama, {"input_ids": ids(2, 30), "attention_mask": MASK}, 30),
    "source and target": (bart, {"input_ids": ids(1, 120), "decoder_input_ids": ids(1, 40)}, 160),
    "source and target of one length": (bart, {"input_ids": ids(1, 64), "decoder_input_ids": ids(1, 64)}, 128),
    "short source": (bart, {"input_ids": ids(1, 7), "decoder_input_ids": ids(1, 100)}, 107),
    "short target": (bart, {"input_ids": ids(1, 100), "decoder_input_ids": ids(1, 3)}, 103),
    "position bias": (t5, {"input_ids": ids(1, 70), "decoder_input_ids": ids(1, 30)}, 100),
    "speech": (whisper, {"input_features": FRAMES, "decoder_input_ids": ids(1, 40)}, 40),
    "speech, first words": (whisper, {"input_features": FRAMES, "decoder_input_ids": ids(1, 4)}, 4),
    "picture": (vit, {"pixel_values": torch.randn(1, 3, 48, 48)}, 145),
    "waveform": (waves, {"input_values": torch.randn(1, 800)}, 49),
    "picture and text": (clip, {"input_ids": ids(1, 20), "pixel_values": torch.randn(1, 3, 12, 12)}, 20),
    "vectors": (layer, {"src": torch.randn(1, 50, 32)}, 50),
    "a mask of its own": (
        llama,
        {"input_ids": ids(1, 40), "attention_mask": torch.ones(1, 1, 40, 40).tril().log()},
        40,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_what_the_run_keeps(name):
    make, kwargs, tokens = CASES[name]
    model = make()
    cap, cost = capture(model, kwargs), estimate(model, Inputs(kwargs))
    assert cost.bytes == pytest.approx(cap.nbytes, rel=0.02)
    assert (cost.calls, cost.heads) == (len(cap.calls), sum(c.heads for c in cap.calls))
    assert cost.tokens == tokens


def test_the_probe_reads_a_few_tokens_only():
    model, read = llama(), []
    model.module.model.embed_tokens.register_forward_hook(lambda module, given, made: read.append(given[0].shape))
    estimate(model, Inputs({"input_ids": ids(1, 2000)}))
    estimate(model, Inputs({"input_ids": ids(1, 900)}))  # which is cut to the same shape
    assert read == [(1, 8)]


def test_frames_are_no_tokens_but_take_their_time():
    """An axis names the frames; the seconds count the work on them."""
    model = whisper()
    kwargs = {"input_features": FRAMES, "decoder_input_ids": ids(1, 4)}
    axes = {"source": Axis(("frame",) * 150), "target": Axis(("word",) * 4)}
    speech = estimate(model, Inputs(kwargs, axes))
    assert speech.tokens == 4
    twin = bart()
    twin = estimate(twin, Inputs({"input_ids": ids(1, 4), "decoder_input_ids": ids(1, 4)}))
    assert speech.run_seconds > 10 * twin.run_seconds
    assert speech.survey_seconds > 10 * twin.survey_seconds


def test_seconds_grow_with_the_square_of_a_long_text():
    short, long = (estimate(llama(), Inputs({"input_ids": ids(1, n)})) for n in (500, 1000))
    assert long.survey_seconds == pytest.approx(4 * short.survey_seconds, rel=1e-6)
    assert 2 < long.run_seconds / short.run_seconds < 4
    assert long.seconds == long.run_seconds + long.survey_seconds
