"""Embeddings: one vector a text from the last hidden layer, the clusters they form, and how those agree with labels.

All geometry is that of cosine distance: vectors are scaled to length 1 first, so that k-means (whose squared distance
is then 2 − 2 cos), both projections and the silhouette see direction only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.run.capture import capture
from headwise.interp.run.outputs import primary
from headwise.interp.run.parts import stream, trunk
from headwise.interp.run.tap import Recorder, listen
from headwise.interp.subject import Inputs, Subject

POOLINGS = ("mean", "cls")
METHODS = ("pca", "tsne")
MOST_TEXTS = 2_000
BATCH_TOKENS = 2_048  # in one run, at most, unless one text alone has more


# -- texts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """``texts`` and the label given to each, "" where there is none."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def labelled(self) -> bool:
        return any(self.labels)


def parse_texts(source: str) -> Texts:
    """One text a line, with its label behind or before a tab: the side with fewer different entries is the labels.

    Empty lines are skipped, and so are lines at the top that start with "# ". Raises InputError for a line with more
    than one tab or with a label and no text, for no text at all, and for more than 2,000.
    """
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(source.splitlines(), 1):
        if not line.strip() or (not rows and line.startswith("# ")):
            continue
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) > 2:
            raise InputError(f"Line {number} has {len(parts) - 1} tabs. Give a text, or a text and its label with one.")
        rows.append((number, parts))
    if not rows:
        raise InputError("There is no text to look at. Give one text a line.")
    if len(rows) > MOST_TEXTS:
        raise InputError(f"There are {len(rows):,} texts; at most {MOST_TEXTS:,} are compared. Give a sample of them.")
    pairs = [parts for _, parts in rows if len(parts) == 2]
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    before = _size(first) < _size(second)
    texts, labels = [], []
    for number, parts in rows:
        text, label = (parts[0], "") if len(parts) == 1 else reversed(parts) if before else parts
        if not text:
            raise InputError(f"Line {number} has a label and no text. Write the text beside it, or take the line out.")
        texts.append(text)
        labels.append(label)
    return Texts(tuple(texts), tuple(labels))


def _size(column: list[str]) -> tuple[int, int]:
    return len(set(column)), sum(map(len, column))


def read_texts(data: bytes) -> Texts:
    """The same from a file. Raises InputError, also when it is not UTF-8."""
    try:
        return parse_texts(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"Byte {error.start:,} of the file is not UTF-8 text. Save it as plain text in UTF-8, one text a line."
        ) from error


# -- vectors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reading:
    """What a subject made of N texts: ``vectors`` (N, C) float32 on the CPU, and its ``answers``, the class of each, ()
    when it is no classifier."""

    vectors: Tensor
    answers: tuple[str, ...] = ()


def embed(
    subject: Subject,
    texts: Sequence[str],
    pooling: str = "mean",
    progress: Callable[[float], None] = lambda fraction: None,
) -> Tensor:
    """One vector a text from the last hidden layer → (N, C) float32. See ``read``."""
    return read(subject, texts, pooling, progress).vectors


def read(
    subject: Subject,
    texts: Sequence[str],
    pooling: str = "mean",
    progress: Callable[[float], None] = lambda fraction: None,
    truncate: bool = False,
) -> Reading:
    """Run an encoder or a decoder on each text once; keep its last hidden layer, pooled, and a classifier's answers.

    The last hidden layer is what the module, or the body of a Hugging Face model with a head, returns as
    last_hidden_state (after the final norm, where there is one), else what leaves the last block. ``pooling`` "mean"
    is the mean over all positions that are not padding, special tokens included (Reimers & Gurevych 2019,
    Sentence-BERT, §3); "cls" is the first of them (Devlin et al. 2019, §3). Texts share a run only where they have
    equally many tokens, so that no text changes another's vector. ``truncate`` cuts texts that are too long;
    ``progress`` is told the fraction done.

    Raises InputError for other families, for "cls" of a decoder, whose first position sees only itself, for a text
    that the subject cannot take (with its number, from 1), and for vectors with NaN or infinity.
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling expects one of {', '.join(POOLINGS)}; got {pooling!r}.")
    if subject.family not in ("encoder", "decoder", "custom"):
        raise InputError(
            f"{subject.name} is of the family {subject.family}; embeddings of texts need an encoder or a decoder."
        )
    if subject.family == "decoder" and pooling == "cls":
        raise InputError(
            f"{subject.name} is a decoder: its first position sees nothing but itself, so it cannot stand for the "
            "text. Choose the mean."
        )
    if not texts:
        raise InputError("There is no text to embed. Give at least one.")
    vectors: list[Tensor | None] = [None] * len(texts)
    said = [""] * len(texts)
    encoded = [_encode(subject, text, number, truncate) for number, text in enumerate(texts, 1)]
    together = subject.family != "decoder" or not subject.labels  # those look for padding as soon as there are two
    body, block, done = trunk(subject.module), None, 0
    for members, inputs in _batches(encoded, together):
        hidden, logits = _last_hidden(subject, inputs, body, block)  # (B, T, C)
        if hidden is None:
            block = _last_block(subject, inputs)
            hidden, logits = _last_hidden(subject, inputs, body, block)
        pooled = _pool(hidden.float(), inputs.real, pooling).cpu()  # (B, C)
        answers = _classes(subject, logits)
        for row, index in enumerate(members):
            if not bool(torch.isfinite(pooled[row]).all()):
                raise InputError(
                    f"{subject.name} gives NaN or infinity for text {index + 1}. Load it in float32, or leave that "
                    "text out."
                )
            vectors[index] = pooled[row]
            said[index] = answers[row] if answers else ""
        done += len(members)
        progress(done / len(texts))
    return Reading(torch.stack(vectors), tuple(said) if any(said) else ())


def _encode(subject: Subject, text: str, number: int, truncate: bool) -> Inputs:
    try:
        inputs = subject.encode(text, truncate=True) if truncate else subject.encode(text)
    except InputError as error:
        raise InputError(f"Text {number}: {error}") from error
    return inputs if isinstance(inputs, Inputs) else Inputs(dict(inputs))


def _batches(encoded: Sequence[Inputs], together: bool) -> Iterable[tuple[list[int], Inputs]]:
    """Texts whose tensors have the same shapes, joined along the batch, each batch with the places of its texts."""
    groups: dict[tuple, list[int]] = {}
    for index, inputs in enumerate(encoded):
        tensors = [(k, tuple(v.shape)) for k, v in inputs.kwargs.items() if isinstance(v, Tensor) and v.ndim]
        alone = not together or len(tensors) < len(inputs.kwargs) or any(shape[0] != 1 for _, shape in tensors)
        groups.setdefault((index,) if alone else tuple(sorted(tensors)), []).append(index)
    for key, members in groups.items():
        length = max((shape[1] for _, shape in key if len(shape) > 1), default=1) if len(members) > 1 else 1
        size = max(1, BATCH_TOKENS // length)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            if len(part) == 1:
                yield part, encoded[part[0]]
            else:
                names = encoded[part[0]].kwargs
                yield part, Inputs({name: torch.cat([encoded[i].kwargs[name] for i in part]) for name in names})


def _last_block(subject: Subject, inputs: Inputs) -> str:
    """Path of the last numbered block that holds self-attention."""
    blocks = stream([(call.stack, call.name) for call in capture(subject, inputs).calls if call.kind == "self"])
    if not blocks:
        raise InputError(
            f"The last hidden layer of {subject.name} cannot be told: expected an output last_hidden_state, or "
            "numbered blocks with attention. Let the module return that output."
        )
    return blocks[-1]


def _last_hidden(subject: Subject, inputs: Inputs, body: str, block: str | None) -> tuple[Tensor | None, Tensor]:
    """(last hidden layer (B, T, C), what the module is about: logits where it has some). The first is what leaves
    ``block``; without one, what the module or its ``body`` returns as last_hidden_state, None when they do not."""
    watched = body if block is None else block
    recorder = Recorder(subject.module, inputs.batch, frozenset({watched}), keep_calls=False)
    with torch.no_grad(), listen(recorder, operations=False):
        output = subject.module(*inputs.args, **inputs.kwargs)
    _, kept = recorder.kept.get(watched, (None, None))
    if block is None:
        returned = [o.get("last_hidden_state") for o in (output, kept) if isinstance(o, Mapping)]
        hidden = next((h for h in returned if h is not None), None)
    else:
        hidden = primary(kept)
    if hidden is not None and (hidden.ndim != 3 or hidden.shape[0] != inputs.batch):
        raise InputError(
            f"The last hidden layer of {subject.name} should be ({inputs.batch}, positions, width), the batch first; "
            f"it is {tuple(hidden.shape)}."
        )
    return hidden, primary(output)


def _pool(hidden: Tensor, real: Tensor | None, pooling: str) -> Tensor:
    """(B, T, C) → (B, C)."""
    if real is None or real.shape != hidden.shape[:2]:
        real = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    if pooling == "cls":
        first = real.int().argmax(1)  # (B,)
        return hidden[torch.arange(len(hidden), device=hidden.device), first]
    kept = hidden.masked_fill(~real[..., None], 0.0)  # padding may hold NaN, and NaN · 0 is NaN
    return kept.sum(1) / real.sum(1, keepdim=True)


def _classes(subject: Subject, logits: Tensor) -> list[str]:
    names = subject.labels
    if len(names) < 2 or logits.ndim != 2 or logits.shape[1] != len(names):
        return []
    return [names[i] for i in logits.argmax(1).tolist()]


# -- clusters -----------------------------------------------------------------------------------------------------


def clusters(vectors: Tensor, k: int, seed: int = 0) -> np.ndarray:
    """k-means (Lloyd 1982; k-means++ of Arthur & Vassilvitskii 2007, the best of 10 starts) on vectors of length 1 →
    (N,) int64, 0 for the largest cluster. Raises InputError when there are fewer than k different vectors."""
    from sklearn.cluster import KMeans  # here, because scikit-learn takes a second to import

    unit = _unit(vectors)
    different = len(np.unique(unit.round(6), axis=0))
    if not 2 <= k <= different:
        raise InputError(
            f"Expected 2 to {different} clusters for {len(unit)} texts with {different} different vectors; got {k}. "
            "Ask for fewer clusters, or give more texts."
        )
    found = KMeans(k, n_init=10, random_state=seed).fit_predict(unit)
    order = np.argsort(-np.bincount(found, minlength=k), kind="stable")
    return np.argsort(order)[found].astype(np.int64)


def matched(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``found`` (N,) renumbered so that as many texts as possible keep their number in ``reference`` (N,), for k-means
    numbers clusters by chance. An assignment problem (Kuhn 1955)."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import confusion_matrix

    _, numbers = linear_sum_assignment(-confusion_matrix(found, reference))
    return numbers[found].astype(np.int64)


def project(vectors: Tensor, method: str = "pca", seed: int = 0) -> np.ndarray:
    """(N, C) → (N, 2): the two directions of largest variance (Pearson 1901), or t-SNE (van der Maaten & Hinton 2008)
    with perplexity 30, or a third of the other texts where that is less. Distances in t-SNE's picture mean nothing
    beyond who is near whom."""
    unit = _unit(vectors)
    if method == "pca":
        from sklearn.decomposition import PCA

        flat = unit if unit.shape[1] > 1 else np.hstack([unit, np.zeros_like(unit)])
        return PCA(2, svd_solver="full").fit_transform(flat)
    if method != "tsne":
        raise InputError(f"method expects one of {', '.join(METHODS)}; got {method!r}.")
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(unit) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit.astype(np.float32))


def _unit(vectors: Tensor) -> np.ndarray:
    """(N, C) float64 of length 1; a zero vector stays one. Raises InputError where there is nothing to compare."""
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 3:
        raise InputError(f"Expected at least 3 texts to compare, one vector each; got {len(rows)}. Give more texts.")
    if not np.isfinite(rows).all():
        raise InputError("Expected finite vectors; some hold NaN or infinity. Load the model in float32.")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(length > 0, length, 1.0)
    if np.ptp(unit, axis=0).max() < 1e-6:
        raise InputError(
            "All texts have the same vector, so there is nothing to compare. Give texts that differ, or choose "
            "another pooling."
        )
    return unit


# -- against labels -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """Clusters held against labels. What cannot be computed is NaN.

    ``silhouette`` of the clusters and ``label_silhouette`` of the labels (Rousseeuw 1987): the mean over texts of
    (b − a) / max(a, b), a the mean cosine distance to the text's own group and b that to the nearest other one; −1 to
    1, and 0 where groups overlap · ``adjusted_rand`` (Hubert & Arabie 1985): pairs of texts on which clusters and
    labels agree, 1 for the same grouping and 0 as by chance · ``purity`` (Manning et al. 2008, §16.3): the fraction of
    texts whose label is the commonest one of their cluster. The last three are over texts with a label.
    """

    silhouette: float
    label_silhouette: float
    adjusted_rand: float
    purity: float


def contrast(vectors: Tensor, found: np.ndarray, labels: Sequence[str]) -> Contrast:
    """``vectors`` (N, C), ``found`` (N,) clusters, ``labels`` N names, "" for none."""
    from sklearn.metrics import adjusted_rand_score

    unit, found, names = _unit(vectors), np.asarray(found), np.asarray(labels, dtype=object)
    if not len(unit) == len(found) == len(names):
        raise InputError(f"Expected {len(unit)} clusters and labels; got {len(found)} and {len(names)}.")
    given = names != ""
    if not given.any():
        return Contrast(_silhouette(unit, found), np.nan, np.nan, np.nan)
    return Contrast(
        _silhouette(unit, found),
        _silhouette(unit[given], names[given]),
        float(adjusted_rand_score(names[given].astype(str), found[given])),
        float(contingency(found[given], names[given]).max(axis=1).sum() / given.sum()),
    )


def _silhouette(unit: np.ndarray, groups: np.ndarray) -> float:
    from sklearn.metrics import silhouette_score

    if not 2 <= len(set(groups)) < len(unit):  # one group, or each text its own: not defined
        return np.nan
    return float(silhouette_score(unit, groups.astype(str), metric="cosine"))


def contingency(found: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """How many texts of each cluster (rows) have each label (columns); texts without a label are left out."""
    names = np.asarray(labels, dtype=object)
    given = names != ""
    table = pd.crosstab(np.asarray(found)[given], names[given].astype(str))
    return table.reindex(sorted(set(found)), fill_value=0).rename_axis(index=None, columns=None)


def accuracy(subject: Subject, said: Sequence[str], labels: Sequence[str]) -> float:
    """The fraction of labelled texts of which the classifier ``said`` the label; NaN when it has another name for
    every label."""
    pairs = [(answer, label) for answer, label in zip(said, labels, strict=True) if label]
    if not {label for _, label in pairs} & set(subject.labels):
        return np.nan
    return sum(answer == label for answer, label in pairs) / len(pairs)
