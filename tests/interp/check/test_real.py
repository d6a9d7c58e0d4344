"""Real weights: green as they are, and found out when one layer is damaged."""

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, WhisperForConditionalGeneration

from headwise import check
from headwise.interp.masks import Bidirectional, Causal, Window

FAST = {"modes": "base", "dtypes": (), "budget": 60.0}


@pytest.fixture(scope="module")
def smollm2(smollm2_folder):
    return AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def minilm(minilm_folder):
    return AutoModel.from_pretrained(minilm_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def whisper(whisper_folder):
    return WhisperForConditionalGeneration.from_pretrained(whisper_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def heard(whisper):
    """What the real encoder makes of two synthetic log-mel spectrograms, with ids for the decoder."""
    config = whisper.config
    spectrograms = torch.randn(
        2, config.num_mel_bins, 2 * config.max_source_positions, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        return {"encoder_outputs": whisper.get_encoder()(spectrograms), "decoder_input_ids": ids(11)}


def ids(length=19, high=20_000):
    return torch.randint(1_000, high, (2, length), generator=torch.Generator().manual_seed(0))


def test_smollm2_is_green_with_cache_padding_packing_and_labels(smollm2):
    report = check(smollm2, Causal(), inputs=ids(), **FAST)
    assert report.ok, str(report)
    assert {"P T E", "B", "C", "K", "L", "A", "J"} <= {p.letter for p in report.probed if p.applied}, str(report)


def test_minilm_is_green_under_padding(minilm):
    report = check(minilm, Bidirectional(), inputs=ids(), **FAST)
    assert report.ok, str(report)
    assert "B" in {p.letter for p in report.probed if p.applied}


def test_a_layer_without_its_mask_is_named(smollm2):
    attention = smollm2.model.layers[13].self_attn
    attention.is_causal = False
    try:
        finding = check(smollm2, Causal(), inputs=ids(11), **FAST).findings[0]
    finally:
        attention.is_causal = True
    assert (finding.cls, finding.layer, finding.module) == ("future-leak", 13, "model.layers.13.self_attn"), str(
        finding
    )
    assert finding.smallest["length"] == 2


def test_a_window_off_by_one_is_named(smollm2):
    """All layers get a window of four keys; layer 7 gets five."""

    def given(left):
        def hook(module, args, kwargs):
            length = kwargs["hidden_states"].shape[1]
            allowed = (Causal() & Window(left, 0)).dense(length, length)
            return args, {**kwargs, "attention_mask": allowed[None, None]}

        return hook

    hooks = [
        layer.self_attn.register_forward_pre_hook(given(4 if i == 7 else 3), with_kwargs=True)
        for i, layer in enumerate(smollm2.model.layers)
    ]
    try:
        report = check(smollm2, Window(3, 0), inputs=ids(13), **FAST, forward=lambda model, x: model(x))
    finally:
        for hook in hooks:
            hook.remove()
    finding = report.findings[0]
    assert (finding.cls, finding.layer) == ("window", 7), str(finding)


def test_positions_counted_from_the_padding_are_named(minilm):
    embeddings, right = minilm.embeddings, type(minilm.embeddings).forward
    embeddings.forward = lambda input_ids=None, position_ids=None, **rest: right(embeddings, input_ids, **rest)
    try:
        finding = check(minilm, Bidirectional(), inputs=ids(), **FAST).findings[0]
    finally:
        del embeddings.forward
    assert finding.cls == "position-ids" and finding.module.startswith("embeddings"), str(finding)


def test_a_padding_mask_that_one_layer_drops_is_named(minilm):
    attention = minilm.encoder.layer[3].attention

    def drop(module, args, kwargs):
        return (args[0], *args[2:]) if len(args) > 1 else args, {**kwargs, "attention_mask": None}

    hook = attention.register_forward_pre_hook(drop, with_kwargs=True)
    try:
        finding = check(minilm, Bidirectional(), inputs=ids(), **FAST).findings[0]
    finally:
        hook.remove()
    assert (finding.cls, finding.layer) == ("padding", 3), str(finding)


def test_whisper_decoder_is_green_with_cross_attention_cache_and_padding(whisper, heard):
    report = check(whisper, Causal(), inputs=heard, **FAST)
    assert report.ok, str(report)
    probed = {p.letter: p.detail for p in report.probed if p.applied}
    assert {"P T E", "B S", "A", "B", "C", "L"} <= set(probed), str(report)
    assert "on the right and the left" in probed["B"] and "left-padded" in probed["C"], str(report)


def test_a_whisper_decoder_layer_without_its_mask_is_named(whisper, heard):
    attention = whisper.model.decoder.layers[2].self_attn
    attention.is_causal = False
    try:
        finding = check(whisper, Causal(), inputs=heard, **FAST).findings[0]
    finally:
        attention.is_causal = True
    assert (finding.cls, finding.layer, finding.module) == ("future-leak", 2, "model.decoder.layers.2.self_attn"), str(
        finding
    )


def test_a_whisper_decoder_layer_that_sees_the_padding_is_named(whisper, heard):
    def causal_alone(module, args, kwargs):
        mask = kwargs["attention_mask"]
        if mask is None or mask.shape[-2] != mask.shape[-1]:
            return None
        return args, {**kwargs, "attention_mask": Causal().dense(*mask.shape[-2:])[None, None]}

    attention = whisper.model.decoder.layers[1].self_attn
    hook = attention.register_forward_pre_hook(causal_alone, with_kwargs=True)
    try:
        finding = check(whisper, Causal(), inputs=heard, **FAST).findings[0]
    finally:
        hook.remove()
    assert (finding.cls, finding.layer, finding.module) == ("padding", 1, "model.decoder.layers.1.self_attn"), str(
        finding
    )


def test_cross_attention_to_the_decoder_itself_is_named(whisper, heard):
    """Given its own states for the encoder's, a cross-attention is a self-attention without a mask."""

    def own(module, args, kwargs):
        states = args[0] if args else kwargs["hidden_states"]
        return (states,), {**{k: v for k, v in kwargs.items() if k != "hidden_states"}, "key_value_states": states}

    attention = whisper.model.decoder.layers[1].encoder_attn
    hook = attention.register_forward_pre_hook(own, with_kwargs=True)
    try:
        finding = check(whisper, Causal(), inputs=heard, **FAST).findings[0]
    finally:
        hook.remove()
    assert (finding.cls, finding.module) == ("future-leak", "model.decoder.layers.1.encoder_attn"), str(finding)
