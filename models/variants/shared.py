"""Reformer's hashing for the queries of any head: its keys are the queries themselves, as Reformer's are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.attention.bucketed import Bucketed
from headwise.models.variants.reformer import LSH, hashed, unit


@dataclass(frozen=True)
class Hashed:
    """LSH attention whose buckets are found when queries come: ``interp.attention.report.Mechanism``. Keys are not
    asked: each is its query, made as long as √D (Kitaev et al. 2020, §2)."""

    buckets: int  # an even number, or 1
    rounds: int
    chunk: int
    published: bool = False
    causal: bool = True
    seed: int = 0
    alone: int = 0  # the one round that is looked at, counted from 1; 0: all

    def __post_init__(self):
        if self.buckets < 1 or (self.buckets > 1 and self.buckets % 2) or self.rounds < 1 or self.chunk < 1:
            raise ValueError(
                "hashing expects an even number of buckets or 1, and rounds and chunk of 1 or more; got "
                f"{self.buckets}, {self.rounds} and {self.chunk}"
            )

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self._made(q).output(q, unit(q), v)

    def form(self, q: Tensor, k: Tensor) -> Bucketed:
        return Bucketed(q, unit(q), q.shape[-1] ** -0.5, self._made(q).pattern, self.causal)

    def exact(self) -> Hashed:
        """The same with one bucket: full attention of queries that are keys."""
        return Hashed(1, 1, 2**30, False, self.causal)

    def _made(self, q: Tensor) -> LSH:
        generator = torch.Generator().manual_seed(self.seed)
        rotations = torch.randn(q.shape[1], q.shape[-1], self.rounds, self.buckets // 2, generator=generator)
        bucket = hashed(q.float(), rotations.to(q.device))
        if self.alone:
            bucket = bucket[..., self.alone - 1 : self.alone, :]
        return LSH(bucket, min(self.chunk, q.shape[2]), self.causal, self.published)
