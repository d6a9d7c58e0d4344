"""What a model claims its attention may see, read where the model itself says it.

A claim is read off the flags of its configuration (``is_decoder``, ``use_bidirectional_attention``, ``attn_type`` …),
``is_causal`` of its attention modules, the masks its own code sets out to make, a triangle among its buffers – or it is
what the user said. The masks a run was given can narrow a promise (padding, windows) and never widen it, so an
attention whose mask was forgotten still stands against its claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.promise import MEDIA, NOTHING, UNKNOWN, Promise, Said
from headwise.interp.masks import Bidirectional, Causal, Dense, Mask, Padding, Prefix, Window

# attention by the names of classes, and cross-attention by the paths of modules
ATTENTION_LIKE = re.compile(
    r"att(entio)?n(?!.*(output|norm))|reformer.*hash|mixer2?$|^mamba2?$|t(ime)?_?mix", re.IGNORECASE
)
CROSS_NAME = re.compile(r"cross|encoder_att|encdec|multihead_attn|src_att|enc_att", re.IGNORECASE)
# what a module that attends more than once in a run does each time, by its class
STREAMS = {"XLNetRelativeAttention": ("content", "query"), "TwoStream": ("content", "query")}
SEEN_OR_HEARD = {"pixel_values", "pixel_values_videos", "input_features", "input_values"}
CAUSAL_MAKERS = {
    "create_causal_mask", "create_sliding_window_causal_mask", "create_chunked_causal_mask",
    "create_masks_for_generate", "_update_causal_mask", "_prepare_decoder_attention_mask",
    "_prepare_4d_causal_attention_mask", "_prepare_4d_causal_attention_mask_for_sdpa",
}  # fmt: skip
FREE_MAKERS = {"create_bidirectional_mask", "create_bidirectional_sliding_window_mask"}
# model_type → the argument that tells which tokens see each other, its values for them, whether each run of them is a
# block of its own: the images of Gemma 3 and 4, the prefix of PaliGemma.
SEE_EACH_OTHER = {
    "gemma3": ("token_type_ids", (1,), True),
    "gemma4": ("mm_token_type_ids", (1, 2), True),
    "gemma4_unified": ("mm_token_type_ids", (1, 2), True),
    "paligemma": ("token_type_ids", (0,), False),
    "molmo2": ("mm_token_type_ids", (1,), False),
    "hrm_text": ("token_type_ids", (1,), False),
}
CORNER = 32  # rows of a buffer that are looked at for a triangle


def claim(root: nn.Module, call: AttentionCall, inputs: Mapping[str, Any], said: Said = NOTHING) -> Promise:
    """What one attention of ``root`` should see, before anything narrows it → Promise.

    A mask the user gave comes first, then what the model says of this very module, then the kind the user named.
    ``inputs``: the keyword arguments of the run, which tell the images or the prefix of some models.
    """
    if call.kind == "cross":
        return Promise(Bidirectional(), "it reads another sequence")
    if said.mask is not None:
        return _placed(Promise(said.mask, f"{said.source}: {said.mask!r}"), call)
    user = said.about(call.stack)
    configured = any(hasattr(getattr(m, "config", None), "model_type") for _, m in _chain(root, call.name))
    if user.mask is not None and not configured:  # a module made by hand may carry a flag that nothing obeys
        return _placed(user, call)
    found = _together(root, call, inputs) or read(root, call.name)
    if found.mask is None:
        found = _by_its_buffers(root, call.name, call.queries)
    return _placed(found if found.mask is not None else user, call)


def whole(root: nn.Module) -> tuple[Promise, tuple[Mask, ...]]:
    """What a model promises of its outputs, told without a run → (promise, the mask of each layer, or ()).

    The stack that makes the outputs speaks: a decoder's own, else that of the text, else all there is.
    """
    names = [
        n for n, m in root.named_modules() if n and ATTENTION_LIKE.search(type(m).__name__) and not CROSS_NAME.search(n)
    ]
    decoding = [n for n in names if "decoder" in n.split(".")]
    both = any("encoder" in n.split(".") for n in names)
    names = (decoding if both and decoding else None) or [n for n in names if not MEDIA.search(n)] or names
    said = [p for p in (read(root, name) for name in names or [""]) if p.mask is not None]
    found = next((p for p in said if p.mask == Causal()), said[0] if said else UNKNOWN)
    if found.mask is None:
        buffers = (_by_its_buffers(root, name, None) for name in names)
        found = next((promise for promise in buffers if promise.mask is not None), UNKNOWN)
    return found, _layers(root, names) if found.mask == Causal() else ()


def read(root: nn.Module, path: str) -> Promise:
    """What a model says of the self-attention at ``path``: Causal(), Bidirectional() or unknown."""
    chain = _chain(root, path)
    own = _own(chain)
    config = getattr(own[-1][1], "config", None) if own else None
    if (flagged := _flagged(config) or _blip(chain)) is not None:
        return flagged
    attribute, code = _siblings(root, path, chain, own), _by_its_code(own)
    found = attribute if code is None or (attribute is not None and attribute.mask == code.mask) else code
    if getattr(config, "is_decoder", None) is True and (found is None or found.mask == Causal()):
        return Promise(Causal(), "its configuration: is_decoder")
    return found or _by_its_name(chain, own)


def _chain(root: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    """The module at ``path`` and those around it, innermost first."""
    parts = path.split(".") if path else []
    chain, module = [("", root)], root
    for depth, part in enumerate(parts, 1):
        module = getattr(module, part, None)
        if not isinstance(module, nn.Module):
            break
        chain.append((".".join(parts[:depth]), module))
    return chain[::-1]


def _own(chain: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """The part of a chain that shares the nearest configuration: a tower inside a model has one of its own."""
    config, own = None, []
    for name, module in chain:
        here = getattr(module, "config", None)
        if config is not None and here is not None and here is not config:
            break
        config = config if config is not None else here
        own.append((name, module))
    while own and config is not None and getattr(own[-1][1], "config", None) is None:
        own.pop()
    return own if config is not None else []


def _flagged(config: Any) -> Promise | None:
    """Flags of a configuration that say which way attention looks."""
    says = "its configuration: {}".format
    if getattr(config, "use_bidirectional_attention", None) in (True, "all"):
        return Promise(Bidirectional(), says("use_bidirectional_attention"))
    if (kind := getattr(config, "attn_type", None)) in ("bi", "uni"):
        return Promise(Bidirectional() if kind == "bi" else Causal(), says(f"attn_type is {kind!r}"))
    for name in ("is_causal", "causal"):
        if isinstance(value := getattr(config, name, None), bool):
            return Promise(Causal() if value else Bidirectional(), says(f"{name} is {'on' if value else 'off'}"))
    return None


def _blip(chain: list[tuple[str, nn.Module]]) -> Promise | None:
    """BLIP's text model is told by its caller whether it decodes; its configuration says is_decoder either way."""
    classes = [type(module).__name__ for _, module in chain]
    if "BlipTextModel" not in classes:
        return None
    writes = "BlipTextLMHeadModel" in classes
    return Promise(Causal() if writes else Bidirectional(), f"its class: BlipText{'LMHead' if writes else ''}Model")


def _siblings(root, path: str, chain, own) -> Promise | None:
    """``is_causal`` of the attention at ``path``, or ``causal``: as most of its siblings in the other layers have it,
    so that one layer that lost it does not speak for itself; causal where they are divided."""
    for name, module in chain[: max(2, len(own))]:
        for attribute in ("is_causal", "causal"):
            if not isinstance(vars(module).get(attribute), bool):
                continue
            flags = (vars(other).get(attribute) for other in _alike(root, name))
            causal = _most([flag for flag in flags if isinstance(flag, bool)])
            source = f"{attribute} of {type(module).__name__} is {'on' if causal else 'off'}"
            return Promise(Causal() if causal else Bidirectional(), source)
    return None


def _alike(root: nn.Module, path: str) -> list[nn.Module]:
    """The modules at this place of every layer, this one among them."""
    found = [root]
    for part in path.split(".") if path else ():
        if part.isdigit():
            found = [child for module in found for name, child in module.named_children() if name.isdigit()]
        else:
            found = [child for module in found if (child := module._modules.get(part)) is not None]
    return found


def _most(votes: list[bool]) -> bool:
    return sum(votes) * 2 >= len(votes)


def _by_its_code(own: list[tuple[str, nn.Module]]) -> Promise | None:
    """Which masks the nearest model around an attention sets out to make."""
    for _, module in own:
        called, (causal, free) = type(module).__name__, _makes(type(module))
        if causal and (not free or "Decoder" in called):  # the free one is for what it reads of an encoder
            return Promise(Causal(), f"{called} makes a causal mask")
        if free and not causal:
            return Promise(Bidirectional(), f"{called} makes a bidirectional mask")
        if causal:  # which of the two, its attention says, or is_decoder where its configuration has one
            told = any(isinstance(vars(m).get("is_causal"), bool) for m in module.modules())
            if told:
                return None
            if getattr(getattr(module, "config", None), "is_decoder", None) is False:
                return Promise(Bidirectional(), "its configuration: is_decoder is off")
            return Promise(Causal(), f"{called} makes a causal mask")
    return None


@lru_cache(maxsize=1024)
def _makes(kind: type) -> tuple[bool, bool]:
    """Whether the forward of a class, or a helper of its own that it calls, names makers of causal and of bidirectional
    masks."""
    names, todo, done = set(), ["forward"], set()
    while todo:
        done.add(name := todo.pop())
        function = getattr(kind, name, None)
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        if (code := getattr(function, "__code__", None)) is not None:
            here = set(_names(code))
            names |= here
            todo += [n for n in here - done if "mask" in n and n in vars(kind)]
    return bool(names & CAUSAL_MAKERS), bool(names & FREE_MAKERS)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _by_its_name(chain, own) -> Promise:
    """What an attention's class is called, and what a model of a configuration reads: the last resort."""
    for _, module in chain[:2]:
        if re.search(r"(?<!Non)Causal(?!LM)", type(module).__name__):
            return Promise(Causal(), f"its class: {type(module).__name__}")
    reads = next((m for _, m in own if hasattr(type(m), "main_input_name")), None)
    if getattr(reads, "main_input_name", None) in SEEN_OR_HEARD:
        return Promise(Bidirectional(), f"{type(reads).__name__} reads {reads.main_input_name}")
    for _, module in own:
        if type(module).__name__.endswith("ForMaskedLM"):  # a token is guessed from both of its sides
            return Promise(Bidirectional(), f"its class: {type(module).__name__}")
    return UNKNOWN


def _by_its_buffers(root: nn.Module, path: str, length: int | None) -> Promise:
    """A triangle kept as a buffer: beside the attention, in most layers, of any size; further out only of the run's
    own length, for other towers stand there too."""
    for depth, (name, module) in enumerate(_chain(root, path)):
        for called, buffer in module.named_buffers(recurse=False):
            if depth < 2:
                alike = (m._buffers.get(called) for m in _alike(root, name))
                found = _is_triangle(buffer) or _most([_is_triangle(b) for b in alike if b is not None])
            else:
                found = not MEDIA.search(path) and buffer.shape[-1:] == (length,) and _is_triangle(buffer)
            if found:
                return Promise(Causal(), f"its buffer {called!r} is a causal mask")
    return UNKNOWN


def _is_triangle(buffer: Tensor) -> bool:
    """(…, n, n): true below the diagonal and not above it, or 0 below and −inf above."""
    if buffer.ndim < 2 or buffer.shape[-1] != buffer.shape[-2] or buffer.shape[-1] < 3 or buffer.is_complex():
        return False
    square = buffer.detach().reshape(-1, *buffer.shape[-2:])[0, :CORNER, :CORNER].cpu().float()
    below = torch.ones_like(square).tril().bool()
    past, future = square[below], square[~below]
    kept = bool((past == 1).all() and (future == 0).all())
    added = bool((past == 0).all() and (future < -1000).all())
    hidden = bool((past == 0).all() and (future == 1).all() and buffer.dtype == torch.bool)
    return kept or added or hidden


def _together(root: nn.Module, call: AttentionCall, inputs: Mapping[str, Any]) -> Promise | None:
    """Causal, and tokens that see each other both ways beside it: the image of a vision–language model, a prefix."""
    if MEDIA.search(call.name):
        return None
    configs = [c for _, m in _chain(root, call.name) if (c := getattr(m, "config", None)) is not None]
    for kind in dict.fromkeys(getattr(config, "model_type", None) for config in configs):
        if kind == "git" and isinstance(ids := inputs.get("input_ids"), Tensor) and call.keys > ids.shape[-1]:
            return Promise(Prefix(call.keys - ids.shape[-1]), "its configuration: git, whose image is a prefix")
        argument, values, runs = SEE_EACH_OTHER.get(kind, ("", (), False))
        types = inputs.get(argument)
        if not isinstance(types, Tensor) or types.shape[-1] != call.keys or call.queries != call.keys:
            continue
        flags = {getattr(config, "use_bidirectional_attention", None) for config in configs}
        if runs and (flags & {True, "all"} or ("gemma4" in kind and "vision" not in flags)):
            continue
        block = _blocks(types, values, runs)  # (B, 1, T, T)
        return Promise(Causal() | Dense(block), f"its configuration: {kind}, and {argument}")
    return None


def _blocks(types: Tensor, values: tuple[int, ...], runs: bool) -> Tensor:
    """(B, T) → bool (B, 1, T, T): pairs of tokens of these types, of one run where each run is a block."""
    inside = torch.isin(types, torch.tensor(values, device=types.device))
    starts = inside & ~nn.functional.pad(inside, (1, 0))[:, :-1] if runs else torch.zeros_like(inside)
    number = starts.cumsum(1)
    pair = inside[:, :, None] & inside[:, None, :] & (number[:, :, None] == number[:, None, :])
    return pair[:, None]


def _placed(promise: Promise, call: AttentionCall) -> Promise:
    """A causal claim where keys are more than queries: a cache before them, or columns of the module's own behind
    them (a bias, a sink). What both readings forbid is forbidden. Fewer keys than queries are no positions."""
    if promise.mask != Causal() or call.queries == call.keys:
        return promise
    if call.keys < call.queries:
        return replace(UNKNOWN, source="its keys are no positions")
    return replace(promise, mask=Causal(call.keys - call.queries) | ~Padding((call.queries,)))


def _layers(root: nn.Module, names: list[str]) -> tuple[Mask, ...]:
    """A causal model's mask layer by layer, where its configuration names windows among them."""
    own = [_own(_chain(root, name)) for name in names[:1]]
    config = getattr(own[0][-1][1], "config", None) if own and own[0] else None
    kinds, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
    if not kinds or not window or set(kinds) - {"full_attention", "sliding_attention"}:
        return ()
    if "sliding_attention" not in kinds:
        return ()
    return tuple(Causal() & Window(window - 1, 0) if kind == "sliding_attention" else Causal() for kind in kinds)
