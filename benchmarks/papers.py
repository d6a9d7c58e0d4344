"""What the papers' own code says of the bundled models: attention rollout, attention flow and relevance maps, for the
tests.

    python benchmarks/papers.py FOLDER [tests/interp/analysis/attribution/papers.json]

FOLDER holds two files as their authors wrote them: ``DETR/modules/ExplanationGenerator.py`` of
hila-chefer/Transformer-MM-Explainability, and ``attention_graph_util.py`` of samiraabnar/attention_flow (its imports of
tensorflow and matplotlib are not used here and may be left out). Their functions are given weights and gradients that
plain torch keeps: attention is computed step by step, and asked for its gradient.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import networkx
import torch
import torch.nn.functional as F

from headwise.models import load

PLACE = Path(__file__).parents[1] / "tests/interp/analysis/attribution/papers.json"
TEXT, WORD, TOKEN = "A wonderful film with a bad ending", "headwise", 5


class Kept:
    """``F.scaled_dot_product_attention`` step by step, all weights kept in the order they were made."""

    def __enter__(self):
        self.weights, self.plain = [], F.scaled_dot_product_attention
        F.scaled_dot_product_attention = self
        return self

    def __exit__(self, *error):
        F.scaled_dot_product_attention = self.plain

    def __call__(self, q, k, v, attn_mask=None, is_causal=False):
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if is_causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        weights = scores.softmax(-1)
        weights = weights if weights.requires_grad else weights.requires_grad_()  # the first has nothing below it
        weights.retain_grad()
        self.weights.append(weights)
        return weights @ v


class Attention:
    """Weights and gradients by the names that the papers' code asks for."""

    def __init__(self, weights):
        self.get_attn, self.get_attn_gradients = (lambda: weights), (lambda: weights.grad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("place", nargs="?", default=PLACE, type=Path)
    options = parser.parse_args()
    sys.path.insert(0, options.folder)
    found = {"vit": vit(), "encoder": encoder(), "encoder-decoder": encoder_decoder()}
    options.place.write_text(json.dumps(found, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(found, ensure_ascii=False)[:400])


def vit() -> dict:
    """Rollout and relevance of the class that the digits' ViT sees in a ramp."""
    import ExplanationGenerator as paper

    module = load("tiny-vit").module
    with Kept() as kept:
        logits = module(torch.linspace(-1, 1, 28 * 28).view(1, 1, 28, 28).sin())
    logits.max().backward()
    relevance = torch.eye(50)
    for weights in kept.weights:
        cam = paper.avg_heads(weights.detach(), weights.grad)
        relevance = relevance + paper.apply_self_attention_rules(relevance, relevance, cam)[0]
    rollout = paper.compute_rollout_attention([weights[0].mean(0).detach() for weights in kept.weights])
    return {
        "class": int(logits.argmax()),
        "attention rollout": rounded(rollout[0, 1:]),
        "Chefer relevance": rounded(relevance[0, 1:]),
    }


def encoder() -> dict:
    """Flow from [CLS] of the last layer to every token of a review."""
    import attention_graph_util as paper

    subject = load("tiny-classifier")
    inputs = subject.encode(TEXT)
    with Kept() as kept:
        subject.module(**inputs.kwargs)
    tokens = inputs.axes["input"].labels
    length, layers = len(tokens), len(kept.weights)
    stacked = torch.stack([weights[0].mean(0).detach() for weights in kept.weights]).double()
    residual = stacked + torch.eye(length)
    residual = (residual / residual.sum(-1, keepdim=True)).numpy()
    matrix, numbers = paper.get_adjmat(residual, tokens)
    graph = networkx.from_numpy_array(matrix, create_using=networkx.DiGraph())
    networkx.set_edge_attributes(graph, {(a, b): matrix[a, b] for a, b in graph.edges}, "capacity")
    below = [name for name, number in numbers.items() if number < length]
    flow = paper.compute_node_flow(graph, numbers, below, [f"L{layers}_0"], length)
    row = flow[layers * length, (layers - 1) * length :][:length]
    return {"text": TEXT, "attention flow": rounded(torch.tensor(row))}


def encoder_decoder() -> dict:
    """Relevance of the source, for one letter at all places of the target together: a row that nothing is read from
    would be 0 / 0 in the papers' code."""
    import ExplanationGenerator as paper

    subject = load("tiny-encoder-decoder")
    inputs = subject.encode((WORD, ""))
    with Kept() as kept:
        logits = subject.module(**inputs.kwargs)
    logits[0, :, TOKEN].sum().backward()
    layers = len(subject.module.encoder.blocks)
    generator = paper.Generator(torch.nn.Identity())
    generator.use_lrp, generator.normalize_self_attention, generator.apply_self_in_rule_10 = False, True, True
    sources, targets = kept.weights[0].shape[-1], kept.weights[layers].shape[-1]
    generator.R_i_i, generator.R_q_q = torch.eye(sources), torch.eye(targets)
    generator.R_q_i = torch.zeros(targets, sources)
    generator.handle_self_attention_image([SimpleNamespace(self_attn=Attention(w)) for w in kept.weights[:layers]])
    for own, cross in zip(kept.weights[layers::2], kept.weights[layers + 1 :: 2], strict=True):
        block = SimpleNamespace(self_attn=Attention(own), multihead_attn=Attention(cross))
        generator.handle_co_attn_self_query(block)
        generator.handle_co_attn_query(block)
    return {
        "pair": [WORD, ""],
        "token": TOKEN,
        "source": [rounded(row) for row in generator.R_q_i],
        "target": [rounded(row) for row in generator.R_q_q],
    }


def rounded(numbers) -> list[float]:
    return [round(float(number), 7) for number in numbers]


if __name__ == "__main__":
    main()
