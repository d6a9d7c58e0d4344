"""What a head looks for and what it writes, by its two circuits: QK, which decides where it looks, and OV, which
decides what it does with what it finds (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
§ "Splitting Attention Head terms into Circuits")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.analysis.circuits.maps import HeadMaps, Maps, Matrix, maps
from headwise.interp.analysis.targets import answer_position, name_of
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.generate import label
from headwise.interp.run.sites import HeadOutput

THROUGH = ("embedding", "run")
NO_VOCABULARY = "its stream does not start from a table of tokens"
OTHER_STREAM = "the answer is read from another stream than the one it writes into"

Found = list[tuple[int, str, float]]  # number, how it reads, score


@dataclass(frozen=True, eq=False)
class ReadsAndWrites:
    """One head of a capture's model.

    ``through`` "embedding": as if the stream held a token's embedding and nothing else; "run": with what it held in
    this run. Scores of looking are attention scores before the softmax, positions left out. Scores of writing are what
    the head adds to a logit, directly and with the last norm as in this run, when all its weight is on one position;
    above the mean of all tokens. ``no_looks`` and ``no_writes`` say why there are none.
    """

    cap: Capture
    call: AttentionCall
    head: int
    maps: HeadMaps
    model: Maps
    no_looks: str = ""
    no_writes: str = ""

    # -- what a page asks -----------------------------------------------------------------------------------------
    def looks_for(
        self, position: int, count: int = 10, *, among: str = "vocabulary", through: str = "embedding"
    ) -> Found:
        """The keys that the query at a position scores highest: tokens of the vocabulary, or positions of the input
        (``among`` "input")."""
        self._check(self.no_looks, position, self.call.queries)
        scores = self._scores(among, through)[position]
        if among == "vocabulary":
            return _best(scores, count, lambda token: label(self.cap.subject, token))
        return _best(scores, count, lambda key: self.call.key_axis.labels[key])

    def looks_at(self, position: int) -> tuple[int, float]:
        """The key that the query at a position gives most weight in this run, and the weight."""
        row = self.call.weights(self.head, (position, position + 1))[0, 0]
        return int(row.argmax()), float(row.max())

    def writes(self, position: int, count: int = 10, *, least: bool = False, through: str = "embedding") -> Found:
        """The answers that the head writes most for when it looks at a position; most against with ``least``."""
        self._check(self.no_writes, position, self.call.keys)
        scores = self._written[through][position]
        found = _best(-scores if least else scores, count, self._name)
        return [(token, name, -score) for token, name, score in found] if least else found

    def table(self, count: int = 5, *, through: str = "embedding") -> pd.DataFrame:
        """For each position what the head looks for from there, and what it writes for and against when it looks
        there: position, token, what, rank, answer, score."""
        lines = []
        asked = {} if self.no_looks else {"looks for": (self.call.query_axis, self.looks_for)}
        if not self.no_writes:
            asked["writes"] = self.call.key_axis, self.writes
            asked["writes against"] = self.call.key_axis, lambda *given, **how: self.writes(*given, least=True, **how)
        for what, (axis, ask) in asked.items():
            for position, token in enumerate(axis.labels):
                found = ask(position, count, through=through)
                lines += [(position, token, what, rank, name, score) for rank, (_, name, score) in enumerate(found, 1)]
        return pd.DataFrame(lines, columns=["position", "token", "what", "rank", "answer", "score"])

    @cached_property
    def copying(self) -> float | None:
        """Σλ / Σ|λ| of the eigenvalues of the whole OV circuit, from tokens to logits: 1 writes for what it looks at,
        −1 against it (ibid., § "Summarizing OV/QK Matrices"). None where tokens and answers are not the same."""
        table = self.model.embedding
        if self.no_writes or table is None or self.maps.reads["v"].stream != self.cap.anatomy.stream().name:
            return None
        values = self._linear("v", table)  # (V, D)
        logits = self._onto_answer(self.maps.writes[self.head])  # (D, V)
        return _sign_of_eigenvalues(logits @ values) if logits.shape[1] == len(values) else None

    @cached_property
    def matching(self) -> float | None:
        """The same of the QK circuit, from tokens to tokens: 1 looks for the same token again, by embeddings alone.
        None where queries and keys do not come from the same tokens."""
        table = self.model.embedding
        if self.no_looks or table is None or self.call.kind == "cross":
            return None
        return _sign_of_eigenvalues(self._linear("k", table).T @ self._linear("q", table))

    @property
    def note(self) -> str:
        """What must be known of the scores; "" where nothing must."""
        exact = all(matrix.exact for matrix in self.maps.reads.values())
        return "" if exact else "further norms inside the attention are left out, so scores compare within one row only"

    # -- inside ---------------------------------------------------------------------------------------------------
    def _scores(self, among: str, through: str) -> Tensor:
        """(T, V) or (T, K)."""
        queries = self._read("q", self._rows("q", through))
        if among != "vocabulary":
            keys = self._read("k", self._rows("k", through))
        elif self._vocabulary is None:
            raise InputError(f"{self._named} looks for no tokens: {NO_VOCABULARY}. Look among the input.")
        else:
            keys = self._vocabulary
        return queries @ keys.T * (self.call.scale or 1.0)

    @cached_property
    def _vocabulary(self) -> Tensor | None:
        """Keys of all tokens (V, D)."""
        matrix, table = self.maps.reads["k"], self.model.embedding
        if table is None or matrix.stream != self.cap.anatomy.stream().name:
            return None
        return self._read("k", _untouched(self.cap, matrix, table))

    @cached_property
    def _written(self) -> dict[str, Tensor]:
        """(K, answers) for each ``through``."""
        found = {}
        for through in THROUGH:
            values = self._read("v", self._rows("v", through))
            logits = self._onto_answer(values @ self.maps.writes[self.head])
            found[through] = logits - logits.mean(-1, keepdim=True)
        return found

    def _rows(self, letter: str, through: str) -> Tensor:
        """The stream where a letter reads it (T, C)."""
        if through not in THROUGH:
            raise InputError(f"through expects {' or '.join(THROUGH)}; got {through!r}.")
        matrix = self.maps.reads[letter]
        if through == "run":
            return self.cap.stream.states(matrix.stream)[matrix.state][0].float()
        return _untouched(self.cap, matrix, self.cap.stream.embedding(matrix.stream)[0].float())

    def _read(self, letter: str, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return self.maps.reads[letter](rows, self.head, self.maps.heads)

    def _linear(self, letter: str, table: Tensor) -> Tensor:
        """Without what is added whatever comes in."""
        matrix = self.maps.reads[letter]
        rows = _untouched(self.cap, matrix, table)
        return self._read(letter, rows) - matrix.bias[self.head * len(matrix.bias) // self.maps.heads]

    def _onto_answer(self, rows: Tensor) -> Tensor:
        """What rows (N, C) that the attention writes add to the answers directly (N, V), norms as they stood in this
        run where the answer is read."""
        cap, tape = self.cap, self.cap.stream.tape
        place = answer_position(cap)
        stream, passed = cap.anatomy.stream(self.maps.stream), False
        for link in (*stream.links, *cap.stream.uncapped):
            if passed and link.kind == "norm":
                scale = link.norm.scale(tape[link.source].tensor.detach()).flatten()
                scale = scale[place if place is not None and place < len(scale) else slice(None)].mean()
                rows = link.norm.linear(rows, scale)
            elif passed and link.kind == "linear":
                rows = F.linear(rows, cap.anatomy.readout.weight.float())
            passed = passed or link.made[0] == self.maps.branch.after
        return rows * (cap.anatomy.readout.scale or 1.0)

    def _name(self, answer: int) -> str:
        return name_of(self.cap.subject, answer, answer_position(self.cap))

    @property
    def _named(self) -> str:
        return f"Head {self.call.layer}·{self.head}"

    def _check(self, why: str, position: int, length: int) -> None:
        if why:
            raise InputError(f"{self._named}: {why}.")
        if not -length <= position < length:
            raise InputError(f"{self._named} has positions 0 … {length - 1}; there is no {position}.")


def reads_and_writes(cap: Capture, head: HeadOutput | tuple) -> ReadsAndWrites:
    """What a head looks for and writes: ``head`` as (layer, head), (layer, head, stack) or HeadOutput.

        found = reads_and_writes(cap, (1, 3))
        found.looks_for(-1), found.writes(-1)

    Raises InputError where no residual stream could be proven, and for a head that is not there.
    """
    site = head if isinstance(head, HeadOutput) else HeadOutput(*head)
    model = maps(cap)
    try:
        call = cap.find(site.layer, site.stack)
    except IndexError as error:
        raise InputError(str(error)) from error
    if site.head is None or not 0 <= site.head < call.heads:
        raise InputError(f"Layer {site.layer} has heads 0 … {call.heads - 1}; there is no {site.head}.")
    found = model.find(call.layer, call.stack)
    no_looks = next((found.missing[letter] for letter in "qk" if letter in found.missing), "")
    no_writes = next((found.missing[letter] for letter in "vo" if letter in found.missing), "")
    readout = cap.anatomy.readout
    if not no_writes and found.stream != cap.anatomy.stream().name:
        no_writes = OTHER_STREAM
    elif not no_writes and (readout is None or readout.kind != "direct" or readout.weight is None):
        no_writes = readout.why_not if readout is not None and readout.why_not else "no logits are read from its stream"
    return ReadsAndWrites(cap, call, site.head, found, model, no_looks, no_writes)


def _untouched(cap: Capture, matrix: Matrix, rows: Tensor) -> Tensor:
    """Embeddings (N, C) where a matrix reads them, if no part had written before: through the norms on the way."""
    stream = cap.anatomy.stream(matrix.stream)
    stop = stream.spots[matrix.state + 1]
    for link in stream.links if stop != stream.spots[0] else ():
        if link.kind == "norm":
            rows = link.norm(rows)
        if link.made == stop:
            break
    return rows


def _best(scores: Tensor, count: int, name) -> Found:
    found = scores.topk(min(count, len(scores)))
    return [(at, name(at), score) for at, score in zip(found.indices.tolist(), found.values.tolist(), strict=True)]


def _sign_of_eigenvalues(matrix: Tensor) -> float:
    values = torch.linalg.eigvals(matrix.double())
    return float(values.real.sum() / values.abs().sum().clamp_min(1e-30))
