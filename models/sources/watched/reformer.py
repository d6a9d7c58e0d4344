"""Reformer in Hugging Face and in the package reformer-pytorch: attention by hash, and Hugging Face's local chunks
(Kitaev et al. 2020). Buckets are the module's own, read off its output or off its sort."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.attention.banded import BAND, Bias, Masked
from headwise.interp.attention.bucketed import Bucketed
from headwise.interp.attention.report import weighted
from headwise.interp.attention.watch import Given, Watched
from headwise.interp.masks import Bidirectional, Causal, Mask, SortedChunks, within
from headwise.models.sources.watched.layouts import joined, real_length, split
from headwise.models.variants.reformer import LAST_RESORT, LSH, unit

ITSELF = -5e4  # the score of a token with itself in reformer-pytorch
DECODING = (
    "it decodes with a cache here, where a token meets a piece of its buckets that is no part of the input; capture "
    "the whole text at once to see its attention"
)


@dataclass(frozen=True, eq=False)
class Alike:
    """LSH attention as these libraries compute it, in a text that may have been filled up to whole chunks: of what was
    added nothing is shown."""

    by: LSH
    itself: float  # the score of a token with itself

    def form(self, q: Tensor, k: Tensor) -> Bucketed:
        return self._met(q, k)

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        met, length = self._met(q, k), q.shape[2]
        bands = [weighted(met, v, start, min(start + BAND, length)) for start in range(0, length, BAND)]
        return torch.cat(bands, 2).to(v.dtype)

    def _met(self, q: Tensor, k: Tensor) -> Bucketed:
        real = None if self.by.real is None else self.by.real[:, : q.shape[2]]
        return Bucketed(q, k, q.shape[-1] ** -0.5, self.by.pattern, self.by.causal, real, itself=self.itself)


class HashedChunks:
    """Knows ``LSHSelfAttention`` of Hugging Face."""

    keeps = ()

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        a, out = given.arguments, given.output
        if _decodes(module, a):
            return DECODING
        x, heads = a["hidden_states"], module.num_attention_heads
        q, v = split(module.query_key(x), heads), split(module.value(x), heads)
        real, length = _real(a.get("attention_mask"), x)
        if whole := x.shape[1] <= module.chunk_length:  # then every token meets every other
            bucket = torch.zeros(x.shape[1], dtype=torch.long, device=x.device)
        else:
            bucket = out.buckets
        chunk = x.shape[1] if whole else module.chunk_length
        by = LSH(bucket, chunk, module.is_decoder, not whole, real, module.num_chunks_before, module.num_chunks_after)
        q, v, output = q[:, :, :length], v[:, :, :length], split(out.hidden_states[:, :length], heads)

        def back(z: Tensor) -> tuple:
            return out._replace(hidden_states=torch.cat([joined(z), out.hidden_states[:, length:]], 1))

        return Watched(q, unit(q), v, Alike(by, LAST_RESORT), output, back, kind="self")


class LocalChunks:
    """Knows ``LocalSelfAttention`` of Hugging Face. Rows of padding are taken as seeing nothing: it weighs their keys
    all alike."""

    keeps = ()

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        a, out = given.arguments, given.output
        if _decodes(module, a):
            return DECODING
        x, heads = a["hidden_states"], module.num_attention_heads
        real, length = _real(a.get("attention_mask"), x)
        q, k, v = (split(part(x), heads)[:, :, :length] for part in (module.query, module.key, module.value))
        mask, bias = _chunks(module, x)
        seen = real[:, None, :length, None]
        output = split(out.hidden_states[:, :length], heads)

        def back(z: Tensor) -> tuple:
            kept = torch.where(seen, z, output)
            return out._replace(hidden_states=torch.cat([joined(kept), out.hidden_states[:, length:]], 1))

        by = Masked(q.shape[-1] ** -0.5, within(mask, real[:, :length], queries=True), bias)
        return Watched(q, k, v, by, output.masked_fill(~seen, 0), back, kind="self")


class Shared:
    """Knows ``LSHSelfAttention`` of reformer-pytorch."""

    keeps = ("sort", "gather", "linear")

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        a, inner, kept = given.arguments, module.lsh_attn, given.kept
        if why := _unknown(module, a):
            return why
        length, heads = a["x"].shape[1], module.heads
        if module.use_full_attn or length <= module.full_attn_thres:
            return self._whole(module, given)
        asked = kept["sort"][::2]  # of each part of the heads: buckets · T + place; then the way back
        bucket = torch.cat([one.args[0] for one in asked]) // length
        q, v = (torch.cat([one.args[0] for one in kept["gather"][at :: self._gathers(kept)]]) for at in (1, 2))
        q, v, bucket = (t.unflatten(0, (-1, heads)) for t in (q, v, bucket))
        bucket = bucket.unflatten(-1, (inner.n_hashes, length))
        by = LSH(bucket, inner.bucket_size, inner.causal, True, a.get("input_mask"))
        return self._told(module, given, q, v, by)

    def _whole(self, module: nn.Module, given: Given) -> Watched | str:
        """Texts so short that all tokens meet."""
        if given.arguments.get("input_mask") is not None:
            return "its padding meets all keys alike in a text this short; leave out the padding, or give a longer text"
        x = given.arguments["x"]
        q, v = (
            split(module.toqk(x), module.heads),
            split(module.tov(x).repeat(1, 1, module.v_head_repeats), module.heads),
        )
        bucket = torch.zeros(x.shape[1], dtype=torch.long, device=x.device)
        return self._told(module, given, q, v, LSH(bucket, x.shape[1], module.full_attn.causal))

    @staticmethod
    def _gathers(kept) -> int:
        """Operations of that name for each part of the heads."""
        return len(kept["gather"]) // (len(kept["sort"]) // 2)

    @staticmethod
    def _told(module: nn.Module, given: Given, q: Tensor, v: Tensor, by: LSH) -> Watched:
        output = split(given.kept["linear"][-1].args[0], module.heads)

        def back(z: Tensor) -> Tensor:
            return module.post_attn_dropout(module.to_out(joined(z)))

        return Watched(q, F.normalize(q, dim=-1), v, Alike(by, ITSELF), output, back)


def _decodes(module: nn.Module, a) -> bool:
    past = a.get("past_buckets_states")
    return past is not None and len(past) > module.layer_idx


def _real(mask: Tensor | None, x: Tensor) -> tuple[Tensor, int]:
    """Real tokens (B, T), and up to where there are some."""
    if mask is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), x.shape[1]
    return mask.bool(), real_length(mask.bool())


def _chunks(module: nn.Module, x: Tensor) -> tuple[Mask, Bias | None]:
    """Chunks of the text and those beside them; the first look back at the last, so that few chunks meet twice."""
    if x.shape[1] <= module.chunk_length:
        return (Causal() if module.is_decoder else Bidirectional()), None
    bucket = torch.zeros(x.shape[1], dtype=torch.long, device=x.device)
    chunks = SortedChunks(bucket, module.chunk_length, module.num_chunks_before, module.num_chunks_after)

    def bias(start: int, stop: int, heads: slice) -> Tensor:
        none, place = torch.zeros((), dtype=torch.long, device=x.device), torch.arange(x.shape[1], device=x.device)
        times = chunks.meetings(none, none, place[start:stop, None], place)[None, None]
        return times.clamp(min=1).to(x.dtype).log()

    twice = module.num_chunks_before + module.num_chunks_after >= x.shape[1] // module.chunk_length
    return (Causal() & chunks if module.is_decoder else chunks), bias if twice else None


def _unknown(module: nn.Module, a) -> str | None:
    """Why a ``Shared`` cannot be told, as it is configured and called."""
    if module.n_local_attn_heads:
        return "some of its heads are local windows, others meet by hash, and they are not told together"
    if module.num_mem_kv or a.get("keys") is not None:
        return "it reads keys beside its own text (memory, or a context), which are hashed with it and are no positions"
    if a.get("input_attn_mask") is not None:
        return "it was given a mask of pairs (input_attn_mask) beside its buckets, which is not told"
    inner = module.lsh_attn
    if not (inner._attend_across_buckets and inner._allow_duplicate_attention and inner._rehash_each_round):
        return (
            "it is set to keep to its own bucket, to count each pair once or to hash once for all rounds, which is not "
            "told"
        )
    return None


HASHED, LOCAL, SHARED = HashedChunks(), LocalChunks(), Shared()
