"""Real weights on real English: every head equals Hugging Face's eager attention."""

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from interp.capture import capture
from interp.metrics import induction, sweep
from interp.subject import Subject, tensors_only

TEXTS = (
    "The people of the United States have met together, and the people of the United States have agreed.",
    "When Mary and John went to the store, John gave a drink to",
)


def load(folder, auto, **options):
    module = auto.from_pretrained(folder, **options).eval().requires_grad_(False)
    return module, AutoTokenizer.from_pretrained(folder)


def assert_equal_heads(cap, attentions, real):
    assert not cap.unseen
    assert [c.layer for c in cap.calls] == list(range(len(attentions)))
    for call, theirs in zip(cap.calls, attentions, strict=True):
        assert call.shape == theirs.shape
        gap = (torch.stack([call.weights(h) for h in range(call.heads)], 1) - theirs).abs().amax((1, 3))  # (B, Q)
        assert gap[real].max() <= 1e-5


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
    assert_equal_heads(cap, theirs.attentions, inputs["attention_mask"].bool())
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
    assert_equal_heads(cap, theirs.attentions, inputs["attention_mask"].bool())
    assert (len(cap.calls), cap.calls[0].heads) == (6, 12)
    assert cap.fidelity <= 1e-5
