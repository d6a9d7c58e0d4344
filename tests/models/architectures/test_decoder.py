"""The decoder against Hugging Face's GPT-2, its promises, and the bundled weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import tensor
from transformers import GPT2Config, GPT2LMHeadModel

from headwise.interp.masks import Causal
from headwise.models.architectures.blocks import rotate
from headwise.models.architectures.decoder import Decoder, DecoderConfig
from headwise.models.catalogue import BUNDLED
from headwise.models.sources.bundled import load_bundled
from headwise.testing import assert_mask

TINY = {"vocab_size": 97, "context": 32, "layers": 3, "heads": 4, "width": 24}
EMOJI = "Fellow citizens 👩‍👧 of café 日本 — naïve 🙂!"


@pytest.fixture
def ids():
    return torch.randint(TINY["vocab_size"], (3, 20), generator=torch.Generator().manual_seed(0))


def decoder(positions):
    """With weights far larger than at initialisation, so that attention is far from uniform."""
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(**TINY, positions=positions)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def gpt2_pair():
    """(our decoder with learned positions, Hugging Face's GPT-2 with the same weights)."""
    ours = decoder("learned")
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=97, n_positions=32, n_embd=24, n_layer=3, n_head=4, attn_implementation="eager")
    ).eval()
    names = {
        "transformer.wte": ours.token_embedding,
        "transformer.wpe": ours.position_embedding,
        "transformer.ln_f": ours.final_norm,
    }
    for layer, block in enumerate(ours.blocks):
        names |= {
            f"transformer.h.{layer}.ln_1": block.attention_norm,
            f"transformer.h.{layer}.ln_2": block.mlp_norm,
            f"transformer.h.{layer}.attn.c_proj": block.attention.output,
            f"transformer.h.{layer}.mlp.c_fc": block.mlp.expand,
            f"transformer.h.{layer}.mlp.c_proj": block.mlp.contract,
        }
    with torch.no_grad():
        for name, source in names.items():
            target = theirs.get_submodule(name)
            # GPT-2 keeps its linear maps transposed ("Conv1D")
            target.weight.copy_(source.weight.T if "Conv1D" in type(target).__name__ else source.weight)
            if hasattr(source, "bias"):
                target.bias.copy_(source.bias)
        for theirs_block, block in zip(theirs.transformer.h, ours.blocks, strict=True):
            three = (block.attention.query, block.attention.key, block.attention.value)
            theirs_block.attn.c_attn.weight.copy_(torch.cat([linear.weight for linear in three]).T)
            theirs_block.attn.c_attn.bias.copy_(torch.cat([linear.bias for linear in three]))
    return ours, theirs


@torch.no_grad()
def test_equals_gpt2(gpt2_pair, ids):
    ours, theirs = gpt2_pair
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_equals_gpt2_under_padding(gpt2_pair, ids, side):
    ours, theirs = gpt2_pair
    attention_mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 5, 9)):
        attention_mask[row, : padding if side == "left" else 0] = 0
        attention_mask[row, 20 - padding if side == "right" else 20 :] = 0
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)  # what Hugging Face's generate() passes
    expected = theirs(ids, attention_mask=attention_mask, position_ids=positions).logits
    real = attention_mask.bool()
    logits = ours(ids, attention_mask)
    torch.testing.assert_close(logits[real], expected[real], atol=1e-5, rtol=1e-5)
    assert logits.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_padding_changes_nothing(ids, positions):
    model = decoder(positions)
    alone = model(ids[:1, :12])[0]
    padded = ids[:1].expand(2, -1).clone()
    padded[1, 8:] = ids[0, :12]
    attention_mask = torch.ones_like(padded)
    attention_mask[0, 12:] = 0
    attention_mask[1, :8] = 0
    right, left = model(padded, attention_mask)
    torch.testing.assert_close(right[:12], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(left[8:], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_the_future_cannot_touch_the_past(ids, positions):
    model = decoder(positions)
    before = model(ids)
    for position in (1, 7, 19):
        changed = ids.clone()
        changed[:, position:] = (changed[:, position:] + 1) % TINY["vocab_size"]
        after = model(changed)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.equal(after[:, position], before[:, position])


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_keeps_its_promises(positions):
    report = assert_mask(decoder(positions), Causal())
    assert {"padding", "precision"} <= {probe.id for probe in report.probed if probe.applied}


def test_rotary_by_hand():
    """D = 4: pair (0, 2) turns by 1 radian per position, pair (1, 3) by 10000^(−1/2) = 0.01."""
    x = tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 3, 4)
    expected = [[math.cos(p), math.cos(0.01 * p), math.sin(p), math.sin(0.01 * p)] for p in (0, 1, 5)]
    torch.testing.assert_close(rotate(x, tensor([[0, 1, 5]]))[0, 0], tensor(expected))


def test_rotary_is_relative():
    """A query at m and a key at n: with unit vectors along the first pair the product is cos(m − n)."""
    unit = tensor([1.0, 0.0]).expand(1, 1, 3, 2)
    q, k = rotate(unit, tensor([[7, 107, 1007]])), rotate(unit, tensor([[4, 104, 1004]]))
    torch.testing.assert_close((q * k).sum(-1).flatten(), torch.full((3,), math.cos(3)), atol=1e-4, rtol=0)
    backwards = (
        rotate(unit, tensor([[1, 2, 3]])),
        rotate(tensor([0.0, 1.0]).expand(1, 1, 3, 2), tensor([[4, 5, 6]])),
    )
    product = (backwards[0] * backwards[1]).sum(-1).flatten()  # a quarter turn ahead, so the sign of m − n shows
    torch.testing.assert_close(product, torch.full((3,), math.sin(1 - 4)), atol=1e-4, rtol=0)


def test_config_errors():
    with pytest.raises(ValueError, match="width 30 does not split into 4 heads"):
        Decoder(DecoderConfig(**(TINY | {"width": 30})))
    with pytest.raises(ValueError, match="not 'sinus'"):
        DecoderConfig(**TINY, positions="sinus")
    with pytest.raises(ValueError, match="33 tokens exceed the context of 32"):
        decoder("learned")(torch.zeros(1, 33, dtype=torch.long))


# The bundled weights


@pytest.fixture(scope="module")
def bundled():
    return load_bundled("tiny-decoder")


@pytest.fixture(scope="module")
def patterns(bundled):
    """Attention (L, B, H, T, T) on [bos] + r + r, |r| = 64, from the q and k that reach torch's attention."""
    module, tokenizers, config = bundled
    bos = tokenizers["text"].token_to_id("<|endoftext|>")
    r = torch.randint(config["vocab_size"] - 1, (6, 64), generator=torch.Generator().manual_seed(4321))
    r += r >= bos
    ids = torch.cat([torch.full((6, 1), bos), r, r], dim=1)
    seen = []
    plain = F.scaled_dot_product_attention

    def listen(q, k, v, **options):
        weights = torch.stack([(q @ k.mT / math.sqrt(q.shape[-1]))[..., t, :] for t in range(ids.shape[1])], -2)
        weights = weights.masked_fill(~torch.ones_like(weights, dtype=torch.bool).tril(), -math.inf).softmax(-1)
        out = plain(q, k, v, **options)
        torch.testing.assert_close(weights @ v, out, atol=1e-4, rtol=1e-4)
        seen.append(weights)
        return out

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "scaled_dot_product_attention", listen)
        module(ids)
    return torch.stack(seen)


def test_bundled_shape(bundled):
    module, tokenizers, config = bundled
    assert not module.training
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert (config["layers"], config["heads"], config["context"]) == (4, 8, 2048)
    assert list(tokenizers) == ["text"] and tokenizers["text"].get_vocab_size() == config["vocab_size"]


def test_induction_head(patterns):
    queries = range(65, 129)  # the second copy
    per_head = torch.stack([patterns[..., t, t - 63] for t in queries]).mean((0, 2))  # (L, H)
    assert per_head.max() >= 0.6


def test_previous_token_head(patterns):
    per_head = torch.stack([patterns[..., t, t - 1] for t in range(1, 129)]).mean((0, 2))  # (L, H)
    assert per_head.max() >= 0.8


@torch.no_grad()
def test_bundled_predicts_text(bundled):
    module, tokenizer = bundled[0], bundled[1]["text"]
    text = "The state of the Union is strong, and the people of the United"
    best = module(tensor([tokenizer.encode(text).ids]))[0, -1].argmax()
    assert tokenizer.decode([best]) == " States"


def test_offsets_point_into_the_text(bundled):
    tokenizer = bundled[1]["text"]
    encoding = tokenizer.encode(EMOJI)
    assert tokenizer.decode(encoding.ids) == EMOJI
    alphabet = {character: byte for byte, character in enumerate(byte_alphabet())}
    end = 0
    for token, (start, stop) in zip(encoding.tokens, encoding.offsets, strict=True):
        # Tokens tile the text; those that hold a part of one character share its offsets.
        assert end - 1 <= start <= end and start < stop
        assert bytes(alphabet[character] for character in token) in EMOJI[start:stop].encode()
        end = stop
    assert end == len(EMOJI)


def byte_alphabet():
    """GPT-2's bytes_to_unicode: printable bytes stand for themselves, the others for U+0100 upwards."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def test_unknown_name_lists_the_choices():
    with pytest.raises(KeyError, match=", ".join(BUNDLED)):
        load_bundled("big-decoder")


def test_missing_and_unfit_files_are_named(tmp_path, monkeypatch, bundled):
    from safetensors.torch import save_file

    from headwise.models.sources import bundled as home

    source = home.ASSETS / "tiny-decoder"
    monkeypatch.setattr(home, "ASSETS", tmp_path)
    folder = tmp_path / "tiny-decoder"
    folder.mkdir()
    for file in ("config.json", "tokenizer.json"):
        (folder / file).write_bytes((source / file).read_bytes())
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors"):
        load_bundled("tiny-decoder")
    weights = {key: value.contiguous() for key, value in bundled[0].state_dict().items()}
    save_file(weights | {"final_norm.bias": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 tensors; first final_norm\.bias: expected \(256,\), got \(3,\)"):
        load_bundled("tiny-decoder")
