"""What the parts of a model are, asked in one place: blocks, output embedding, token table.

Today by what Hugging Face's classes offer and by numbers in module paths; a part that cannot be told is None, never a
guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from torch import Tensor, nn


def layer_number(path: str) -> int | None:
    """The first whole number in a module path.

    >>> layer_number("dinov2.encoder.layer.3.attention")
    3
    """
    return next((int(part) for part in path.split(".") if part.isdigit()), None)


def named_parts(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(path, module) as ``named_modules`` gives them, with what it does not list: a Keras layer on the torch backend is
    a module, and keeps its own layers to itself. They are called by their Keras names.

    >>> [name for name, _ in named_parts(nn.Sequential(nn.ReLU()))]
    ['', '0']
    """
    for name, part in module.named_modules(prefix=path):
        yield name, part
        if is_keras(part):
            for layer in part._layers:  # all of them; what Keras lists in public are those of a Model alone
                yield from named_parts(layer, f"{name}.{layer.name}" if name else layer.name)


def modules_below(root: nn.Module, path: str) -> list[nn.Module]:
    """The module at ``path`` and all inside it; none where there is no such path."""
    return [part for name, part in named_parts(root) if path in ("", name) or name.startswith(f"{path}.")]


def is_keras(module: nn.Module) -> bool:
    return any(c.__module__ == "keras.src.layers.layer" for c in type(module).__mro__)


def blocks(paths: Iterable[str]) -> tuple[str, ...]:
    """The numbered modules that hold self-attentions, given the paths of these in the order in which they ran: the
    outermost number that tells each from the others. () when one of them has none.

    >>> blocks(["dinov2.encoder.layer.0.attention.attention", "dinov2.encoder.layer.1.attention.attention"])
    ('dinov2.encoder.layer.0', 'dinov2.encoder.layer.1')
    >>> blocks(["decoder.block.0.layer.0.SelfAttention", "decoder.block.1.layer.0.SelfAttention"])
    ('decoder.block.0', 'decoder.block.1')
    >>> blocks(["stages.0.blocks.0.attn", "stages.0.blocks.1.attn", "stages.1.blocks.0.attn"])
    ('stages.0.blocks.0', 'stages.0.blocks.1', 'stages.1.blocks.0')
    """
    distinct = tuple(dict.fromkeys(paths))
    numbered = [_numbered_prefixes(path) for path in distinct]
    if not all(numbered):
        return ()
    for depth in range(max(map(len, numbered))):
        found = [prefixes[min(depth, len(prefixes) - 1)] for prefixes in numbered]
        if len(set(found)) == len(found):
            return tuple(found)
    return tuple(dict.fromkeys(prefixes[-1] for prefixes in numbered))  # several attentions share a block


def _numbered_prefixes(path: str) -> list[str]:
    """ "a.0.b.1.c" → ["a.0", "a.0.b.1"]."""
    prefixes = accumulate(path.split("."), "{}.{}".format)
    return [prefix for prefix in prefixes if prefix.rpartition(".")[2].isdigit()]


def output_embedding(module: nn.Module) -> str | None:
    """Path of a Hugging Face model's output embedding, the step that makes logits."""
    if not hasattr(module, "get_output_embeddings"):
        return None
    try:
        head = module.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return next((name for name, m in module.named_modules() if m is head), None) if head is not None else None


def lacks_head(module: nn.Module) -> bool:
    """Is this a Hugging Face model that says it has no output embedding? Its hidden states only look like logits."""
    find = getattr(module, "get_output_embeddings", None)
    return find is not None and find() is None


def trunk(module: nn.Module) -> str:
    """Path of what a Hugging Face model has below its head; "", the module itself, where there is no such part."""
    name = getattr(module, "base_model_prefix", "")
    return name if name and isinstance(getattr(module, name, None), nn.Module) else ""


def token_table(module: nn.Module, vocabulary: int) -> Tensor | None:
    """The matrix that token ids look up: as many rows as the vocabulary has tokens, or a few more for alignment."""
    tables = (m.weight.detach() for m in module.modules() if isinstance(m, nn.Embedding))
    return next((table for table in tables if table.shape[0] >= vocabulary), None)


def stream(paths: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Blocks of the last stack: ``paths`` are (stack, module path) of all self-attentions in the order they ran."""
    return blocks(path for stack, path in paths if stack == paths[-1][0]) if paths else ()
