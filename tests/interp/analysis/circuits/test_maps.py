"""Matrices of heads against the modules' own weights, compositions and readings against sums by hand."""

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, T5Config
from transformers import T5ForConditionalGeneration as T5

from headwise import capture, load, wrap
from headwise.interp.analysis.circuits.compositions import compositions
from headwise.interp.analysis.circuits.maps import maps
from headwise.interp.analysis.circuits.reading import reads_and_writes
from headwise.interp.errors import InputError
from headwise.interp.run.sweeping import Cancelled

REPEATED = "The people of the United States of America. The people of the United"


@pytest.fixture(scope="module")
def textbook():
    return capture(load("tiny-attention-only"), REPEATED)


def ids(count=9, vocabulary=50):
    return {"input_ids": torch.randint(vocabulary, (1, count), generator=torch.Generator().manual_seed(1))}


def of_heads(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """nn.Linear's (H · D, C) → (H, C, D)."""
    return weight.detach().unflatten(0, (heads, -1)).mT


def close(one, other, limit=1e-5):
    return one.shape == other.shape and float((one - other).abs().max()) <= limit * float(other.abs().max())


def test_matrices_are_the_modules_own_with_their_norms_folded_in(textbook):
    module = textbook.subject.module
    for layer, block in enumerate(module.blocks):
        gain, own = block.attention_norm.weight.detach(), maps(textbook).find(layer, "decoder")
        for letter, linear in zip(
            "qkv", (block.attention.query, block.attention.key, block.attention.value), strict=True
        ):
            folded = linear.weight.detach() * gain  # (H · D, C)
            folded = folded - folded.mean(1, keepdim=True)  # the layer norm takes the mean away
            assert close(own.reads[letter].weight, of_heads(folded, 4))
            bias = linear.bias + linear.weight @ block.attention_norm.bias
            assert close(own.reads[letter].bias, bias.detach().view(4, -1), 1e-4)
        assert close(own.writes, block.attention.output.weight.detach().T.unflatten(0, (4, -1)))
    assert close(maps(textbook).embedding, module.token_embedding.weight.detach())


def test_shared_keys_and_rms_norms_of_llama():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    module = LlamaForCausalLM(config).eval()
    for part in module.modules():
        if isinstance(part, nn.Embedding) or "Norm" in type(part).__name__:
            nn.init.normal_(part.weight, 1.0, 0.3)
    cap = capture(wrap(module, kind="decoder"), ids())
    own, layer = maps(cap).attentions[1], module.model.layers[1]
    gain = layer.input_layernorm.weight
    assert close(own.reads["q"].weight, of_heads(layer.self_attn.q_proj.weight * gain, 4))
    assert close(own.reads["k"].weight, of_heads(layer.self_attn.k_proj.weight * gain, 2))
    assert close(own.reads["v"].weight, of_heads(layer.self_attn.v_proj.weight * gain, 2))
    assert close(own.reads["k"].of(3, 4), of_heads(layer.self_attn.k_proj.weight * gain, 2)[1])
    assert close(own.writes, layer.self_attn.o_proj.weight.detach().T.unflatten(0, (4, -1)))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_transposed_weights_of_gpt2_however_attention_is_computed(attention):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=32, attn_implementation=attention)
    module = GPT2LMHeadModel(config).eval()
    own = maps(capture(wrap(module, kind="decoder"), ids())).attentions[0]
    packed = module.transformer.h[0].attn.c_attn.weight.detach()  # (C, 3 · C)
    for letter, weight in zip("qkv", packed.split(32, 1), strict=True):
        centred = weight - weight.mean(0)
        assert close(own.reads[letter].weight, centred.unflatten(1, (4, -1)).transpose(0, 1), 1e-4)


def test_post_norm_and_cross_attention():
    torch.manual_seed(0)
    module = BertModel(BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                  intermediate_size=48)).eval()  # fmt: skip
    own = maps(capture(wrap(module, kind="encoder"), ids())).attentions[1]
    assert close(own.reads["k"].weight, of_heads(module.encoder.layer[1].attention.self.key.weight, 4))
    module = T5(T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)).eval()
    given = {**ids(), "decoder_input_ids": ids(5)["input_ids"]}
    found = maps(capture(wrap(module, kind="encoder-decoder"), given))
    cross = next(one for one in found.attentions if one.stack == "cross" and one.layer == 1)
    assert (cross.reads["q"].stream, cross.reads["k"].stream) == ("decoder", "encoder")
    weight = module.decoder.block[1].layer[1].EncDecAttention.k.weight * module.encoder.final_layer_norm.weight
    assert close(cross.reads["k"].weight, of_heads(weight, 4))


# -- compositions -----------------------------------------------------------------------------------------------------
def test_k_composition_names_the_pair_of_the_textbook_circuit(textbook):
    """The previous-token head is 0·1, the induction head 1·3 (assets/tiny-attention-only/README.md)."""
    table = compositions(textbook)
    best = table[table.kind == "K"].iloc[0]
    assert (best["from layer"], best["from head"], best["to layer"], best["to head"]) == (0, 1, 1, 3)
    assert best.score > 0.04 and not table.attrs["missing"]
    assert len(table) == 3 * 4 * 4


def test_compositions_are_those_of_whole_matrices(textbook):
    found, table = maps(textbook), compositions(textbook).set_index(["kind", "from head", "to head"])
    early, late = (found.find(layer, "decoder") for layer in (0, 1))
    ov = early.reads["v"].of(2, 4) @ early.writes[2]  # (C, C), rows in
    qk = late.reads["q"].of(1, 4) @ late.reads["k"].of(1, 4).T  # queries × keys
    later = late.reads["v"].of(1, 4) @ late.writes[1]
    for kind, product, other in (("Q", ov @ qk, qk), ("K", ov @ qk.T, qk), ("V", ov @ later, later)):
        assert table.raw[kind, 2, 1] == pytest.approx(float(product.norm() / (ov.norm() * other.norm())), rel=1e-4)


def test_random_matrices_compose_by_chance_alone():
    """E‖AB‖² = ‖A‖²‖B‖² / C for Gaussian matrices, so raw scores lie near 1/√C and scores near 0."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=128, n_layer=2, n_head=2, n_positions=32)
    table = compositions(capture(wrap(GPT2LMHeadModel(config).eval(), kind="decoder"), ids()))
    assert table.raw.mean() == pytest.approx(128**-0.5, rel=0.05)
    assert table.score.abs().max() < 0.01


def test_compositions_stop_when_told(textbook):
    with pytest.raises(Cancelled):
        compositions(textbook, cancel=lambda: True)


def test_no_stream_no_matrices():
    module = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    cap = capture(
        wrap(module), {"query": torch.randn(1, 5, 16), "key": torch.randn(1, 5, 16), "value": torch.randn(1, 5, 16)}
    )
    with pytest.raises(InputError, match="could not be proven"):
        compositions(cap)


# -- what a head looks for and writes ---------------------------------------------------------------------------------
def test_in_the_run_a_head_looks_for_what_its_scores_say():
    """Without rotary positions, scores of looking are the attention's own."""
    cap = capture(load("tiny-encoder"), "and god said let there be [MASK]")
    found = reads_and_writes(cap, (2, 3))
    own = cap.find(2).scores(3)[0]
    for query in (1, 5):
        for key, label, score in found.looks_for(query, 3, among="input", through="run"):
            assert score == pytest.approx(float(own[query, key]), abs=1e-3)
            assert label == cap.find(2).key_axis.labels[key]
        assert found.looks_for(query, 1, among="input", through="run")[0][0] == int(own[query].argmax())


def test_a_head_that_looks_at_one_place_alone_writes_that(textbook):
    """What a head writes onto a logit by a · v is the weight times what it writes when all of it is there."""
    found = reads_and_writes(textbook, (1, 3))
    parts = textbook.stream.parts(lambda logits: logits[0, -1, 500] - logits[0, -1].mean())
    own = next(p for p in parts if p.head == 3 and p.call[0].startswith("blocks.1"))
    weights = textbook.find(1).weights(3)[0, -1]
    by_key = own.by_key()[0, -1] / weights
    written = {key: {t: s for t, _, s in found.writes(key, 2048, through="run")} for key in (0, 7)}
    for key, scores in written.items():
        assert scores[500] == pytest.approx(float(by_key[key]), abs=2e-3)


def test_the_induction_head_copies_and_the_textbooks_heads_speak(textbook):
    found = reads_and_writes(textbook, (1, 3))
    assert found.copying > 0.2 > reads_and_writes(textbook, (0, 1)).copying
    table = found.table(3)
    assert set(table.what) == {"looks for", "writes", "writes against"}
    assert len(table) == 3 * 3 * len(textbook.find(1).query_axis)
    least = found.writes(4, 2, least=True)
    assert least[0][2] <= least[1][2] < 0 < found.writes(4, 1)[0][2]


def test_what_a_head_cannot_tell_is_said():
    cap = capture(load("tiny-vit"), Image.new("RGB", (28, 28), "white"))
    with pytest.raises(InputError, match="does not start from a table"):
        reads_and_writes(cap, (0, 0)).looks_for(0)
    encoder = capture(load("tiny-encoder"), "and god said")
    found = reads_and_writes(encoder, (0, 0))
    assert "gelu" in found.no_writes and found.copying is None
    with pytest.raises(InputError, match="gelu"):
        found.writes(0)
    with pytest.raises(InputError, match="heads 0 … 5; there is no 6"):
        reads_and_writes(encoder, (0, 6))
    with pytest.raises(InputError, match="layer 9"):
        reads_and_writes(encoder, (9, 0))
