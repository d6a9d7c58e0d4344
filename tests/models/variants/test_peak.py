"""The peak of a call's memory: by hand, what is kept and what is given back on the way."""

import pytest
import torch

from headwise.models.variants.peak import peak_bytes

MIB = 2**20


@pytest.mark.parametrize(
    "call, expected",
    [
        (lambda: torch.ones(16 * MIB), 64),
        (lambda: torch.ones(16 * MIB).add(1), 128),  # both are there at once
        (lambda: [float(torch.ones(16 * MIB)[0]) for _ in range(5)], 64),  # one after the other
        (lambda: [torch.ones(MIB) for _ in range(5)], 20),  # all are kept
        (lambda: None, 0),
    ],
    ids=["one", "two at once", "five in turn", "five kept", "nothing"],
)
def test_a_peak_is_what_is_there_at_once(call, expected):
    assert peak_bytes(call) / MIB == pytest.approx(expected, abs=0.01)


def test_a_peak_is_that_of_the_call_alone_whatever_was_before():
    kept = torch.ones(64 * MIB)
    peaks = [peak_bytes(lambda: kept[:MIB].add(1)) for _ in range(3)]
    assert len(set(peaks)) == 1 and peaks[0] / MIB == pytest.approx(4, abs=0.01)


def test_full_attention_keeps_no_square():
    q = torch.randn(1, 1, 2048, 16)
    kept = peak_bytes(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True))
    square = peak_bytes(lambda: (q @ q.mT).softmax(-1) @ q)
    assert kept < 8 * MIB < 2 * 2048**2 * 4 <= square
