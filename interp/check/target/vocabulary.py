"""Which ids a module knows: the sizes of its tables, the special tokens that are not drawn."""

from __future__ import annotations

import re
from functools import cached_property

import torch
from torch import Tensor, nn

from headwise.interp.run.parts import is_keras, named_parts
from headwise.interp.subject import Subject

POSITION_NAME = re.compile(r"pos|wpe|segment|token_type|type_emb", re.IGNORECASE)
LIMITS = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len", "block_size")


class Vocabulary:
    def __init__(self, module: nn.Module, subject: Subject | None, pad_id: int | None):
        self.module, self.subject = module, subject
        self.config = getattr(module, "config", None)
        self.hugging = hasattr(module, "get_input_embeddings") and self.config is not None
        pad = getattr(self.config, "pad_token_id", None) if pad_id is None else pad_id
        self.pad_id = pad if isinstance(pad, int) and pad >= 0 else None

    @property
    def size(self) -> int:
        """0 where there is no table of ids."""
        if self.subject is not None and self.subject.vocab_size:
            return self.subject.vocab_size
        if self.hugging:
            text = self.config.get_text_config(decoder=True) if hasattr(self.config, "get_text_config") else self.config
            if getattr(text, "vocab_size", None):
                return text.vocab_size
        return self.tables[0] if self.tables else 0

    def ids(self, size: int | None = None) -> Tensor:
        """Token ids that may be drawn: all but the special ones."""
        size = size or self.size
        special = {self.pad_id} if self.pad_id is not None else set()
        if self.hugging:
            special |= {v for n, v in vars(self.config).items() if n.endswith("token_id") and isinstance(v, int)}
        ids = [i for i in range(size) if i not in special]
        return torch.tensor(ids if len(ids) > 1 else range(size))

    @cached_property
    def tables(self) -> list[int]:
        """Sizes of the embeddings that may be a vocabulary, in the order they were made."""
        return [_rows(m) for n, m in named_parts(self.module) if _rows(m) and not POSITION_NAME.search(n)]

    @property
    def longest(self) -> int:
        """Longest sequence the position table allows."""
        known = [getattr(self.config, n, None) for n in LIMITS]
        known += [_rows(m) - 2 for n, m in named_parts(self.module) if _rows(m) and re.search("pos|wpe", n)]
        known += [self.subject.max_tokens] if self.subject is not None else []
        return max(4, min([n for n in known if isinstance(n, int) and n > 0], default=10**6))

    def of(self, given: Tensor, main: bool = True) -> Tensor:
        """The ids that may stand in place of those that were given: all that the main stream's table knows, or those
        that were given."""
        if not main:
            return torch.unique(given.cpu())
        low, high = int(given.min()), int(given.max())
        return self.ids() if self.size > high else torch.arange(min(low, 0), max(high + 1, 2))


def _rows(module: nn.Module) -> int | None:
    """How many ids a table of embeddings knows, torch's or Keras's; None for any other module."""
    if isinstance(module, nn.Embedding):
        return module.num_embeddings
    tabular = is_keras(module) and type(module).__name__.endswith("Embedding")
    return getattr(module, "input_dim", None) if tabular else None
