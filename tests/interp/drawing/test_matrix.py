"""What is drawn of a head: values, mask codes, leaks, words, against brute force."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import MambaConfig, MambaModel

from headwise import capture
from headwise.interp.attention.axes import Axis, Sound
from headwise.interp.drawing.matrix import ALLOWED, FORBIDDEN, LEAK, LEAKED, MIXED, Matrix, Span, head_view, recorded
from headwise.interp.drawing.quantities import Quantity
from headwise.interp.drawing.survey import grid_pictures, survey
from headwise.interp.drawing.words import word_groups
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs, same_tokens
from headwise.models import load, read_image, wrap

ROOT = Path(__file__).parents[3]


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


def test_a_part_that_is_no_square_is_pooled_by_its_own_factors():
    """Queries 2 … 8 in threes, keys 0 … 3 in twos. Query 2 may see keys 0 … 2; keys 2 and 3 stay mixed for 2 … 4."""
    cap = seen(9, torch.ones(9, 9).tril().bool())
    view = head_view(cap, cap.calls[0], 0, region=(2, 9, 0, 4), size=3)
    assert view.factor == (3, 2)
    assert view.forbidden.tolist() == [[ALLOWED, MIXED], [ALLOWED, ALLOWED], [ALLOWED, ALLOWED]]
    part = cap.calls[0].weights(0)[0, 2:9, 0:4]
    assert view.matrix[2].tolist() == [part[6, :2].max(), part[6, 2:].max()]


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


# -- several samples -----------------------------------------------------------------------------------------
class Padded(Attention):
    """Attention that forgets the padding it is told of."""

    def forward(self, x, attention_mask):
        return super().forward(x)


def test_each_sample_is_looked_at_under_its_own_padding():
    x, real = torch.randn(2, 1, 4, 8), torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]])  # right and left
    cap = capture(wrap(Padded(), kind="encoder"), {"attention_mask": real, "x": x})
    call = cap.calls[0]
    for batch in (0, 1):
        view = head_view(cap, call, 0, batch=batch)
        assert torch.equal(view.values, call.weights(0)[batch])
        assert torch.equal(view.forbidden, (1 - real[batch]).expand(4, 4).to(torch.uint8))
        assert torch.equal(view.leaks, view.forbidden == FORBIDDEN)
        assert view.left_out == (f"sample {batch} is shown, one of 2",)
        merged = head_view(cap, call, 0, batch=batch, special=False)
        assert torch.equal(merged.values, view.values) and torch.equal(merged.forbidden, view.forbidden)
    pooled = head_view(cap, call, 0, size=2, batch=1)
    assert pooled.forbidden.tolist() == [[FORBIDDEN, ALLOWED]] * 2
    for wrong in (2, -1):
        with pytest.raises(IndexError, match=f"batch expects a sample 0 … 1; got {wrong}"):
            head_view(cap, call, 0, batch=wrong)


def test_one_sample_needs_no_word():
    cap = seen(5)
    assert head_view(cap, cap.calls[0], 0).left_out == ()


def test_a_pooled_leak_is_found_in_the_sample_that_has_it():
    mask = torch.ones(2, 1, 8, 8).tril().bool()
    mask[1, 0, 2, 3] = True  # within a cell of two by two that holds both kinds
    x = torch.randn(2, 1, 8, 8)
    cap = capture(wrap(Attention(mask), kind="decoder"), {"x": x})
    first, second = (head_view(cap, cap.calls[0], 0, size=4, batch=batch) for batch in (0, 1))
    assert not first.leaks.any() and second.leaks.nonzero().tolist() == [[1, 1]]
    assert second.forbidden[1, 1] == LEAKED and first.forbidden[1, 1] == MIXED


def test_windows_say_that_there_are_others():
    """Swin (Liu et al. 2021, §3.2) folds its windows into the batch: 16 × 16 patches in windows of 4 × 4 are 16."""
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(image_size=64, patch_size=4, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4)
    subject = wrap(SwinModel(config).eval(), kind="vision")
    cap = capture(subject, {"pixel_values": torch.randn(1, 3, 64, 64)})
    call = cap.calls[0]
    assert (call.batch, call.queries) == (16, 16)
    for window in (0, 9):
        view = head_view(cap, call, 1, batch=window)
        assert torch.equal(view.values, call.weights(1)[window])
        (note,) = view.left_out
        assert note == f"this layer splits its input into 16 parts, such as windows or channels: part {window} is shown"
    pair = capture(subject, {"pixel_values": torch.randn(2, 3, 64, 64)})
    assert "splits 2 samples into 32 parts" in head_view(pair, pair.calls[0], 0).left_out[0]
    assert len(survey(cap, batch=12).thumbnails) == len(cap.calls)  # the second stage has four windows: its last


# -- what a matrix knows -------------------------------------------------------------------------------------
def test_a_matrix_refuses_what_does_not_fit():
    rows, columns = Span(("a", "b"), "queries"), Span(("x", "y", "z"), "keys")
    free = Matrix(torch.zeros(2, 3), rows, columns).forbidden
    assert free.shape == (2, 3) and free.dtype == torch.uint8 and not free.any()
    with pytest.raises(ValueError, match=r"expects values \(rows, columns\); got \(6,\)"):
        Matrix(torch.zeros(6), rows, columns)
    with pytest.raises(ValueError, match="columns expects 2 labels, one for each; got 3"):
        Matrix(torch.zeros(2, 2), rows, columns)
    with pytest.raises(ValueError, match=r"forbidden expects the values' shape \(2, 3\); got \(3, 2\)"):
        Matrix(torch.zeros(2, 3), rows, columns, forbidden=torch.zeros(3, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="kind expects one of weight, score, signed; got 'gold'"):
        Quantity("weight", "gold")


def test_several_are_called_as_one_is_unless_they_have_a_name():
    rows, columns = Span(("a",), "queries"), Span(("x",), "keys")
    one, other = (Matrix(torch.zeros(1, 1), rows, columns, Quantity(name)) for name in ("reached", "seen"))
    with pytest.raises(ValueError, match="it holds reached, not seen"):
        one.minus(other)


def test_a_span_knows_its_positions():
    span = Span(("a", "b", "c"), "keys", origin=4, factor=3, whole=12)
    assert list(span.starts) == [4, 7, 10] and span.end == 12 and len(span) == 3
    assert Span(("a", "b"), "keys", 4, 3).whole == 10


def test_a_title_says_which_head_of_whom():
    cap = capture(load("tiny-encoder-decoder"), ("knight", "nˈIt"))
    view = head_view(cap, cap.find(2, "cross"), 1)
    assert view.caption == "tiny-encoder-decoder · cross · layer 2 · head 1"
    assert (view.rows.name, view.columns.name) == ("target queries", "source keys")
    one = seen(4)
    assert head_view(one, one.calls[0], 0).title == "layer 0 · head 0"


def test_frames_stay_frames_beside_words_and_patches_end_where_one_is_left_out():
    """Words on one side take nothing from the other; without its special token a grid is whole no more."""
    sound = Sound(torch.zeros(4, 12).numpy(), hop=0.01, step=0.02, seconds=0.1)
    frames = Axis(tuple(f"{i * 0.02:.2f} s" for i in range(6)), sound=sound)
    cap = capture(wrap(Attention(), kind="encoder"), Inputs({"x": torch.randn(1, 1, 6, 8)}, {"input": frames}))
    view = head_view(cap, cap.calls[0], 0, words=True)
    assert view.rows.sound is sound and view.columns.sound is sound
    vit = capture(load("tiny-vit"), read_image(ROOT / "assets/examples/seven.png"))
    whole, cut = (head_view(vit, vit.calls[0], 0, special=special) for special in (True, False))
    assert whole.columns.grid == (7, 7) and whole.columns.picture is whole.rows.picture is not None
    assert cut.columns.grid is None and cut.columns.picture is None and len(cut.columns) == 49


class Sinking(nn.Module):
    """Three tokens with the same scores and a sink that outweighs each by three: row i is 1/(i + 4) a key, the sink
    3/(i + 4)."""

    def forward(self, x):
        scores = torch.full((*x.shape[:-1], x.shape[-2] + 1), -torch.inf)
        scores[..., :-1] = torch.zeros(x.shape[-2], x.shape[-2]).masked_fill(
            torch.ones(x.shape[-2], x.shape[-2]).triu(1).bool(), -torch.inf
        )
        scores[..., -1] = torch.tensor(3.0).log()
        return scores.softmax(-1)[..., :-1] @ x


def sinking(length, text=None, offsets=None):
    axis = Axis(tuple(f"t{i}" for i in range(length)), offsets, None, text)
    subject = wrap(Sinking(), kind="decoder")
    return capture(subject, Inputs({"x": torch.randn(1, 1, length, 8)}, {"input": axis}))


def test_the_sink_is_a_column_of_its_own():
    cap = sinking(3)
    view = head_view(cap, cap.calls[0], 0)
    expected = torch.tensor([[1 / 4, 0, 0, 3 / 4], [1 / 5, 1 / 5, 0, 3 / 5], [1 / 6, 1 / 6, 1 / 6, 3 / 6]])
    torch.testing.assert_close(view.values, expected)
    assert view.columns.labels == ("t0", "t1", "t2", "sink") and view.shape == (3, 4)
    assert view.forbidden[:, 3].tolist() == [ALLOWED] * 3 and not view.leaks.any()


def test_the_sink_stands_beside_the_last_key_alone():
    cap = sinking(6)
    call = cap.calls[0]
    inner = head_view(cap, call, 0, region=(0, 6, 0, 4))
    assert inner.columns.labels == ("t0", "t1", "t2", "t3")
    share = sum(3 / (i + 4) for i in range(6)) / 6  # 0.47
    assert f"not shown: the sink, with {share:.0%} of the weight" in inner.left_out
    outer = head_view(cap, call, 0, region=(3, 6, 4, 6))
    assert outer.columns.labels == ("t4", "t5", "sink") and outer.origin == (3, 4)
    torch.testing.assert_close(outer.values[:, 2], torch.tensor([3 / 7, 3 / 8, 3 / 9]))
    pooled = head_view(cap, call, 0, size=3)
    assert pooled.values.shape == (3, 3) and any("sink" in note for note in pooled.left_out)
    for quantity in ("scores", "value_weighted"):
        assert "sink" not in head_view(cap, call, 0, quantity).columns.labels


def test_words_are_averaged_over_their_queries_for_the_sink_too():
    cap = sinking(3, "ab c", ((0, 1), (1, 2), (3, 4)))
    view = head_view(cap, cap.calls[0], 0, words=True)
    assert view.columns.labels == ("ab", "t2", "sink")
    torch.testing.assert_close(view.values[:, 2], torch.tensor([(3 / 4 + 3 / 5) / 2, 3 / 6]))
    torch.testing.assert_close(view.values.sum(1), torch.ones(2))


def test_weights_below_zero_are_drawn_to_both_sides():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 20, "state_size": 4}
    model = MambaModel(MambaConfig(**sizes)).eval()
    call = (cap := capture(wrap(model), {"input_ids": torch.arange(12)[None]})).calls[0]
    head = next(head for head in range(call.heads) if call.weights(head).min() < 0)
    view = head_view(cap, call, head)
    assert view.quantity.kind == "signed"
    assert (view.values - call.weights(head)[0]).abs().max() < 1e-6
    assert (grid_pictures(cap, survey(cap), call.stack)[0, head] >= 0).any()
