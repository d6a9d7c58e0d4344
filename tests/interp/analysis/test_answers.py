"""What a model says equals the softmax of what Hugging Face's own classes return."""

import pytest
import torch
import transformers
from torch import nn

from headwise import capture
from headwise.interp.analysis.answers import Answer, answers
from headwise.interp.errors import InputError
from headwise.interp.subject import Subject, tensors_only
from headwise.models import load

MASK = 4
BERT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 99,
}  # fmt: skip
VIT = {k: v for k, v in BERT.items() if k != "vocab_size"} | {"image_size": 12, "patch_size": 4}
NAMES = ("sad", "glad", "mad")


def spread(module: nn.Module) -> nn.Module:
    for parameter in module.eval().parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.25)
    return module.requires_grad_(False)


def bert(kind: str, **options) -> Subject:
    config = transformers.BertConfig(**BERT, num_labels=len(NAMES))
    module = spread(getattr(transformers, kind)(config))
    known = {"vocab_size": 99, "mask_token": MASK, "decode": lambda ids: " ".join(f"w{i}" for i in ids)}
    return Subject(module, tensors_only(module), kind, "encoder", **known | options)


def two_texts(*masked: int) -> dict:
    ids = torch.randint(5, 99, (1, 12))
    ids[0, list(masked)] = MASK
    return {"input_ids": ids, "token_type_ids": torch.tensor([[0] * 5 + [1] * 7])}


def expected(logits: torch.Tensor, names, count: int = 5) -> list[tuple[str, float]]:
    best = logits.double().softmax(-1).topk(min(count, len(logits)))
    return [
        (names(i), pytest.approx(p, rel=1e-4)) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def test_a_decoder_says_the_next_token():
    tiny = load("tiny-decoder")
    cap = capture(tiny, "The people of the United")
    (answer,) = answers(cap)
    logits = tiny.module(cap.inputs.kwargs["input_ids"])[0, -1]
    assert (answer.question, answer.position) == ("Next token", len(cap.axes["input"]) - 1)
    assert list(answer.rows) == expected(logits, lambda i: tiny.decode([i]))
    assert answer.rows[0][0] == " States"
    assert len(answers(cap, count=2)[0].rows) == 2


def test_an_encoder_decoder_says_the_next_token_of_its_target():
    config = transformers.BartConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=99,
    )  # fmt: skip
    module = spread(transformers.BartForConditionalGeneration(config))
    subject = Subject(module, tensors_only(module), "bart", "encoder-decoder", vocab_size=99, mask_token=MASK)
    inputs = {"input_ids": two_texts(3)["input_ids"], "decoder_input_ids": torch.tensor([[2, 7, 8]])}
    (answer,) = answers(capture(subject, inputs))
    assert (answer.question, answer.position) == ("Next token", 2)
    assert list(answer.rows) == expected(module(**inputs).logits[0, -1], str)


def test_bert_fills_in_masks_and_judges_the_order_of_two_texts():
    subject, inputs = bert("BertForPreTraining"), two_texts(2, 8)
    output = subject.module(**inputs)
    first, second, order = answers(capture(subject, inputs))
    assert [first.question, second.question] == ["Masked token 1", "Masked token 2"]
    assert [first.position, second.position, order.position] == [2, 8, None]
    assert list(first.rows) == expected(output.prediction_logits[0, 2], "w{}".format)
    assert list(second.rows) == expected(output.prediction_logits[0, 8], "w{}".format)
    assert order.question == "Does the second text follow the first?"
    # transformers' docstring: 0 says that sequence B is a continuation of A, 1 that it is random
    assert list(order.rows) == expected(output.seq_relationship_logits[0], ("follows", "random").__getitem__)
    alone = {"input_ids": inputs["input_ids"]}  # one text follows nothing
    assert [a.question for a in answers(capture(subject, alone))] == ["Masked token 1", "Masked token 2"]


def test_one_mask_needs_no_number_and_five_are_answered_at_most():
    subject = bert("BertForMaskedLM")
    assert [a.question for a in answers(capture(subject, two_texts(3)))] == ["Masked token"]
    assert [a.position for a in answers(capture(subject, two_texts(*range(8))))] == [0, 1, 2, 3, 4]
    assert answers(capture(subject, two_texts())) == ()


def test_an_output_called_next_sentence():
    class Two(nn.Module):
        def forward(self, input_ids, token_type_ids):
            return {"logits": torch.zeros(1, 12, 99), "next_sentence": torch.tensor([[0.0, 2.0]])}

    subject = Subject(Two(), tensors_only(Two()), "two", "encoder", vocab_size=99, mask_token=MASK)
    (order,) = answers(capture(subject, two_texts()))
    assert order == Answer(
        "Does the second text follow the first?",
        (("random", pytest.approx(0.880797, abs=1e-6)), ("follows", pytest.approx(0.119203, abs=1e-6))),
    )


def test_a_classifier_says_its_classes():
    subject, inputs = bert("BertForSequenceClassification", labels=NAMES), two_texts(3)
    (answer,) = answers(capture(subject, inputs))
    assert (answer.question, answer.position) == ("Class", None)
    assert list(answer.rows) == expected(subject.module(**inputs).logits[0], NAMES.__getitem__)
    assert len(answers(capture(subject, inputs), count=2)[0].rows) == 2


def test_classes_that_do_not_exclude_each_other():
    subject, inputs = bert("BertForSequenceClassification", labels=NAMES), two_texts()
    subject.module.config.problem_type = "multi_label_classification"
    (answer,) = answers(capture(subject, inputs))
    logits = subject.module(**inputs).logits[0]
    assert dict(answer.rows) == pytest.approx(dict(zip(NAMES, (1 / (1 + (-logits).exp())).tolist(), strict=True)))


def test_a_picture_has_classes_too():
    module = spread(transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, num_labels=3)))
    pixels = {"pixel_values": torch.randn(1, 3, 12, 12)}
    subject = Subject(module, tensors_only(module), "vit", "vision", labels=NAMES)
    (answer,) = answers(capture(subject, pixels))
    assert list(answer.rows) == expected(module(**pixels).logits[0], NAMES.__getitem__)


def test_the_other_small_outputs_of_a_run_are_kept():
    subject, inputs = bert("BertForPreTraining"), two_texts(1)
    cap = capture(subject, inputs)
    assert list(cap.outputs) == ["seq_relationship_logits"]
    torch.testing.assert_close(cap.outputs["seq_relationship_logits"], subject.module(**inputs).seq_relationship_logits)


@pytest.mark.parametrize(
    "kind, options",
    [
        ("BertModel", {}),  # hidden states
        ("BertForTokenClassification", {"labels": NAMES}),  # a class for each token
        ("BertForSequenceClassification", {}),  # classes without names
        ("BertForSequenceClassification", {"labels": NAMES[:2]}),
        ("BertForMaskedLM", {"mask_token": None}),
    ],
)
def test_a_model_that_says_nothing_in_words(kind, options):
    assert answers(capture(bert(kind, **options), two_texts(3))) == ()


def test_logits_that_are_nan_are_no_answer():
    subject = bert("BertForSequenceClassification", labels=NAMES)
    subject.module.classifier.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        answers(capture(subject, two_texts()))
