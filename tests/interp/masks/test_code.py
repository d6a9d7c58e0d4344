"""Generated code does what the mask says, in every convention; information travels as far as the mask lets it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import capture
from headwise.interp.analysis.travel import travel
from headwise.interp.masks import (
    Bidirectional,
    Blocks,
    Causal,
    Chunks,
    Dense,
    Global,
    Packed,
    Padding,
    Prefix,
    Strided,
    Window,
    Windows2d,
)
from headwise.interp.masks.code import CONVENTIONS, code
from headwise.interp.masks.reach import reach
from headwise.models import load, wrap

N = 12
MASKS = [
    Causal(),
    Causal(1),
    Causal(-2),
    Window(3, 0),
    Window(1, 2),
    Prefix(4),
    Bidirectional(),
    Causal() & Strided(3),
    Causal() & Chunks(5),
    Chunks(3, left=1) | Chunks(6, left=None),
    Windows2d(2, 2, grid=(3, 4)) | Windows2d(2, 3, (1, 2), grid=(3, 4)),
    Window(1, 1) | Global((0, 5)),
    Blocks(tuple(i // 4 for i in range(N))),
    Causal() & Packed((0,) * 5 + (1,) * 7),
    Causal() & Padding((9,)),
    Causal() & ~Window(1, 0),
    (Causal() | Global((2,))) & ~Strided(5),
]


@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_code_builds_the_mask_with_the_right_polarity(mask):
    allowed = mask.dense(N, N)
    built = {}
    for convention in CONVENTIONS:
        scope: dict = {}
        exec(code(mask, convention, N), scope)  # our own generated lines
        built[convention] = scope["given"]
    assert torch.equal(built["SDPA"].expand(N, N), allowed)
    assert torch.equal(built["MultiheadAttention"].expand(N, N), ~allowed)
    assert torch.equal(built["Hugging Face"][0, 0].expand(N, N) == 0, allowed)
    scope = {}
    exec(code(mask, "FlexAttention", N), scope)
    q, k = torch.arange(N)[:, None], torch.arange(N)[None]
    assert torch.equal(scope["may_attend"](torch.tensor(0), torch.tensor(0), q, k).expand(N, N), allowed)


def test_sdpa_and_multihead_attention_agree_on_their_own_polarity():
    allowed = (Causal() & Window(2, 0)).dense(N, N)
    mha = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(1, N, 8)
    _, weights = mha(x, x, x, attn_mask=~allowed, average_attn_weights=False)
    q, k, v = (
        t.view(1, N, 2, 4).transpose(1, 2) for t in F.linear(x, mha.in_proj_weight, mha.in_proj_bias).chunk(3, -1)
    )
    call = capture(wrap(mha), {"query": x, "key": x, "value": x, "attn_mask": ~allowed}).calls[0]
    torch.testing.assert_close(call.weights(1), weights[:, 1])
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    torch.testing.assert_close(out, weights @ v)


def test_no_formula_for_a_tensor():
    with pytest.raises(ValueError, match="pass its tensor"):
        code(Dense(torch.ones(3, 3).bool()), "SDPA")


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_reach_of_a_window_grows_by_its_width(layers):
    assert torch.equal(reach(Window(2, 1), 30, layers), Window(2 * layers, layers).dense(30, 30))


def test_a_changed_token_travels_right_only():
    subject = load("tiny-decoder")
    cap = capture(subject, "The people of the United States and the Congress of the United States.")
    moved = travel(cap, 6) > 0
    assert moved.shape == (5, cap.calls[0].queries)
    assert moved[0].nonzero().flatten().tolist() == [6]
    assert not moved[:, :6].any() and moved[1:, 6:].all()
