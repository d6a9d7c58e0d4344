"""Folders and hub ids as people have them: adapters, halves of models, other precisions, no network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from headwise import capture
from headwise.interp.errors import LoadError
from headwise.models import load
from headwise.models.sources.huggingface import family_of

ROOT = Path(__file__).parents[3]
T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("T5EncoderModel", "encoder"),
        ("T5ForTokenClassification", "encoder"),
        ("T5Model", "encoder-decoder"),
        ("T5ForConditionalGeneration", "encoder-decoder"),
    ],
)
def test_the_family_of_half_a_model(name, family, tmp_path):
    model_class = getattr(transformers, name)
    assert family_of(transformers.T5Config(**T5), model_class) == family
    model_class(transformers.T5Config(**T5, decoder_start_token_id=0)).save_pretrained(tmp_path)
    assert load(str(tmp_path)).family == family


def test_an_adapter_is_called_one(tmp_path):
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(LoadError, match=r"lora is an adapter .*from_pretrained\('org/base'\).*merge_and_unload"):
        load(str(adapter))
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(LoadError, match=r"lora is an adapter .*from_pretrained\('its base'\)"):
        load(str(adapter))


def test_what_the_weights_were_saved_as_is_said(tmp_path):
    config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(tmp_path)
    subject = load(str(tmp_path))
    assert subject.dtype == torch.float32
    assert "the weights were saved as bfloat16 and are held as float32" in subject.warnings
    assert load(str(tmp_path), dtype="bfloat16").warnings == ()


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_that_is_not_here_fails_at_once(offline):
    """Nothing answers at the endpoint; transformers alone tries for 23 seconds."""
    script = """if True:
        import time
        from headwise.models.sources.huggingface import load_huggingface
        began = time.perf_counter()
        try:
            load_huggingface("org/nothing-here")
        except ValueError as error:
            print(time.perf_counter() - began, error)
    """
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {"HF_ENDPOINT": "http://127.0.0.1:9"}  # the port of discard
    line = [sys.executable, "-c", script]
    said = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True).stdout
    seconds, _, sentence = said.partition(" ")
    assert float(seconds) <= 2
    assert sentence.startswith("org/nothing-here is not in the local cache, and ")
    assert ("HF_HUB_OFFLINE is set" if offline else "the hub does not answer, so this machine is offline") in sentence


def test_an_endpoint_that_never_answers_is_waited_for_shortly(monkeypatch):
    import time

    from headwise.models.sources import huggingface

    monkeypatch.setattr(huggingface.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface.httpx2, "head", lambda *_, **__: time.sleep(30))  # as a name server may
    began = time.perf_counter()
    assert not huggingface._answers("https://hub.invalid")
    assert time.perf_counter() - began <= 2


def test_flags_pass_and_so_does_what_a_tokenizer_made(minilm_folder):
    subject = load(str(minilm_folder))
    made = transformers.AutoTokenizer.from_pretrained(minilm_folder)("Paris is", return_tensors="pt")
    plain = capture(subject, "Paris is")
    for raw in (made, {**made, "return_dict": True}):
        torch.testing.assert_close(capture(subject, raw).calls[0].weights(0), plain.calls[0].weights(0))
