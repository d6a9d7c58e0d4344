"""The choices of the Embeddings page."""

from __future__ import annotations

from headwise.assets import ASSETS
from headwise.pages._shared.choices import Choice, Choices, InputChoices

NO_MODEL = "(no second model)"
EXAMPLE = ASSETS / "examples" / "reviews.tsv"
POOLINGS = {"mean": "Mean of tokens", "cls": "First token"}
PROJECTIONS = {"pca": "PCA", "tsne": "t-SNE"}
COLOURS = {"cluster": "Cluster", "label": "Label", "answer": "Classifier's answer"}


class EmbeddingsChoices(Choices):
    """Which models read the texts, and how what they make of them is grouped and drawn."""

    before = Choice("tiny-encoder")
    after = Choice("tiny-classifier")
    device = InputChoices.device
    present = InputChoices.present
    clusters = Choice(2, between=(2, 8))
    pooling = Choice("mean", among=tuple(POOLINGS))
    projection = Choice("pca", among=tuple(PROJECTIONS))
    embedding_seed = Choice(0, between=(0, 9_999))
    embedding_cut = Choice(False)
    embedding_texts = Choice(EXAMPLE.read_text(encoding="utf-8"), link=False)
    colour = Choice("cluster", among=tuple(COLOURS), link=False)
    embedding_chosen = Choice(None, link=False)  # (its place, the text) whose point was clicked last


state = EmbeddingsChoices()
