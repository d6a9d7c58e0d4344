"""The original transformer: an encoder reads the source, a decoder writes the target and looks across at the source.

Vaswani et al. 2017, "Attention Is All You Need", figure 1: post-LN (each sub-layer's sum is normalised), sinusoidal
positions, ReLU, embeddings times √C, no norm after the last block. Three kinds of attention (§3.2.3): encoder self,
decoder self (causal), and cross, whose queries come from the decoder and whose keys and values come from the encoder.

Axis letters: B batch, S source positions, T target positions, C model width, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headwise.models.architectures.blocks import MLP, Attention, initialise, padding_mask, sinusoids


@dataclass(frozen=True)
class EncoderDecoderConfig:
    source_size: int  # tokens a source is written in
    target_size: int  # tokens a target is written in
    context: int  # the longest source or target, in tokens
    layers: int  # of each stack
    heads: int
    width: int
    dropout: float = 0.0


class EncoderBlock(nn.Module):
    def __init__(self, config: EncoderDecoderConfig):
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.attention_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config.width, "relu")
        self.mlp_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, mask=mask)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class DecoderBlock(nn.Module):
    def __init__(self, config: EncoderDecoderConfig):
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.attention_norm = nn.LayerNorm(config.width)
        self.cross_attention = Attention(config.width, config.heads)
        self.cross_attention_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config.width, "relu")
        self.mlp_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, memory_mask: Tensor | None) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, mask=mask, causal=mask is None)))
        x = self.cross_attention_norm(x + self.dropout(self.cross_attention(x, memory, mask=memory_mask)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class Stack(nn.Module):
    """An embedding with positions, and the blocks above it."""

    def __init__(self, size: int, block: type[nn.Module], config: EncoderDecoderConfig):
        super().__init__()
        self.embedding = nn.Embedding(size, config.width)
        self.register_buffer("positions", sinusoids(config.context, config.width), persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.layers))

    def forward(self, ids: Tensor, *given: Tensor | None) -> Tensor:
        """ids (B, T) → (B, T, C); ``given`` goes to every block."""
        length = ids.shape[1]
        if length > len(self.positions):
            raise ValueError(f"{length} tokens exceed the context of {len(self.positions)}; shorten the input")
        x = self.embedding(ids) * self.embedding.embedding_dim**0.5 + self.positions[:length]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, *given)
        return x


class EncoderDecoder(nn.Module):
    """input_ids (B, S), decoder_input_ids (B, T) → logits (B, T, V): at every target position, a score for the next
    one."""

    def __init__(self, config: EncoderDecoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Stack(config.source_size, EncoderBlock, config)
        self.decoder = Stack(config.target_size, DecoderBlock, config)
        self.output = nn.Linear(config.width, config.target_size)
        initialise(self, [], depth=1)
        for stack in (self.encoder, self.decoder):
            nn.init.normal_(stack.embedding.weight, std=config.width**-0.5)  # √C brings it to 1, beside the sinusoids

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """The masks are 1 at real tokens and 0 at padding: (B, S) and (B, T)."""
        memory = self.encoder(input_ids, padding_mask(attention_mask))
        return self.output(self.decode(decoder_input_ids, memory, attention_mask, decoder_attention_mask))

    def decode(
        self,
        decoder_input_ids: Tensor,
        memory: Tensor,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """What leaves the last decoder block (B, T, C), given the encoder's ``memory`` (B, S, C)."""
        mask = padding_mask(decoder_attention_mask)  # (B, 1, 1, T), or None: then plainly causal
        if mask is not None:
            length = decoder_input_ids.shape[1]
            mask = mask & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()  # (B, 1, T, T)
        return self.decoder(decoder_input_ids, memory, mask, padding_mask(attention_mask))

    @torch.no_grad()
    def generate(self, input_ids: Tensor, start: int, end: int, limit: int) -> list[list[int]]:
        """Greedy targets of sources of one length (B, S), without ``start`` and ``end``; at most ``limit`` tokens
        each."""
        memory = self.encoder(input_ids, None)
        ids = torch.full((len(input_ids), 1), start, device=input_ids.device)
        for _ in range(min(limit, self.config.context - 1)):
            best = self.output(self.decode(ids, memory)[:, -1]).argmax(-1, keepdim=True)  # (B, 1)
            ids = torch.cat([ids, best], dim=1)
            if bool((ids == end).any(1).all()):
                break
        rows = ids[:, 1:].tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]
