"""Which heads are wired to work together: how much of what an earlier head writes the queries, keys or values of a
later one read, by their matrices alone (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
§ "Three Kinds of Composition")."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis.circuits.maps import HeadMaps, Maps, Matrix, maps, transport
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.sweeping import Cancelled

KINDS = {"Q": "q", "K": "k", "V": "v"}
COLUMNS = ("kind", "from stack", "from layer", "from head", "to stack", "to layer", "to head", "score", "raw")
DRAWS = 32  # random matrices, for what matrices of these shapes come to by chance


def compositions(
    cap: Capture,
    *,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """How strongly each head composes with each earlier one, of the weights of a capture's model → a row for each pair
    and kind, the strongest first.

    ``raw`` is ‖W_QK · W_OV‖ / (‖W_QK‖ · ‖W_OV‖) in the Frobenius norm, W_OV that of the earlier head: for kind "K" on
    the side of the keys, for "Q" on that of the queries; for "V" it is ‖W_OV · W_OV‖ likewise. ``score`` is what it is
    more than of random matrices of these shapes. The weights of norms are in the matrices and their scales are not;
    rotary positions are left out. ``attrs`` "missing" says in a sentence each what could not be read.

    Raises InputError where no residual stream could be proven or no head has matrices; Cancelled when told to stop.
    """
    found = maps(cap)
    if not any(one.writes is not None and one.reads for one in found.attentions):
        why = next((reason for one in found.attentions for reason in one.missing.values()), "it has no attention")
        raise InputError(f"No head of {cap.subject.name} composes with another: {why}.")
    lines = []
    for number, later in enumerate(found.attentions):
        if cancel():
            raise Cancelled("The compositions were cancelled.")
        for kind, letter in KINDS.items():
            lines += _into(cap, found, later, kind, letter)
        progress((number + 1) / len(found.attentions))
    table = pd.DataFrame(lines, columns=list(COLUMNS)).sort_values("score", ascending=False, kind="stable")
    table.attrs = {"missing": _missing(found), "draws": DRAWS}
    return table.reset_index(drop=True)


def _into(cap: Capture, found: Maps, later: HeadMaps, kind: str, letter: str) -> list[tuple]:
    """The lines of all earlier heads into one kind of reading of an attention."""
    matrix = later.reads.get(letter)
    if matrix is None or not {"Q": "k" in later.reads, "K": "q" in later.reads, "V": later.writes is not None}[kind]:
        return []
    readers, sizes = _readers(later, kind)
    lines = []
    for earlier in found.attentions:
        if earlier.writes is None or "v" not in earlier.reads or not _before(earlier, matrix):
            continue
        writers = _writers(cap, earlier, matrix)
        raw = _product(readers, writers) / (_size(readers)[:, None] * _size(writers)[None])
        chance = _chance(sizes, readers.shape[1], earlier.writes.shape[1])
        lines += [
            (kind, earlier.stack, earlier.layer, one, later.stack, later.layer, head, value - chance, value)
            for head, row in enumerate(raw.tolist())
            for one, value in enumerate(row)
        ]
    return lines


def _before(earlier: HeadMaps, matrix: Matrix) -> bool:
    """Whether what is read holds what was written."""
    return earlier.stream == matrix.stream and earlier.branch.state < matrix.state


def _readers(later: HeadMaps, kind: str) -> tuple[Tensor, tuple[int, int]]:
    """What a head reads, (H, C, D) such that ‖readersᵀ · writers‖ is the norm of the whole product: the other side of
    the head stands there by its triangular factor alone, which has the same norms."""
    each = range(later.heads)
    if kind == "V":
        read = torch.stack([later.reads["v"].of(head, later.heads) for head in each])
        other = later.writes.mT  # (H, C, D)
    else:
        one, two = ("q", "k") if kind == "Q" else ("k", "q")
        read, other = (torch.stack([later.reads[side].of(head, later.heads) for head in each]) for side in (one, two))
    return read @ _triangle(other).mT, (read.shape[2], other.shape[2])


def _writers(cap: Capture, earlier: HeadMaps, matrix: Matrix) -> Tensor:
    """W_OV of an attention's heads as it arrives at what reads it, (H, D, C), with its side of the values by the
    triangular factor."""
    values = torch.stack([earlier.reads["v"].of(head, earlier.heads) for head in range(earlier.heads)])  # (H, C, D)
    return _triangle(values) @ transport(cap, earlier.stream, earlier.branch, matrix.state, earlier.writes)


def _triangle(matrices: Tensor) -> Tensor:
    """R of the QR factors of tall matrices (H, C, D) → (H, min(C, D), D)."""
    return torch.linalg.qr(matrices, mode="r").R


def _product(readers: Tensor, writers: Tensor) -> Tensor:
    """‖writers · readers‖ of all pairs → (readers, writers)."""
    (count, wide, inner), (others, rows, _) = readers.shape, writers.shape
    made = writers.reshape(-1, wide) @ readers.transpose(0, 1).reshape(wide, -1)
    return made.view(others, rows, count, inner).pow(2).sum((1, 3)).sqrt().T


def _size(matrices: Tensor) -> Tensor:
    return matrices.flatten(1).norm(dim=1).clamp_min(1e-30)


_chances: dict[tuple[int, ...], float] = {}


def _chance(sizes: tuple[int, int], width: int, inner: int) -> float:
    """The mean of the same ratio over random matrices of these shapes, Gaussian factors, drawn by a fixed seed."""
    shape = (*sizes, width, inner)
    if shape not in _chances:
        generator = torch.Generator().manual_seed(0)
        draw = [torch.randn(DRAWS, width, n, generator=generator) for n in (*sizes, inner, inner)]
        readers, writers = draw[0] @ _triangle(draw[1]).mT, _triangle(draw[2]) @ draw[3].mT
        made = (writers @ readers).flatten(1).norm(dim=1)
        _chances[shape] = float((made / (_size(readers) * _size(writers))).mean())
    return _chances[shape]


def _missing(found: Maps) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(
            f"{one.stack} layer {one.layer}: {why}" for one in found.attentions for why in one.missing.values()
        )
    )
