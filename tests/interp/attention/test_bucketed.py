"""Attention by hash: many rounds are one softmax, and each is one by itself."""

import pytest
import torch

from headwise.interp.attention.bucketed import Bucketed
from headwise.interp.masks import Buckets, Causal, SortedChunks

B, H, R, T, D = 2, 3, 2, 9, 4
DRAW = torch.Generator().manual_seed(0)
Q, K = torch.randn(2, B, H, T, D, generator=DRAW)
BUCKET = torch.randint(3, (B, H, R, T), generator=DRAW)
ALL = slice(None)
PATTERNS = [Buckets(BUCKET, 2), SortedChunks(BUCKET, 2), SortedChunks(BUCKET, 4, 1, 1)]


def by_rounds(form: Bucketed, causal: bool) -> torch.Tensor:
    """Kitaev et al. 2020, §2: a softmax a round, the rounds weighted by their normalisers; one pair at a time."""
    joint = torch.zeros(B, H, T, T)
    for b in range(B):
        for h in range(H):
            for query in range(T):
                each, norms = [], []
                for number in range(R):
                    met = [_meetings(form.pattern, b, h, query, key, number) for key in range(T)]
                    s = (Q[b, h, query] @ K[b, h].T * form.scale).double()
                    hidden = torch.tensor([not m or (causal and key > query) for key, m in enumerate(met)])
                    s = s + torch.tensor([max(1, m) for m in met]).double().log()
                    s[query] = -1e5  # itself, where nothing else is there
                    s = s.masked_fill(hidden, -torch.inf)
                    each.append(s.softmax(-1))
                    norms.append(s.logsumexp(-1))
                share = torch.stack(norms).softmax(0)
                joint[b, h, query] = (share[:, None] * torch.stack(each)).sum(0)
    return joint


def _meetings(pattern, b: int, h: int, query: int, key: int, number: int) -> int:
    return int(pattern.meetings(*(torch.tensor(x) for x in (b, h, query, key)), only=number))


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@pytest.mark.parametrize("causal", [True, False])
def test_the_rounds_together_are_one_softmax(pattern, causal):
    form = Bucketed(Q, K, 0.5, pattern, causal)
    assert torch.allclose(form.weights(0, T, ALL), by_rounds(form, causal), atol=1e-6)
    assert torch.allclose(form.weights(3, 6, slice(1, 3)), form.weights(0, T, ALL)[:, 1:3, 3:6], atol=1e-7)
    assert torch.allclose(form.weights(0, T, ALL).sum(-1), torch.ones(B, H, T))


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_nothing_is_outside_its_mask(pattern):
    real = torch.ones(B, T, dtype=torch.bool)
    real[1, 6:] = False
    for form in (Bucketed(Q, K, 0.5, pattern, True), Bucketed(Q, K, 0.5, pattern, False, real)):
        for b in range(B):
            for h in range(H):
                mask = form.mask().dense(T, T, b=b, h=h)
                assert not form.weights(0, T, ALL)[b, h][~mask].any()
    form = Bucketed(Q, K, 0.5, pattern, True, real)
    assert not form.weights(0, 6, ALL)[1, :, :, 6:].any()


def test_a_round_is_one_by_itself():
    form = Bucketed(Q, K, 0.5, PATTERNS[0], True)
    for number in range(form.rounds):
        alone = Bucketed(Q, K, 0.5, Buckets(BUCKET[:, :, number : number + 1], 2), True)
        assert torch.allclose(form.round(number).weights(0, T, ALL), alone.weights(0, T, ALL), atol=1e-7)


def test_a_bucket_of_three_by_hand():
    """Tokens 0, 2 and 3 in one bucket, token 1 alone: it sees itself; so does token 0, which has no past."""
    form = Bucketed(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2), 1.0, Buckets(torch.tensor([0, 1, 0, 0]), 9), True)
    assert form.weights(0, 4, ALL)[0, 0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0.5, 0, 0.5, 0]]


def test_masks_of_hashes_are_values():
    assert PATTERNS[0] == Buckets(BUCKET.clone(), 2) != Buckets(BUCKET, 3)
    assert Bucketed(Q, K, 0.5, PATTERNS[0], True).mask() == Causal() & PATTERNS[0]
    with pytest.raises(ValueError, match=r"Buckets expects whole numbers .* got torch.float32 \(3,\)"):
        Buckets(torch.zeros(3), 1)
