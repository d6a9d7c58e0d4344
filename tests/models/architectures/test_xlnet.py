"""XLNet: Hugging Face's two streams on copied weights, what each position may see, steps, no leak."""

import pytest
import torch
from transformers import XLNetConfig as TheirConfig
from transformers import XLNetLMHeadModel

from headwise import capture, check, masks, wrap
from headwise.models.architectures.xlnet import XLNet, XLNetConfig
from headwise.models.variants import xlnet

IDS = torch.randint(20, (2, 9), generator=torch.Generator().manual_seed(0))
ORDER = torch.tensor([3, 1, 6, 8, 0, 2, 5, 7, 4])


def model() -> XLNet:
    torch.manual_seed(0)
    module = XLNet(XLNetConfig(vocab_size=20, context=64, layers=3, heads=2, width=16)).eval()
    for t in module.parameters():
        torch.nn.init.normal_(t, std=0.2)
    return module


def of_theirs(theirs: XLNetLMHeadModel) -> XLNet:
    """Ours with their weights. Their sinusoids are all sines, then all cosines; they have no biases in attention."""
    ours, body = model(), theirs.transformer
    interleaved = torch.arange(16).view(2, 8).t().flatten()
    with torch.no_grad():
        ours.token_embedding.weight.copy_(body.word_embedding.weight)
        ours.start.copy_(body.mask_emb[0, 0])
        ours.output_bias.copy_(theirs.lm_loss.bias)
        for block, layer in zip(ours.blocks, body.layer, strict=True):
            attention, same = block.attention, layer.rel_attn
            for part, weight in ((attention.query, same.q), (attention.key, same.k), (attention.value, same.v)):
                part.weight.copy_(weight.flatten(1).t())
                part.bias.zero_()
            attention.output.weight.copy_(same.o.flatten(1))
            attention.output.bias.zero_()
            attention.distance.weight.copy_(same.r.flatten(1).t()[:, interleaved])
            attention.about_content.copy_(same.r_w_bias)
            attention.about_distance.copy_(same.r_r_bias)
            for mine, other in (
                (block.attention_norm, same.layer_norm), (block.mlp_norm, layer.ff.layer_norm),
                (block.mlp.expand, layer.ff.layer_1), (block.mlp.contract, layer.ff.layer_2),
            ):  # fmt: skip
                mine.load_state_dict(other.state_dict())
    return ours


def hidden(order: torch.Tensor) -> torch.Tensor:
    """Hugging Face's perm_mask (T, T): 1 where i does not see j."""
    rank = order.argsort()
    return (rank[None] >= rank[:, None]).float()


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(1)
    config = TheirConfig(vocab_size=20, d_model=16, n_layer=3, n_head=2, d_inner=64, ff_activation="gelu")
    module = XLNetLMHeadModel(config).eval()
    for t in module.parameters():
        torch.nn.init.normal_(t, std=0.2)
    return module


def test_both_streams_are_hugging_faces_on_its_weights(theirs):
    given = {"perm_mask": hidden(ORDER).expand(2, 9, 9), "target_mapping": torch.eye(9).expand(2, 9, 9)}
    ours, later = of_theirs(theirs), ORDER[1:]
    with torch.no_grad():
        wanted = theirs(IDS, **given, output_attentions=True)
    assert (ours(IDS, order=ORDER) - wanted.logits)[:, later].abs().max() < 1e-4
    cap = capture(wrap(ours, kind="encoder"), {"input_ids": IDS, "order": ORDER})
    for layer, (content, query) in enumerate(wanted.attentions):
        for head in range(2):
            assert torch.allclose(cap.stack("content")[layer].weights(head), content[:, head], atol=1e-5)
            assert torch.allclose(cap.stack("query")[layer].weights(head)[:, later], query[:, head, later], atol=1e-5)
    # what is predicted first sees nothing; in their code all its scores are −10³⁰, and it sees all alike
    assert torch.allclose(wanted.attentions[0][1][:, :, ORDER[0]], torch.full((2, 2, 9), 1 / 9))
    assert not cap.stack("query")[0].weights(0)[:, ORDER[0]].any()


def test_left_to_right_is_hugging_faces_with_that_order(theirs):
    given = {"perm_mask": hidden(torch.arange(9)).expand(2, 9, 9), "target_mapping": torch.eye(9).expand(2, 9, 9)}
    with torch.no_grad():
        assert (of_theirs(theirs)(IDS) - theirs(IDS, **given).logits)[:, 1:].abs().max() < 1e-4


@pytest.mark.parametrize("predicted", [0, 60])
def test_hugging_faces_streams_are_told_apart(theirs, predicted):
    """Theirs is seen too: two calls a layer, each equal to the attentions it returns itself."""
    mapping = torch.eye(9)[ORDER[-3:]] if predicted else torch.eye(9)
    given = {"perm_mask": hidden(ORDER).expand(2, 9, 9), "target_mapping": mapping.expand(2, *mapping.shape)}
    cap = capture(wrap(theirs, kind="encoder"), {"input_ids": IDS, **given})
    assert not cap.unseen and cap.stacks == ("content", "query")
    assert [(c.stack, c.layer) for c in cap.calls] == [(s, n) for n in range(3) for s in ("content", "query")]
    with torch.no_grad():
        wanted = theirs(IDS, **given, output_attentions=True).attentions
    for layer, both in enumerate(wanted):
        for stream, seen in zip(("content", "query"), both, strict=True):
            assert torch.allclose(cap.stack(stream)[layer].weights(1), seen[:, 1], atol=1e-6)
    assert capture(wrap(theirs, kind="encoder"), {"input_ids": IDS}).stacks == ("encoder",)  # without queries: one


def test_streams_are_calls_with_their_masks():
    cap = capture(wrap(model(), kind="encoder"), {"input_ids": IDS, "order": ORDER})
    assert not cap.unseen and cap.stacks == ("content", "query")
    order = tuple(ORDER.tolist())
    for layer in range(3):
        assert cap.stack("content")[layer].mask == masks.Order(order)
        assert cap.stack("query")[layer].mask == masks.Order(order, own=False)
    left_to_right = capture(wrap(model(), kind="encoder"), {"input_ids": IDS})
    assert [call.mask for call in left_to_right.calls[:2]] == [masks.Causal(), masks.Causal(-1)]


@pytest.mark.parametrize("order", [None, ORDER])
def test_a_token_is_told_from_those_before_it_in_the_order(order):
    module, rank = model(), torch.arange(9) if order is None else order.argsort()
    plain = module(IDS, order=order)
    for position in range(9):
        other = IDS.clone()
        other[:, position] = (other[:, position] + 1) % 20
        moved = (module(other, order=order) - plain).abs().amax((0, 2)) > 1e-6
        assert torch.equal(moved, rank > rank[position])  # not itself either


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    pad, real = torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 9, dtype=torch.long)
    order = slice(None, None, 1 if side == "left" else -1)
    both, given = torch.cat([pad, IDS][order], 1), torch.cat([pad, real][order], 1)
    at = slice(4, None) if side == "left" else slice(9)
    assert torch.allclose(model()(both, given)[:, at], model()(IDS), atol=1e-5)
    holes = torch.ones_like(IDS)
    holes[:, 4] = 0
    cap = capture(wrap(model(), kind="encoder"), {"input_ids": IDS, "attention_mask": holes})
    assert not cap.unseen and not cap.calls[0].weights(0)[:, :, 4].any()


@pytest.mark.parametrize("chunks", [(1,) * 9, (4, 1, 4)])
def test_steps_are_the_forward(chunks):
    module, state, outs = model(), None, []
    for chunk in IDS.split(chunks, 1):
        out, state = module.step(chunk, state)
        outs.append(out)
    assert torch.allclose(torch.cat(outs, 1), module(IDS), atol=1e-5)


def test_no_leak_is_found_and_a_planted_one_is(monkeypatch):
    options = {"expect": masks.Causal(), "step": lambda model, ids, cache: model.step(ids, cache)}
    report = check(model(), **options)
    assert report.ok, report
    monkeypatch.setattr(
        "headwise.models.architectures.xlnet.streams", lambda order: (masks.Causal(1), masks.Causal(-1))
    )
    found = check(model(), **options)
    assert not found.ok and any(f.cls == "future-leak" for f in found.findings), found


def test_its_own_token_is_a_leak_that_is_seen_at_the_query_stream(monkeypatch):
    """A query stream that sees its own place, as the content does, is told the answer."""
    honest = xlnet.streams
    monkeypatch.setattr("headwise.models.architectures.xlnet.streams", lambda order: honest(order)[:1] * 2)
    module = model()
    other = IDS.clone()
    other[:, 4] = (other[:, 4] + 1) % 20
    assert (module(other) - module(IDS))[:, 4].abs().max() > 1e-3


@pytest.mark.parametrize(
    "given, said",
    [
        ({"order": torch.arange(4)}, "order expects each of the 9 positions once, got 4"),
        ({"order": torch.zeros(9, dtype=torch.long)}, "each position 0 … n − 1 once"),
    ],
)
def test_bad_input_is_one_sentence(given, said):
    with pytest.raises(ValueError, match=said):
        model()(IDS, **given)
