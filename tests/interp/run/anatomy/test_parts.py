"""Direct contributions: by hand, and they add up."""

import pytest
import torch

from headwise.interp.errors import InputError
from headwise.interp.run.anatomy import anatomy, read
from headwise.interp.run.capture import capture
from headwise.interp.subject import Inputs
from headwise.models import load, wrap
from tests.interp.run.anatomy import made

TEXT = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def smollm():
    return load("smollm2-135m")


def test_contributions_by_hand(smollm):
    """A write's contribution to a logit difference: its product with the direction (W[a] − W[b]) · weight · scale."""
    cap = capture(smollm, TEXT, stream=True)
    a, b = (smollm.encode(f" {name}").kwargs["input_ids"][0, -1] for name in ("Mary", "John"))
    parts = cap.stream.parts(lambda logits: logits[0, -1, a] - logits[0, -1, b])
    wanted = float(cap.logits[0, -1, a] - cap.logits[0, -1, b])
    assert parts.value == pytest.approx(wanted, rel=1e-5) and abs(parts.remainder) <= 1e-5 * abs(wanted)

    model, last = smollm.module, cap.stream.states()[-1][0, -1].double()
    scale = torch.rsqrt(last.pow(2).mean() + model.config.rms_norm_eps)
    direction = (model.lm_head.weight[a] - model.lm_head.weight[b]).double() * model.model.norm.weight * scale
    mlps = {p.block: p for p in parts if p.kind == "mlp"}
    for write, tensor in cap.stream.writes():
        if write.kind == "mlp":
            assert mlps[write.block].value == pytest.approx(float(tensor[0, -1].double() @ direction), abs=1e-5)
    (embedding,) = [p for p in parts if p.kind == "embedding"]
    assert embedding.value == pytest.approx(float(cap.stream.embedding()[0, -1].double() @ direction), abs=1e-6)

    heads = {(p.block, p.head): p for p in parts if p.head is not None}
    assert len(heads) == 270
    for layer, head in ((0, 3), (17, 1), (29, 8)):
        call = cap.find(layer)
        z = call.weights(head)[0, -1] @ call.v[0, head // 3]
        weight = model.model.layers[layer].self_attn.o_proj.weight[:, 64 * head : 64 * head + 64]
        theirs = float(weight.double() @ z.double() @ direction)
        part = heads[layer, head]
        assert part.value == pytest.approx(theirs, abs=1e-5) and part.call == (call.name, call.occurrence)
        by_key = part.by_key()  # (B, Q, K)
        assert by_key.shape == (1, call.queries, call.keys) and float(by_key.sum()) == pytest.approx(theirs, abs=1e-5)
        each = call.weights(head)[0, -1].double() * (call.v[0, head // 3].double() @ weight.double().T @ direction)
        torch.testing.assert_close(by_key[0, -1], each, atol=1e-5, rtol=1e-4)
        assert not part.at[0, :-1].any() and not by_key[0, :-1].any()  # it enters where it is read


def test_removing_the_last_write_changes_the_logit_by_its_contribution(smollm):
    """With the final norm held still, taken out by hand."""
    reading = capture(smollm, TEXT, stream=True).stream
    norm, model = reading.anatomy.readout.final_norm, smollm.module
    write, tensor = reading.writes()[-1]
    last = reading.states()[-1]
    logits = model.lm_head(norm(last - tensor, norm.scale(last)))
    for token in (10, 400):
        part = next(p for p in reading.parts(lambda logits, t=token: logits[0, -1, t]) if p.branch is write)
        change = float(reading.logits[0, -1, token] - logits[0, -1, token])
        assert part.value == pytest.approx(change, abs=2e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", {}),
        ("plain", {"norm": made.HandRMS}),
        ("subtracted", {}),
        ("parallel_sum", {}),
        ("layer_scale", {}),
        ("post_norm", {}),
        ("deep_norm", {}),
        ("sandwich", {}),
        ("plain", {"after": lambda logits: 5 * torch.tanh(logits / 5)}),
        ("plain", {"after": lambda logits: 0.25 * logits}),
        ("mixed", {}),
    ],
)
def test_they_add_up_whatever_the_spelling(name, options):
    """At two positions of two samples at once; biases of norms, of projections and of the head are parts of their own,
    and so are the two summands of the embedding."""
    net = made.made(getattr(made, name), **options)
    subject, inputs = wrap(net), Inputs(made.ids(2, 11, seed=5))
    reading = read(subject, inputs, anatomy(subject, made.ids()))

    def functional(logits):
        return logits[0, -1, 3] - logits[0, -1, 7] + 2 * logits[1, 4, 11]

    parts = reading.parts(functional)
    assert parts.value == pytest.approx(float(functional(reading.logits)), abs=1e-6)
    assert abs(parts.remainder) <= 1e-5 * max(abs(p.value) for p in parts)
    assert sum(p.kind == "embedding" for p in parts) == 2  # of the token and of the place
    assert sum(p.head is not None for p in parts) == (0 if name == "mixed" else made.LAYERS * made.H)
    assert "constant" in {p.kind for p in parts} and parts.value != 0


@pytest.mark.parametrize("name", ["tiny-decoder", "tiny-encoder-decoder", "tiny-vit", "bart-phonemes"])
def test_they_add_up_in_known_models(name):
    subject = load(name)
    found = anatomy(subject)
    from headwise.interp.run.anatomy.probe import default

    reading = read(subject, default(subject), found)
    top = int(reading.logits.flatten().argmax())
    parts = reading.parts(lambda logits: logits.flatten()[top])
    assert abs(parts.remainder) <= 1e-5 * parts.value
    for part in parts:
        if part.head is not None:
            assert float(part.by_key().sum()) == pytest.approx(part.value, abs=1e-4)


def test_a_readout_that_is_not_direct_is_refused_with_its_reason():
    with pytest.raises(InputError, match="cannot be split into direct contributions: the logits are made by more than"):
        capture(load("tiny-encoder"), TEXT, stream=True).stream.parts(lambda logits: logits[0, 0, 0])
    with pytest.raises(InputError, match="No logits can be read from the residual stream of dinov2-small"):
        reading = read(dino := load("dinov2-small"), _picture(dino), anatomy(dino))
        reading.unembed(reading.embedding())


def _picture(subject):
    from PIL import Image

    return subject.encode(Image.new("RGB", (60, 60), "white"))
