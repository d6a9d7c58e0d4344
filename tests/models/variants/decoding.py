"""Ways to run a variant that must change nothing: padded, and step by step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from headwise import capture, wrap


def some_ids(length: int = 17, batch: int = 1, alphabet: int = 13) -> Tensor:
    return torch.randint(alphabet, (batch, length), generator=torch.Generator().manual_seed(1))


def padded(ids: Tensor, side: str, by: int = 6) -> tuple[dict[str, Tensor], slice]:
    """Inputs with padding on a side, and where the real tokens stand in them."""
    pad, order = torch.zeros(len(ids), by, dtype=torch.long), slice(None, None, 1 if side == "left" else -1)
    both = {
        "input_ids": torch.cat([pad, ids][order], 1),
        "attention_mask": torch.cat([pad, torch.ones_like(ids)][order], 1),
    }
    return both, slice(by, None) if side == "left" else slice(ids.shape[1])


def in_chunks(model: nn.Module, ids: Tensor, sizes: Sequence[int]) -> tuple[Tensor, list]:
    """What the model says of all tokens when it is given so many at a time, and the state it kept after each."""
    states, outs = [None], []
    for chunk in ids.split(sizes, 1):
        out, state = model.step(chunk, states[-1])
        outs.append(out)
        states.append(state)
    return torch.cat(outs, 1), states[1:]


def assert_steps_are_the_forward(model: nn.Module, ids: Tensor, sizes: Sequence[int]) -> None:
    assert torch.allclose(in_chunks(model, ids, sizes)[0], model(ids), atol=1e-5)


def assert_padding_changes_nothing(model: nn.Module, side: str) -> None:
    """Not what it says of real tokens, and not what its calls tell."""
    ids = some_ids()
    both, at = padded(ids, side)
    assert torch.allclose(model(**both)[:, at], model(ids), atol=1e-5)
    cap, alone = (capture(wrap(model, kind="decoder"), given) for given in (both, {"input_ids": ids}))
    assert not cap.unseen
    assert len(cap.calls) == len(alone.calls) > 0
    for call, same in zip(cap.calls, alone.calls, strict=True):
        assert torch.allclose(call.weights(1)[:, at, at], same.weights(1), atol=1e-5)
