"""One run: how often the model runs, where its logits are computed, what is measured, and what stays short."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BartConfig,
    BartModel,
    Dinov2Config,
    Dinov2Model,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from headwise import capture, edits, load, wrap
from headwise.interp.attention.axes import Axis
from headwise.interp.run import parts, running
from headwise.interp.run.capture import rerun
from headwise.interp.run.outputs import Result
from headwise.interp.subject import Inputs

TEXT = "The people of the United States"
CAPPED = [("gemma2", "final_logit_softcapping", 3.0), ("cohere", "logit_scale", 0.25)]


def causal_lm(kind: str, **more):
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **heads, **more)).eval()


@pytest.fixture
def runs(monkeypatch):
    """How often any module of depth 0 ran."""
    count = []
    real = running.listen

    def counting(recorder, **options):
        count.append(recorder.root)
        return real(recorder, **options)

    monkeypatch.setattr(running, "listen", counting)
    return count


def test_an_edit_is_one_run_of_a_capture_that_exists(runs):
    cap = capture(load("tiny-decoder"), TEXT)
    assert len(runs) == 1
    edited = rerun(cap, (edits.ZeroHead(1, 5),))
    assert len(runs) == 2
    assert edited.edits == (edits.ZeroHead(1, 5),)
    torch.testing.assert_close(edited.logits, capture(cap.subject, TEXT, [edits.ZeroHead(1, 5)]).logits)
    assert not torch.allclose(edited.logits, cap.logits)
    assert torch.equal(rerun(cap, ()).logits, cap.logits)


def test_an_edit_of_an_edited_run_is_resolved_on_it():
    cap = capture(load("tiny-decoder"), TEXT)
    once = rerun(cap, (edits.ZeroHead(0, 0),))
    assert torch.equal(rerun(once, (edits.ZeroHead(1, 5),)).logits, rerun(cap, (edits.ZeroHead(1, 5),)).logits)


@pytest.mark.parametrize(
    "edit, words", [(edits.ZeroHead(9, 0), "names a layer"), (edits.ZeroHead(0, 99), "names a head")]
)
def test_an_edit_of_what_is_not_there_is_refused_before_the_run(edit, words, runs):
    cap = capture(load("tiny-decoder"), TEXT)
    with pytest.raises(ValueError, match=words):
        rerun(cap, (edit,))
    assert len(runs) == 1


def test_the_output_embedding_is_computed_where_somebody_looks():
    model = causal_lm("llama")
    sizes = []
    model.lm_head.register_forward_hook(lambda module, args, output: sizes.append(output.shape[1]))
    ids = torch.arange(1, 40)[None]
    cap = capture(wrap(model, kind="decoder"), {"input_ids": ids})
    assert sizes == [1]
    with torch.no_grad():
        whole = model(ids).logits
    torch.testing.assert_close(cap.logits_at(7), whole[:, 7])
    assert sizes == [1, 39, 1]
    torch.testing.assert_close(cap.logits, whole)
    assert cap.fidelity <= 1e-6


@pytest.mark.parametrize("kind, name, value", CAPPED)
def test_what_follows_the_output_embedding_counts(kind, name, value):
    """Logits that are capped or scaled after it are not made from the hidden states alone."""
    model = causal_lm(kind, **{name: value})
    ids = torch.arange(1, 12)[None]
    cap = capture(wrap(model, kind="decoder"), {"input_ids": ids})
    with torch.no_grad():
        torch.testing.assert_close(cap.logits, model(ids).logits)
    assert cap.result.head is None and cap.logits.shape == (1, 11, 97) and cap.fidelity <= 1e-6


class Echo(nn.Module):
    """As SentenceTransformer does: the batch comes back with the embedding in it."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer = nn.Embedding(50, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, input):
        return {**input, "sentence_embedding": self.layer(self.embed(input["input_ids"])).mean(1)}


class Ids(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = Echo()

    def forward(self, x):
        return self.layer({"input_ids": x})["sentence_embedding"].argmax(-1)


class Same(nn.Module):
    """Gives its input back, and nothing else."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        self.layer(x)
        return x


def test_fidelity_is_measured_on_what_the_model_made():
    cap = capture(wrap(Echo().eval()), {"input": {"input_ids": torch.arange(6)[None]}})
    assert cap.logits.shape == (1, 8) and 0 <= cap.fidelity <= 1e-5


def test_an_output_that_says_nothing_is_not_measured():
    assert capture(wrap(Ids().eval()), torch.arange(6)[None]).fidelity is None
    assert capture(wrap(Same().eval()), torch.randn(1, 3, 8)).fidelity is None


def test_two_results_are_compared_over_real_positions():
    """They differ by 1 at the last position of the first sample, which is padding, and by 1/4 at a real one."""
    mine = torch.zeros(2, 300, 3)
    theirs, real = mine.clone(), torch.ones(2, 300, dtype=torch.bool)
    theirs[0, -1, 2], theirs[1, 5, 0], real[0, -1] = 1.0, -0.25, False
    assert Result(mine).furthest(Result(theirs), real) == 0.25
    assert Result(mine).furthest(Result(theirs), None) == 1.0
    assert Result(mine).furthest(Result(mine.clone()), real) == 0.0


def test_source_and_target_and_their_padding_are_told_apart_where_both_are_of_one_length():
    config = BartConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=50, max_position_embeddings=16,
    )  # fmt: skip
    ids, source, target = torch.arange(4, 8)[None], torch.tensor([[1, 1, 1, 0]]), torch.tensor([[1, 1, 0, 0]])
    given = {"input_ids": ids, "attention_mask": source, "decoder_input_ids": ids, "decoder_attention_mask": target}
    axes = {name: Axis(tuple(f"{name} {i}" for i in range(4))) for name in ("source", "target")}
    cap = capture(wrap(BartModel(config).eval(), kind="encoder-decoder"), Inputs(given, axes))
    for stack, side in (("encoder", "source"), ("decoder", "target"), ("cross", "target")):
        assert cap.stack(stack)[0].query_axis is axes[side]
        assert cap.stack(stack)[0].key_axis is axes["source" if stack == "cross" else side]
    told = {call.stack: (call.real_queries.int(), call.real_keys.int()) for call in cap.calls}
    for stack, queries, keys in (("encoder", source, source), ("decoder", target, target), ("cross", target, source)):
        assert torch.equal(told[stack][0], queries.int()) and torch.equal(told[stack][1], keys.int())


def test_blocks_are_the_outermost_numbers_that_tell_attentions_apart():
    swin = [f"encoder.layers.{stage}.blocks.{block}.attention.self" for stage in (0, 1) for block in (0, 1)]
    assert parts.blocks(swin) == tuple(path.removesuffix(".attention.self") for path in swin)
    assert parts.blocks(["h.0.attn.1", "h.1.attn.1", "h.1.attn.1"]) == ("h.0", "h.1")
    assert parts.blocks(["h.0.attn", "h.1.x.0.attn", "h.1.x.1.attn"]) == ("h.0", "h.1.x.0", "h.1.x.1")
    assert parts.blocks(["h.0.attn", "h.1.attn", "pool"]) == ()


def test_repr_is_short():
    cap = rerun(capture(load("tiny-decoder"), TEXT), (edits.ZeroHead(1, 5),))
    assert repr(cap) == (
        "Capture('tiny-decoder', input of 8; decoder: 4 layers, edits=(ZeroHead(layer=1, head=5, stack=None),))"
    )


def test_blocks_of_models_whose_path_ends_in_a_digit():
    """ "dinov2.encoder.layer.0" is a block, "dinov2" is none: residuals as the model's own hidden states."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}

    class Outer(nn.Module):
        def __init__(self, name, model):
            super().__init__()
            self.add_module(name, model)
            self.inner = name

        def forward(self, **kwargs):
            return getattr(self, self.inner)(**kwargs)

    dino = Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **sizes)).eval()
    conv = {"conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (4, 4), "num_feat_extract_layers": 2}
    wav = Wav2Vec2Model(
        Wav2Vec2Config(num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, **conv, **sizes)
    ).eval()
    for name, model, given in (
        ("dinov2", dino, {"pixel_values": torch.randn(1, 3, 28, 28)}),
        ("wav2vec2", wav, {"input_values": torch.randn(1, 400)}),
    ):
        cap = capture(wrap(Outer(name, model).eval()), given)
        with torch.no_grad():
            theirs = model(**given, output_hidden_states=True).hidden_states
        assert len(cap.residuals) == 4
        for ours, own in zip(cap.residuals[:3], theirs[:3], strict=True):
            torch.testing.assert_close(ours, own)
