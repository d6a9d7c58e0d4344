"""An encoder (BERT): every position sees every other; it fills in masked tokens and judges whether two texts follow
each other.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", §3: post-LN blocks, learned positions and
segments, a masked-language-model head tied to the embedding, a next-sentence head on [CLS]. With ``classes`` the same
encoder carries the fine-tuning head of §4.1 instead of those two.

Axis letters: B batch, T positions, C model width, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.models.architectures.blocks import MLP, Attention, initialise, padding_mask


@dataclass(frozen=True)
class EncoderConfig:
    vocab_size: int
    context: int  # the longest input, in tokens
    layers: int
    heads: int
    width: int
    classes: tuple[str, ...] = ()  # names of what it was fine-tuned to tell apart; none: the pre-training heads
    dropout: float = 0.0


class Block(nn.Module):
    """Post-LN: attention, then MLP, each added to what it read and the sum normalised."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.mlp = MLP(config.width, "gelu")
        self.mlp_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, mask=mask)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class Encoder(nn.Module):
    """input_ids (B, T) → {"logits", "last_hidden_state" (B, T, C)} and, without classes, "next_sentence" (B, 2).

    Logits are (B, T, V), a score for each token at each position, or (B, classes) after fine-tuning. Of next_sentence,
    entry 0 says that the second text follows the first, entry 1 that it was drawn at random.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.segment_embedding = nn.Embedding(2, config.width)
        self.embedding_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.pooler = nn.Linear(config.width, config.width)
        if config.classes:
            self.classifier = nn.Linear(config.width, len(config.classes))
        else:
            self.transform = nn.Linear(config.width, config.width)
            self.transform_norm = nn.LayerNorm(config.width, eps=1e-12)
            self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
            self.next_sentence = nn.Linear(config.width, 2)
        initialise(self, [], depth=1)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``token_type_ids`` (B, T) is 0 in the first text and 1 in the second; ``attention_mask`` (B, T) is 0 at
        padding."""
        x = self.hidden(input_ids, token_type_ids, attention_mask)
        if self.config.classes:
            return {"logits": self.classifier(self.dropout(self.pool(x))), "last_hidden_state": x}
        return {"logits": self.vocabulary(x), "next_sentence": self.next_sentence(self.pool(x)), "last_hidden_state": x}

    def hidden(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """What leaves the last block (B, T, C)."""
        length = input_ids.shape[1]
        if length > self.config.context:
            raise ValueError(f"{length} tokens exceed the context of {self.config.context}; shorten the input")
        segments = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        x = self.token_embedding(input_ids) + self.segment_embedding(segments)  # (B, T, C)
        x = x + self.position_embedding(torch.arange(length, device=input_ids.device))
        x = self.dropout(self.embedding_norm(x))
        for block in self.blocks:
            x = block(x, padding_mask(attention_mask))
        return x

    def pool(self, x: Tensor) -> Tensor:
        """What [CLS], the first position, says of the whole input: (B, T, C) → (B, C)."""
        return self.pooler(x[:, 0]).tanh()

    def vocabulary(self, x: Tensor) -> Tensor:
        """Scores of every token where x stands: (…, C) → (…, V), tied to the embedding."""
        return F.linear(self.transform_norm(F.gelu(self.transform(x))), self.token_embedding.weight, self.output_bias)
