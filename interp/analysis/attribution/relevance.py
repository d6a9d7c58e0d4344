"""Attention weighed by the gradient of the answer: gradient × attention, and the relevance maps of Chefer et al. 2021,
"Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers".

Letters: S source positions, T target positions, or all of a model's with one sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.analysis.attribution.maps import Map, maps, read_rows, scattered, sequence_of
from headwise.interp.analysis.attribution.model import Found, Job


def gradient_x_attention(job: Job) -> Found:
    """A ⊙ (∂ value / ∂ A)⁺, the mean over layers and heads, summed over the queries of each key (Barkan et al. 2021,
    "Grad-SAM")."""
    scores: dict[str, Tensor] = {}
    found = maps(job)
    for one in found:
        name = sequence_of(job.features, one.call).name
        part = (one.weights * one.gradient.clamp_min(0)).mean(0).sum(0).cpu() / len(found)  # (H, Q, K) → (K,)
        scores[name] = scores.get(name, 0) + part
    return Found(scattered(job.features, scores))


def chefer(job: Job) -> Found:
    """Relevance that is carried up through the layers, R ← R + Ā R with Ā = mean over heads of (∇A ⊙ A)⁺; the row from
    which the answer is read, without what a position says of itself from the start (§3).

    With an encoder and a decoder, by the rules of both and those of the attention between them (eqs. 5–11).
    """
    found = maps(job)
    if "cross" not in job.cap.stacks:
        stack = found[0].call.stack
        relevance = carried([one.positive for one in found])
        rows = read_rows(job, stack).to(relevance)
        own = rows @ (relevance - torch.eye(len(relevance), device=relevance.device))
        return Found(scattered(job.features, {sequence_of(job.features, found[0].call).name: own.cpu()}))
    (of_source, of_target), names = encoder_decoder(found), _names(job, found)
    rows = read_rows(job, "cross").to(of_target)
    own = rows @ (of_target - torch.eye(len(of_target), device=of_target.device))
    return Found(scattered(job.features, {names[0]: (rows @ of_source).cpu(), names[1]: own.cpu()}))


def carried(layers: list[Tensor]) -> Tensor:
    """R (T, T) after all layers, each Ā (T, T): it begins as I, and R ← R + Ā R (eq. 6).

    >>> A = torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    >>> carried([A, A])
    tensor([[1., 0.],
            [1., 1.]])
    """
    relevance = torch.eye(len(layers[0]), device=layers[0].device)
    for weights in layers:
        relevance = relevance + weights @ relevance
    return relevance


def encoder_decoder(found: list[Map]) -> tuple[Tensor, Tensor]:
    """R of the target by the source (T, S), and by itself (T, T), after all layers in the order they ran.

    The encoder: R_ss ← R_ss + Ā R_ss (eq. 6). The decoder's own attention: R_tt ← R_tt + Ā R_tt and R_ts ← R_ts + Ā
    R_ts (eqs. 6, 7). Between them: R_ts ← R_ts + R̂_ttᵀ Ā R̂_ss, R̂ with rows beside the identity brought to 1 (eqs.
    8–10).
    """
    cross = next(one for one in found if one.call.stack == "cross")
    targets, sources = cross.weights.shape[1:]
    source = torch.eye(sources, device=cross.weights.device)
    target = torch.eye(targets, device=cross.weights.device)
    between = cross.weights.new_zeros(targets, sources)
    for one in found:
        weights = one.positive
        if one.call.stack == "cross":
            between = between + normalised(target).mT @ weights @ normalised(source)
        elif one.call.stack.startswith("enc"):
            source = source + weights @ source
        else:
            target, between = target + weights @ target, between + weights @ between
    return between, target


def normalised(relevance: Tensor) -> Tensor:
    """R̂ = I + (R − I) with rows that sum to 1; a row of nothing stays so (eqs. 8, 9)."""
    one = torch.eye(len(relevance), device=relevance.device)
    rest = relevance - one
    total = rest.sum(-1, keepdim=True)
    return one + torch.where(total > 0, rest / total.clamp_min(torch.finfo(total.dtype).tiny), 0)


def _names(job: Job, found: list[Map]) -> tuple[str, str]:
    """What the source and the target are called."""
    cross = next(one.call for one in found if one.call.stack == "cross")
    own = next(one.call for one in found if one.call.stack.startswith("dec"))
    return sequence_of(job.features, cross).name, sequence_of(job.features, own).name
