"""A language model without attention: what it knows of the text so far is a state of fixed size. The measure from below
of the mechanisms in ``variants``.

Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000, as torch computes it: O(n · H²) time and, to
read on, O(H) memory.

Axis letters: B batch, T positions, C model width, H hidden width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from headwise.models.architectures.blocks import initialise

State = tuple[Tensor, Tensor]  # h and c, (layers, B, H)


@dataclass(frozen=True)
class LSTMConfig:
    vocab_size: int
    context: int  # the longest input, in tokens
    layers: int
    width: int
    hidden: int


class LSTM(nn.Module):
    """input_ids (B, T) → logits (B, T, V): at every position, a score for each possible next token."""

    def __init__(self, config: LSTMConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.embedding_norm = nn.LayerNorm(config.width)
        self.cells = nn.LSTM(config.width, config.hidden, config.layers, batch_first=True)
        self.down = nn.Linear(config.hidden, config.width)
        self.final_norm = nn.LayerNorm(config.width)
        initialise(self, [], depth=1)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.step(input_ids)[0]

    def step(self, input_ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The next tokens of a text (B, n), and the state after those before them → logits (B, n, V), state."""
        x, state = self.cells(self.embedding_norm(self.token_embedding(input_ids)), state)
        return F.linear(self.final_norm(self.down(x)), self.token_embedding.weight), state  # tied
