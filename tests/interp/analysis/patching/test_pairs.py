"""How two inputs are laid beside each other, and which corrupted ones are proposed."""

import pytest
import torch

from headwise import capture, load
from headwise.assets import ASSETS
from headwise.interp.analysis.patching import align, corrupted, corruptions
from headwise.interp.analysis.patching.alignment import aligned
from headwise.interp.attention.axes import Axis
from headwise.interp.errors import InputError
from headwise.models import read_image

STORY = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def tiny():
    return load("tiny-decoder")


def axis(text):
    return Axis(tuple(text.split()), text=text)


def test_one_length_is_position_by_position():
    found = aligned(axis("a b c d"), axis("b a c d"))
    assert found.pairs == ((0, 0), (1, 1), (2, 2), (3, 3)) and found.differs == (True, True, False, False)
    assert found.whole and found.sentence == "2 of 4 tokens differ: a (0) → b (0), b (1) → a (1)."


def test_other_lengths_are_paired_by_what_both_have():
    """The last of what stands instead is paired with the last: "Bar tholo mew" gathers in "mew"."""
    found = aligned(axis("then John came home"), axis("then Bar tholo mew came home"))
    assert found.pairs == ((0, 0), (1, 3), (2, 4), (3, 5)) and found.differs == (False, True, False, False)
    assert found.alone == ((), (1, 2)) and found.partner(1) == 3 and not found.whole
    told = "1 of 4 tokens differs: John (1) → mew (3); 2 tokens of the corrupted input without a partner: "
    assert found.sentence == f"{told}Bar (1), tholo (2)."
    with pytest.raises(InputError, match="nothing in common"):
        aligned(axis("a b"), axis(""))


def test_sequences_of_a_run():
    speller = load("tiny-encoder-decoder")
    clean, other = (capture(speller, (word, "nˈIt")) for word in ("knight", "kniht"))
    assert len(align(clean, other)) == 6 and align(clean, other).alone == ((3,), ())
    assert align(clean, other, "target").differs == (False,) * 5
    with pytest.raises(InputError, match="no sequence 'input' in this run; it has source, target"):
        align(clean, other, "input")


def test_patches_that_differ():
    eye = load("tiny-vit")
    clean = capture(eye, read_image(ASSETS / "examples/seven.png"))
    pixels = clean.inputs.kwargs["pixel_values"].clone()
    pixels[..., :4, 4:8] += 0.5  # of 28 × 28 in 7 × 7 patches: row 0, column 1
    other = capture(eye, {"pixel_values": pixels})
    other = corrupted(clean, type(clean.inputs)(other.inputs.kwargs, clean.axes))
    found = align(clean, other)
    assert [p for p, differs in enumerate(found.differs) if differs] == [2]  # CLS comes first
    assert found.sentence == "1 of 50 patches differs."


def test_names_are_exchanged(smollm2_folder):
    cap = capture(load("smollm2-135m"), STORY)
    found = {one.kind: one.raw for one in corruptions(cap)}
    assert found["name again"] == "When Mary and John went to the store, Mary gave a drink to"
    assert found["names"] == "When John and Mary went to the store, Mary gave a drink to"
    assert "Peter" in found["another name"]
    at = {one.kind: one.raw for one in corruptions(cap, position=7)}  # " store"
    assert "names" in at and at["likely word"].startswith("When Mary and John went to the ")
    for one in corruptions(cap):
        laid = align(cap, corrupted(cap, one.raw))
        assert laid.whole and any(laid.differs) and one.sentence.endswith(".")


CASES = {
    "tiny-decoder": "The people of the United States",
    "tiny-encoder": ("And God said, Let there be light", "and [MASK] was good."),
    "tiny-encoder-decoder": "knight",
    "tiny-classifier": "A moving and wonderfully acted film",
    "tiny-vit": ASSETS / "examples/seven.png",
}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_model_has_a_proposal(name):
    raw = CASES[name]
    cap = capture(load(name), read_image(raw) if name == "tiny-vit" else raw)
    found = corruptions(cap)
    assert found
    for one in found:
        other = corrupted(cap, one.raw)
        laid = align(cap, other)
        assert laid.whole and 0 < sum(laid.differs) < len(laid)
        given, wanted = (run.inputs.kwargs.get("decoder_input_ids") for run in (cap, other))
        assert given is None or torch.equal(given, wanted)  # what is read is the same, so that its answer is asked


def test_a_second_text_stays():
    cap = capture(load("tiny-encoder"), CASES["tiny-encoder"])
    assert {one.raw[1] for one in corruptions(cap)} == {"and [MASK] was good."}
    assert any("[MASK] there be light" in one.raw[0] for one in corruptions(cap))


def test_nothing_is_proposed_where_nothing_is_known(tiny):
    cap = capture(tiny, {"input_ids": torch.tensor([[5, 6, 7]])})
    assert corruptions(cap) == ()
    assert corruptions(capture(tiny, "1 2 3 4"), position=0) == ()
