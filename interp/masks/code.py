"""One mask in the conventions of those who take it, each with its own polarity: SDPA keeps what is True,
nn.MultiheadAttention blocks it."""

from __future__ import annotations

from headwise.interp.masks import (
    And,
    Bidirectional,
    Blocks,
    Causal,
    Chunks,
    Columns,
    Global,
    Mask,
    Not,
    Or,
    Order,
    Packed,
    Padding,
    Prefix,
    Segments,
    Strided,
    Window,
    Windows2d,
)

CONVENTIONS = ("SDPA", "MultiheadAttention", "FlexAttention", "Hugging Face")


def formula(mask: Mask) -> str:
    """The mask as a torch expression in the index tensors b, h, q and k, which broadcast.

    >>> formula(Causal() & ~Window(2, 0))
    '(k <= q) & ~((k >= q - 2) & (k <= q))'

    Raises ValueError for masks that are no formula (Dense, RandomBlocks, Drawn, Listed, Marked, PerHead, Shifted,
    Buckets, SortedChunks, Windows2d without a grid): pass those as tensors.
    """
    match mask:
        case And(left, right):
            return f"{_bracketed(left)} & {_bracketed(right)}"
        case Or(left, right):
            return f"{_bracketed(left)} | {_bracketed(right)}"
        case Not(inner):
            return f"~({formula(inner)})"
        case Causal(0):
            return "(k <= q)"
        case Causal(offset):
            return f"(k <= q + {offset})"
        case Window(left, right):
            return f"(k >= q - {left}) & (k <= q{f' + {right}' if right else ''})"
        case Prefix(int(n), 0):
            return f"(k <= q) | (k < {n})"
        case Bidirectional():
            return "(q >= 0) & (k >= 0)"
        case Strided(s):
            return f"((q - k) % {s} == 0)"
        case Global(ids):
            return " | ".join(f"({side} == {i})" for i in ids for side in "qk") or "(q < 0)"
        case Segments(length, before, after):
            start = f"q // {length} * {length}"
            return f"(k >= {start} - {before}) & (k < {start} + {length + after})"
        case Columns(stride, width):
            return f"(k % {stride} >= {stride - width})"
        case Chunks(length, left):
            back = f"(q // {length} - k // {length} >= 0)"
            return back if left is None else f"{back} & (q // {length} - k // {length} <= {left})"
        case Windows2d(height, width, shift, (_, columns)):
            down, right = shift if isinstance(shift, tuple) else (shift, shift)
            rows = " == ".join(f"({i} // {columns} - {down}) // {height}" for i in "qk")
            return f"({rows}) & ({' == '.join(f'({i} % {columns} - {right}) // {width}' for i in 'qk')})"
        case Order(order, own):
            ranks = f"torch.tensor({list(order)}).argsort()"
            return f"({ranks}[k] {'<=' if own else '<'} {ranks}[q])"
        case Blocks(ids):
            return f"(torch.tensor({list(ids)})[q] == torch.tensor({list(ids)})[k])"
        case Packed(ids) if not isinstance(ids[0], tuple):
            return f"(torch.tensor({list(ids)})[q] == torch.tensor({list(ids)})[k])"
        case Padding(lengths, None):
            return f"(k < torch.tensor({list(lengths)})[b])"
    raise ValueError(f"{mask!r} is no formula of positions; pass its tensor, mask.dense(queries, keys).")


def code(mask: Mask, convention: str, length: int = 128) -> str:
    """A few lines of torch that use ``mask`` on sequences of ``length`` tokens. ``convention`` is one of CONVENTIONS.

    Every snippet names its mask ``given``; the property "True or 0 means attend" is translated for whom it is for.
    """
    if convention == "FlexAttention":
        return "\n".join(
            [
                "import torch",
                "from torch.nn.attention.flex_attention import create_block_mask, flex_attention",
                "",
                "def may_attend(b, h, q, k):  # True = may attend",
                f"    return {formula(mask)}",
                "",
                f"given = create_block_mask(may_attend, B=None, H=None, Q_LEN={length}, KV_LEN={length})",
                "# out = flex_attention(query, key, value, block_mask=given)",
            ]
        )
    lines = [
        "import torch",
        "",
        f"q, k = torch.arange({length})[:, None], torch.arange({length})[None, :]",
        "b = h = torch.tensor(0)",
        f"allowed = {formula(mask)}",
    ]
    match convention:
        case "SDPA":
            lines += [
                "given = allowed  # bool: True = may attend",
                "# out = F.scaled_dot_product_attention(query, key, value, attn_mask=given)",
            ]
        case "MultiheadAttention":
            lines += [
                "given = ~allowed  # bool: True = may NOT attend",
                "# out, weights = nn.MultiheadAttention(...)(x, x, x, attn_mask=given)",
            ]
        case "Hugging Face":
            lines += [
                "lowest = torch.finfo(torch.float32).min",
                "given = torch.where(allowed, 0.0, lowest)[None, None]  # added to the scores: (B, 1, Q, K)",
                "# out = model(input_ids, attention_mask=given)",
            ]
        case _:
            raise ValueError(f"convention expects one of {', '.join(CONVENTIONS)}; got {convention!r}.")
    return "\n".join(lines)


def _bracketed(mask: Mask) -> str:
    text = formula(mask)
    return text if isinstance(mask, Causal | Not | Strided | Blocks | Packed | Padding) else f"({text})"
