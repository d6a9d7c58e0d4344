"""What is drawn of a head: values, mask codes, leaks, words, against brute force."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import capture
from headwise.interp.attention.axes import Axis, Sound
from headwise.interp.drawing.matrix import ALLOWED, FORBIDDEN, LEAK, LEAKED, MIXED, head_view, recorded
from headwise.interp.drawing.survey import grid_pictures, survey
from headwise.interp.drawing.words import word_groups
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs, same_tokens
from headwise.models import load, wrap


class Attention(nn.Module):
    """One head that attends under any bool mask, or none."""

    def __init__(self, mask=None):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x, attn_mask=self.mask)


def seen(length, mask=None, kind="decoder"):
    x = torch.randn(1, 1, length, 8)
    return capture(wrap(Attention(mask), kind=kind), {"x": x})


@pytest.mark.parametrize("size", [7, 16, 50])
@pytest.mark.parametrize("leaky", [False, True])
def test_codes_and_values_against_brute_force(size, leaky):
    n = 50
    mask = torch.ones(n, n).tril().bool()
    if leaky:
        mask[3, 20] = mask[40, 49] = True
    cap = seen(n, mask)
    call = cap.calls[0]
    view = head_view(cap, call, 0, size=size)
    weights, promised = call.weights(0)[0], torch.ones(n, n).tril().bool()
    f = view.factor[0]
    assert f == -(-n // size)
    for row in range(view.matrix.shape[0]):
        for column in range(view.matrix.shape[1]):
            part = slice(row * f, row * f + f), slice(column * f, column * f + f)
            allowed, weight = promised[part], weights[part]
            assert view.matrix[row, column] == weight.max()
            leak = bool((weight[~allowed] > LEAK).any())
            mixed = bool(allowed.any() and (~allowed).any())
            expected = ALLOWED if allowed.all() else LEAKED if mixed and leak else MIXED if mixed else FORBIDDEN
            assert view.forbidden[row, column] == expected
    assert bool(view.leaks.any()) == leaky


def test_a_missing_mask_is_not_repainted():
    cap = seen(6)
    view = head_view(cap, cap.calls[0], 0)
    assert (
        view.leaks[0, 5] and not view.leaks[5, 0] and float(view.matrix[0, 5]) > 0 and view.forbidden[0, 5] == FORBIDDEN
    )
    assert survey(cap).table.forbidden[0] > 0.1
    free = seen(6, kind="encoder")
    assert not head_view(free, free.calls[0], 0).leaks.any()


def test_region_is_the_exact_crop():
    cap = seen(40, torch.ones(40, 40).tril().bool())
    view = head_view(cap, cap.calls[0], 0, region=(10, 30, 5, 25), size=32)
    assert torch.equal(view.matrix, cap.calls[0].weights(0)[0, 10:30, 5:25])
    assert view.origin == (10, 5) and view.factor == (1, 1) and view.shape == (40, 40)


def test_words_sum_keys_and_average_queries():
    text = "unbelievably it's 🙂 so"
    axis = Axis(
        ("[CLS]", "un", "##believ", "##ably", "it", "'", "s", "🙂 1/2", "🙂 2/2", "so"),
        ((0, 0), (0, 2), (2, 8), (8, 12), (13, 15), (15, 16), (16, 17), (18, 19), (18, 19), (20, 22)),
        (True, *(False,) * 9),
        text,
    )
    assert word_groups(axis) == [[0], [1, 2, 3], [4, 5, 6], [7, 8], [9]]
    x = torch.randn(1, 1, 10, 8)
    subject = wrap(Attention(), encode=lambda raw: Inputs({"x": raw}, {"input": axis}), kind="encoder")
    cap = capture(subject, x)
    weights = cap.calls[0].weights(0)[0]
    view = head_view(cap, cap.calls[0], 0, words=True)
    assert view.queries == ("[CLS]", "unbelievably", "it's", "🙂", "so")
    torch.testing.assert_close(view.matrix.sum(1), torch.ones(5))
    torch.testing.assert_close(view.matrix[1, 2], weights[1:4, 4:7].sum(1).mean())
    hidden = head_view(cap, cap.calls[0], 0, words=True, special=False)
    assert hidden.queries == view.queries[1:]
    share = float(weights[:, 0].sum() / weights.sum())
    assert f"left out: [CLS], which held {share:.0%} of the weight" in hidden.left_out
    with pytest.raises(ValueError, match="cannot be added up"):
        head_view(cap, cap.calls[0], 0, "scores", words=True)


def test_a_difference_is_this_one_less_the_other_and_leaks_nothing():
    cap = capture(load("tiny-decoder"), "The people of the United States.")
    one, other = (head_view(cap, cap.calls[0], head, size=4) for head in (0, 7))
    one.forbidden[:] = FORBIDDEN
    assert one.leaks.any()
    change = other.minus(one)
    assert torch.equal(change.values, other.values - one.values) and change.values.min() < 0 < change.values.max()
    assert (change.factor, change.queries, change.signed) == (one.factor, one.queries, True)
    assert change.quantity.name == "weight difference" and change.of == "tiny-decoder − tiny-decoder"
    assert not change.leaks.any()
    longer = capture(load("tiny-decoder"), "The people of the United States." * 2)
    with pytest.raises(ValueError, match=r"it has \d+ × \d+ positions, not \d+ × \d+\."):
        head_view(longer, longer.calls[0], 0).minus(one)
    with pytest.raises(ValueError, match=r"it holds scores, not weights\."):
        head_view(cap, cap.calls[0], 0, "scores", size=4).minus(one)


def test_only_the_same_tokens_are_compared():
    encoder, decoder, twin = load("tiny-encoder"), load("tiny-decoder"), load("tiny-attention-only")
    same_tokens(decoder, twin, decoder.encode("The people."))
    with pytest.raises(InputError, match="tiny-encoder reads other tokens than tiny-decoder"):
        same_tokens(decoder, encoder, decoder.encode("The people."))


def test_thumbnails_are_the_pooled_maximum():
    cap = capture(load("tiny-decoder"), "The people of the United States. " * 12)
    call = cap.find(2)
    small = survey(cap, size=16).thumbnails["decoder", 2]
    torch.testing.assert_close(small[3], call.image(3, size=16))


def recording(length, seconds):
    """A head over ``length`` frames of 0.02 s, of which the recording takes ``seconds``."""
    sound = Sound(torch.zeros(4, 2 * length).numpy(), hop=0.01, step=0.02, seconds=seconds)
    axis = Axis(tuple(f"{i * 0.02:.2f} s" for i in range(length)), sound=sound)
    return capture(wrap(Attention(), kind="encoder"), Inputs({"x": torch.randn(1, 1, length, 8)}, {"input": axis}))


def test_a_recording_ends_in_the_frame_that_holds_its_last_sample():
    for seconds, frames in ((0.101, 6), (0.1, 5), (0.0, 1), (9.0, 300)):
        cap = recording(300, seconds)
        assert recorded(cap, cap.calls[0]) == (0, frames, 0, frames)
    cap = seen(9)
    assert recorded(cap, cap.calls[0]) is None


def test_thumbnails_show_the_recording_alone():
    cap = recording(300, 0.8)  # 40 frames
    small = survey(cap).thumbnails["encoder", 0]
    assert small.shape == (1, 40, 40)
    torch.testing.assert_close(small[0], cap.calls[0].weights(0)[0, :40, :40])


def test_thumbnails_of_unlike_sides_fill_their_square():
    cap = capture(load("tiny-encoder-decoder"), ("knight", "nˈIt"))
    picture = grid_pictures(cap, survey(cap), "cross")  # 5 queries, 7 keys
    weights = cap.find(2, "cross").weights(1)[0].sqrt().numpy()
    assert picture.shape[2:] == (7, 7)
    rows = [0, 0, 1, 2, 2, 3, 4]  # ⌊row · 5 / 7⌋
    assert abs(picture[2, 1] - weights[rows]).max() < 1e-6
