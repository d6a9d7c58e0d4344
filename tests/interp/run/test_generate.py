"""Sampling equals Hugging Face's warpers, greedy writing equals its generate, and a grown axis still tiles its text."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from headwise import capture
from headwise.interp.attention.axes import Axis
from headwise.interp.drawing.words import word_groups
from headwise.interp.errors import InputError
from headwise.interp.run.generate import (
    Sampling,
    choose,
    distribution,
    ended,
    extend,
    finished,
    label,
    next_logits,
    next_position,
    next_token,
    restart,
    top,
)
from headwise.interp.subject import Inputs, Subject, tensors_only
from headwise.models import load

GREEDY = Sampling(temperature=0)
TEXT = "Fellow citizens of the Senate"
NONE = float("-inf")
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 99, "max_position_embeddings": 64,
}  # fmt: skip
NO_STOP = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


@pytest.fixture(scope="module")
def tiny():
    return load("tiny-decoder")


def spread(module: nn.Module) -> nn.Module:
    """Large random weights, so that the next token is no foregone conclusion."""
    for parameter in module.eval().parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.25)
    return module.requires_grad_(False)


def gpt2(**options) -> Subject:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=99, n_positions=64, **NO_STOP)
    module = spread(transformers.GPT2LMHeadModel(config))
    return Subject(module, tensors_only(module), "gpt", "decoder", max_tokens=64, vocab_size=99, **options)


def bart(**options) -> Subject:
    config = transformers.BartConfig(**BART, **NO_STOP | {"pad_token_id": 98}, decoder_start_token_id=5)
    config.forced_eos_token_id = None
    module = spread(transformers.BartForConditionalGeneration(config))
    return Subject(module, tensors_only(module), "bart", "encoder-decoder", max_tokens=64, vocab_size=99, **options)


def write(subject: Subject, inputs: Inputs, count: int, sampling: Sampling = GREEDY) -> list[int]:
    tokens = []
    for number in range(count):
        tokens.append(next_token(capture(subject, inputs), sampling, number).token)
        inputs = extend(subject, inputs, tokens[-1:])
    return tokens


# -- sampling ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 2.5}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_sampling_out_of_range_says_which(wrong, says):
    with pytest.raises(ValueError, match=f"^{says} is .*got "):
        Sampling(**wrong)


def test_probabilities_by_hand():
    logits = torch.tensor([0.0, math.log(2), math.log(4), NONE])  # 1 : 2 : 4 : 0
    cases = {
        Sampling(): [1 / 7, 2 / 7, 4 / 7, 0],
        Sampling(temperature=0.5): [1 / 21, 4 / 21, 16 / 21, 0],  # squared
        Sampling(top_k=2): [0, 1 / 3, 2 / 3, 0],
        Sampling(top_k=50): [1 / 7, 2 / 7, 4 / 7, 0],
        Sampling(top_p=0.57): [0, 0, 1, 0],  # 4/7 = 0.571 is enough
        Sampling(top_p=0.58): [0, 1 / 3, 2 / 3, 0],
        Sampling(top_k=2, top_p=0.66): [0, 0, 1, 0],  # of the 2/3 that top-k left
        Sampling(top_p=1e-9): [0, 0, 1, 0],  # at least one
        Sampling(temperature=0, top_k=3): [0, 0, 1, 0],
        Sampling(temperature=1e-30): [0, 0, 1, 0],
    }
    for sampling, expected in cases.items():
        got = distribution(logits, sampling)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32), msg=str(sampling))


@settings(max_examples=200, deadline=None)
@given(
    logits=st.lists(st.floats(-40, 40, width=32) | st.just(NONE), min_size=1, max_size=40).filter(
        lambda values: max(values) > NONE
    ),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 45),
    top_p=st.floats(0.01, 1),
)
def test_the_distribution_is_that_of_hugging_face(logits, temperature, top_k, top_p):
    scores = torch.tensor([logits])
    warpers = [transformers.TemperatureLogitsWarper(temperature)]
    warpers += [transformers.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [transformers.TopPLogitsWarper(top_p)] if top_p < 1 else []
    for warper in warpers:
        scores = warper(None, scores)
    got = distribution(torch.tensor(logits), Sampling(temperature, top_k, top_p))
    torch.testing.assert_close(got, scores.softmax(-1)[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("logits", [[1.0, math.nan], [1.0, math.inf], [NONE, NONE]])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(top_k=1, top_p=0.5)])
def test_logits_that_are_no_distribution_are_refused(logits, sampling):
    with pytest.raises(InputError, match="logits"):
        distribution(torch.tensor(logits), sampling)


def test_draws_follow_the_distribution():
    logits = torch.tensor([1.0, 0.0, 2.0, NONE, 0.5])
    sampling = Sampling(temperature=1.3, seed=3)
    drawn = np.bincount([choose(logits, sampling, step) for step in range(4000)], minlength=5)
    expected = distribution(logits, sampling).double().numpy()
    assert drawn[3] == 0
    kept = expected > 0
    chi2 = ((drawn - 4000 * expected)[kept] ** 2 / (4000 * expected[kept])).sum()
    assert chi2 < 16.3  # 3 degrees of freedom: above it once in a thousand seeds


def test_a_step_is_the_same_in_any_order_and_on_any_thread():
    logits = torch.randn(50)
    one_by_one = [choose(logits, Sampling(seed=7), step) for step in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda step: choose(logits, Sampling(seed=7), step), reversed(range(40))))
    assert one_by_one == together[::-1]
    assert one_by_one != [choose(logits, Sampling(seed=8), step) for step in range(40)]
    assert len(set(one_by_one)) > 5


# -- what comes next --------------------------------------------------------------------------------------------------
def test_greedy_writing_is_the_argmax_loop(tiny):
    ids = tiny.encode(TEXT).kwargs["input_ids"]
    for _ in range(20):
        ids = torch.cat([ids, tiny.module(ids)[:, -1:].argmax(-1)], 1)
    assert write(tiny, tiny.encode(TEXT), 20) == ids[0, -20:].tolist()


def test_greedy_writing_is_generate_of_gpt2():
    subject, ids = gpt2(), torch.randint(0, 99, (1, 9))
    expected = subject.module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)
    tokens = write(subject, Inputs({"input_ids": ids}), 16)
    assert tokens == expected[0, 9:].tolist()
    assert len(set(tokens)) > 3


def test_greedy_writing_is_generate_of_gpt2_behind_padding():
    subject, ids = gpt2(), torch.randint(0, 99, (1, 9))
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]])
    expected = subject.module.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=10, pad_token_id=0, use_cache=False
    )
    inputs = Inputs({"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)})
    assert write(subject, inputs, 10) == expected[0, 9:].tolist()
    grown = extend(subject, inputs, [1, 2]).kwargs
    assert list(grown) == ["input_ids", "attention_mask", "position_ids"]
    assert grown["attention_mask"].tolist() == [[0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]]
    assert grown["position_ids"].tolist() == [[0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]]


def test_greedy_writing_is_generate_of_bart():
    torch.manual_seed(5)  # weights that do not say one token for ever
    subject, source = bart(), torch.randint(0, 97, (1, 9))
    expected = subject.module.generate(source, do_sample=False, num_beams=1, max_new_tokens=16)
    inputs = Inputs(
        {
            "input_ids": source,
            "attention_mask": torch.ones_like(source),
            "decoder_input_ids": torch.tensor([[5]]),
            "decoder_attention_mask": torch.ones(1, 1, dtype=torch.long),
        }
    )
    tokens = write(subject, inputs, 16)
    assert tokens == expected[0, 1:].tolist()
    assert len(set(tokens)) > 3
    grown = extend(subject, inputs, tokens).kwargs
    assert grown["input_ids"] is source
    assert grown["attention_mask"].shape == (1, 9)
    assert grown["decoder_attention_mask"].tolist() == [[1] * 17]


def test_next_logits_are_those_of_the_last_real_position():
    subject, ids = gpt2(), torch.randint(0, 99, (1, 9))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0, 0]])
    padded = Inputs({"input_ids": ids, "attention_mask": mask})
    got = next_logits(capture(subject, padded))
    assert (got.shape, got.dtype) == ((99,), torch.float32)
    assert next_position(subject, padded) == 5
    torch.testing.assert_close(got, subject.module(ids[:, :6]).logits[0, -1], atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="padded on the right"):
        extend(subject, padded, [1])


def test_the_output_embedding_is_computed_at_one_position_only():
    subject = gpt2()
    cap = capture(subject, {"input_ids": torch.randint(0, 99, (1, 9))})
    seen = []
    hook = subject.module.lm_head.register_forward_hook(lambda module, given, made: seen.append(made.shape))
    got = cap.logits_at(4)
    hook.remove()
    assert seen == [(1, 1, 99)]
    torch.testing.assert_close(got, cap.logits[:, 4])


def test_another_temperature_runs_no_model(tiny):
    runs = []
    cap = capture(tiny, TEXT)
    hook = tiny.module.register_forward_hook(lambda *_: runs.append(1))
    try:
        steps = [next_token(cap, Sampling(temperature=t, seed=1), 0) for t in (0, 0.5, 1, 2, 20)]
    finally:
        hook.remove()
    assert not runs
    assert steps[0].probability == 1
    best = [step.top[0][2] for step in steps]
    assert best == sorted(best, reverse=True)
    assert best[-1] < 0.01  # nearly uniform


def test_a_step_names_its_token_and_the_best_ones(tiny):
    cap = capture(tiny, TEXT)
    step = next_token(cap, Sampling(top_k=4, seed=2), 3, count=6)
    probabilities = tiny.module(cap.inputs.kwargs["input_ids"])[0, -1].softmax(-1)
    best = probabilities.topk(4)
    assert [token for token, _, _ in step.top] == best.indices.tolist()  # what top-k left
    expected = (best.values / best.values.sum()).tolist()
    assert [value for _, _, value in step.top] == pytest.approx(expected, rel=1e-4)
    assert (step.token, step.label, pytest.approx(step.probability, rel=1e-6)) in step.top
    assert step.label == tiny.decode([step.token])


def test_seeds_reproduce(tiny):
    one, again, other = (write(tiny, tiny.encode(TEXT), 12, Sampling(seed=seed)) for seed in (1, 1, 2))
    assert one == again != other


def test_the_end_is_the_end_of_sequence():
    subject = gpt2(eos=7)
    assert not ended(subject, [])
    assert not ended(subject, [1, 2])
    assert ended(subject, [1, 7])
    assert not ended(gpt2(), [1, 7])


# -- the grown axis ---------------------------------------------------------------------------------------------------
def byte_level() -> Tokenizer:
    """A token for each byte, as GPT-2 writes them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece() -> Tokenizer:
    """Words with "▁" for their space, and bytes as <0xF0>, as Llama 2 writes them."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁the": 256, "the": 257, "▁": 258, "▁cat": 259}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def reads(decode, text: str | None, ids: list[int], labels, **options) -> tuple[Subject, Inputs]:
    module = nn.Identity()
    subject = Subject(module, tensors_only(module), "reader", "decoder", decode=decode, **options)
    offsets = tuple((n, n + 1) for n in range(len(ids))) if text else None
    axis = Axis(tuple(labels), offsets, (False,) * len(ids), text)
    return subject, Inputs({"input_ids": torch.tensor([ids])}, {"input": axis})


def assert_tiles(axis: Axis) -> None:
    """Every character belongs to a token, in order; only the parts of one character share one."""
    end = 0
    for index, (start, stop) in enumerate(axis.offsets):
        assert start == end or (start, stop) == axis.offsets[index - 1]
        end = stop
    assert end == len(axis.text)


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.sampled_from("ab é龍🙂\n"), min_size=1, max_size=12), cuts=st.lists(st.integers(1, 5), max_size=8)
)
def test_text_written_in_bytes_reads_as_that_text(text, cuts):
    tokenizer = byte_level()
    ids, first = tokenizer.encode(text).ids, tokenizer.encode("x").ids
    subject, inputs = reads(tokenizer.decode, "x", first, "x")
    whole = extend(subject, inputs, ids).axes["input"]
    assert whole.text == "x" + text
    expected = ["x"]
    for character in text:
        parts = len(character.encode())
        expected += [character] if parts == 1 else [f"{character} {n}/{parts}" for n in range(1, parts + 1)]
    assert list(whole.labels) == expected
    assert_tiles(whole)
    for cut in cuts:  # a few tokens at a time, anywhere inside characters: the same
        inputs, ids = extend(subject, inputs, ids[:cut]), ids[cut:]
        assert_tiles(inputs.axes["input"])
    assert extend(subject, inputs, ids).axes["input"] == whole


def test_a_character_that_is_not_complete_says_so():
    tokenizer = byte_level()
    ids = tokenizer.encode("🙂!").ids
    subject, inputs = reads(tokenizer.decode, "x", tokenizer.encode("x").ids, "x")
    axis = extend(subject, inputs, ids[:2]).axes["input"]
    assert axis.labels == ("x", "\ufffd 1/…", "\ufffd 2/…")
    assert axis.text == "x\ufffd"
    broken = extend(subject, inputs, [*ids[:2], *ids[-1:]]).axes["input"]  # the character never comes
    assert broken.labels == ("x", "\ufffd", "\ufffd", "!")
    assert broken.text == "x\ufffd!"
    assert_tiles(broken)


def test_bytes_that_never_make_a_character_end():
    tokenizer = byte_level()
    continuation = tokenizer.token_to_id("Ģ")  # byte 0x80
    subject, inputs = reads(tokenizer.decode, "x", tokenizer.encode("x").ids, "x")
    axis = extend(subject, inputs, [continuation] * 40 + tokenizer.encode("ab").ids).axes["input"]
    assert axis.labels[-2:] == ("a", "b")
    assert axis.text == "x" + "\ufffd" * 40 + "ab"


def test_spaces_and_byte_fallback_of_sentencepiece():
    tokenizer = sentencepiece()
    subject, inputs = reads(tokenizer.decode, " the", [256], [" the"])
    inputs = Inputs(inputs.kwargs, {"input": Axis((" the",), ((0, 4),), (False,), " the")})
    assert tokenizer.decode([256]) == "the"  # the decoder drops the first space of a text
    written = [259, 257, *(tokenizer.token_to_id(f"<0x{b:02X}>") for b in "🙂".encode()), 256]
    whole = extend(subject, inputs, written).axes["input"]
    assert whole.labels == (" the", " cat", "the", "🙂 1/4", "🙂 2/4", "🙂 3/4", "🙂 4/4", " the")
    assert whole.text == " the catthe🙂 the"
    assert_tiles(whole)
    for token in written:
        inputs = extend(subject, inputs, [token])
    assert inputs.axes["input"] == whole
    assert label(subject, 256) == " the"
    assert label(subject, 257) == "the"


def test_special_tokens_have_no_place_in_the_text(tiny):
    inputs = tiny.encode(TEXT)
    axis = extend(tiny, inputs, [tiny.bos, *tiny.encode("again").kwargs["input_ids"][0].tolist()]).axes["input"]
    before = len(inputs.axes["input"])
    assert axis.special == (False,) * before + (True,) + (False,) * (len(axis) - before - 1)
    assert axis.text == TEXT + "again"
    assert axis.offsets[before] == (len(TEXT), len(TEXT))
    eos = Subject(nn.Identity(), tiny.encode, "e", "decoder", decode=lambda ids: "", eos=3, vocab_size=9)
    grown = extend(eos, Inputs({"input_ids": torch.ones(1, 1).long()}, {"input": Axis(("a",), special=(False,))}), [3])
    assert grown.axes["input"] == Axis(("a", "<eos>"), special=(False, True))


def test_written_text_merges_into_words(tiny):
    inputs = tiny.encode(TEXT)
    more = " Government’s 🙂 ends"
    grown = extend(tiny, inputs, tiny.encode(more).kwargs["input_ids"][0].tolist())
    direct = tiny.encode(TEXT + more)
    assert grown.kwargs["input_ids"].tolist() == direct.kwargs["input_ids"].tolist()
    assert grown.axes["input"].text == direct.axes["input"].text
    assert grown.axes["input"].labels == direct.axes["input"].labels
    assert grown.axes["input"].offsets == direct.axes["input"].offsets
    assert word_groups(grown.axes["input"]) == word_groups(direct.axes["input"])
    cap = capture(tiny, grown)
    assert cap.calls[0].key_axis is grown.axes["input"]


def test_the_target_grows_and_the_source_stays():
    subject = bart(decode=lambda ids: "".join(f" {i}" for i in ids), eos=9)
    axes = {"source": Axis(("s",) * 4), "target": Axis(("<s>",), special=(True,))}
    inputs = Inputs({"input_ids": torch.ones(1, 4).long(), "decoder_input_ids": torch.tensor([[5]])}, axes, ("cut",))
    grown = extend(subject, inputs, [8, 9])
    assert grown.axes == {
        "source": axes["source"],
        "target": Axis(("<s>", " 8", " 9"), special=(True, False, True)),
    }
    assert grown.notes == ("cut",)
    assert inputs.kwargs["decoder_input_ids"].tolist() == [[5]]  # the given inputs are as they were


def test_a_target_is_written_again_from_its_start():
    """What the model wrote at once, it writes step by step, token for token, with its end."""
    subject = load("tiny-encoder-decoder")
    whole = subject.encode("photographer")
    inputs = restart(whole)
    assert inputs.axes["target"].labels == ("<s>",) and inputs.axes["source"] is whole.axes["source"]
    assert not any("wrote" in note for note in inputs.notes)
    written = []
    while not finished(subject, inputs):
        written.append(next_token(capture(subject, inputs), GREEDY, len(written)).token)
        inputs = extend(subject, inputs, written[-1:])
    assert written[-1] == subject.eos
    assert torch.equal(inputs.kwargs["decoder_input_ids"][:, :-1], whole.kwargs["decoder_input_ids"])
    assert inputs.axes["target"].labels[:-1] == whole.axes["target"].labels


def test_a_start_of_several_special_tokens_stays_whole():
    target = Axis(("<s>", "<en>", "a", "b", "</s>"), special=(True, True, False, False, True))
    ids = torch.tensor([[1, 5, 7, 8, 2]])
    kwargs = {"input_ids": torch.ones(1, 3), "decoder_input_ids": ids, "decoder_attention_mask": torch.ones(1, 5)}
    cut = restart(Inputs(kwargs, {"target": target}))
    assert cut.kwargs["decoder_input_ids"].tolist() == [[1, 5]]
    assert cut.kwargs["decoder_attention_mask"].shape == (1, 2) and cut.kwargs["input_ids"].shape == (1, 3)
    nothing = Axis(("<s>", "</s>"), special=(True, True))
    kwargs = {"decoder_input_ids": ids[:, [0, 4]]}
    assert restart(Inputs(kwargs, {"target": nothing})).axes["target"].labels == ("<s>",)
    with pytest.raises(InputError, match="no target whose start is known"):
        restart(Inputs({"input_ids": ids}))


def test_somebodys_module_may_name_its_argument_otherwise():
    module = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9)).requires_grad_(False)
    subject = Subject(module, tensors_only(module), "mine", "decoder")
    inputs = subject.encode(torch.tensor([[1, 2]]))
    assert list(inputs.kwargs) == ["input"]
    grown = extend(subject, inputs, write(subject, inputs, 3))
    assert grown.kwargs["input"].shape == (1, 5)
    assert int(grown.kwargs["input"][0, 2]) == int(module(torch.tensor([2])).argmax())


# -- what is refused --------------------------------------------------------------------------------------------------
def test_the_limit_of_tokens():
    subject = gpt2()
    full = extend(subject, Inputs({"input_ids": torch.ones(1, 60).long()}), [1, 2, 3, 4])
    assert capture(subject, full).calls[0].queries == 64
    with pytest.raises(InputError, match=r"^gpt takes at most 64 tokens; start again with a shorter text\.$"):
        extend(subject, full, [5])


@pytest.mark.parametrize("token", [-1, 99])
def test_tokens_outside_the_vocabulary(token):
    with pytest.raises(InputError, match=f"Token {token} is not in the vocabulary of gpt, which counts from 0 to 98"):
        extend(gpt2(), Inputs({"input_ids": torch.ones(1, 3).long()}), [token])


def test_what_writes_nothing_is_refused():
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, vocab_size=99
    )
    bert = transformers.BertForMaskedLM(config).eval()
    ids = torch.ones(1, 3).long()
    encoder = Subject(bert, tensors_only(bert), "bert", "encoder")
    with pytest.raises(InputError, match=r"bert \(encoder\) writes no text"):
        next_logits(capture(encoder, {"input_ids": ids}))
    bare = transformers.GPT2Model(transformers.GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=99)).eval()
    with pytest.raises(InputError, match="GPT2Model has no output over a vocabulary"):
        next_logits(capture(Subject(bare, tensors_only(bare), "bare", "decoder"), {"input_ids": ids}))
    speech = Subject(bert, tensors_only(bert), "ctc", "audio")
    with pytest.raises(InputError, match="ctc writes on from decoder_input_ids"):
        extend(speech, Inputs({"input_values": torch.ones(1, 300)}), [1])
    with pytest.raises(InputError, match="batch of 2"):
        extend(gpt2(), Inputs({"input_ids": torch.ones(2, 3).long()}), [1])
    with pytest.raises(InputError, match=r"attention_mask of shape \(1, 1, 3, 3\), which cannot grow"):
        extend(gpt2(), Inputs({"input_ids": ids, "attention_mask": torch.ones(1, 1, 3, 3)}), [1])


def test_top_leaves_out_what_cannot_come(tiny):
    probabilities = torch.zeros(tiny.vocab_size)
    probabilities[300], probabilities[301] = 0.25, 0.75
    assert top(probabilities, tiny, 5) == [(301, tiny.decode([301]), 0.75), (300, tiny.decode([300]), 0.25)]
