"""What is said of a place where content flows that the mask forbids, and what follows from it."""

from headwise.interp.check.findings.kinds import LOOK, NEGATE, Kind
from headwise.interp.check.findings.operations import KINDS

FILL = "use scores.masked_fill(~allowed, −inf) before the softmax"

VERDICTS = {
    # -- layout
    "softmax-over-an-axis": Kind(
        "layout",
        "normalises its weights over the queries, so that every row depends on later ones",
        "softmax runs over axis {dim} of scores {shape}: the query axis",
        "use softmax(dim=-1), the key axis",
        "certain",
    ),
    "softmax-over-queries": Kind(
        "layout",
        "normalises over the queries instead of the keys",
        "softmax over the query axis",
        "use softmax(dim=-1)",
    ),
    "transposed": Kind(
        "layout",
        "uses its mask transposed: keys see queries",
        "the mask's query and key axes are swapped",
        "the mask is (queries, keys): allowed[q, k] = k <= q",
        "certain",
    ),
    "batch-on-heads": Kind(
        "layout",
        "gives each head another sample's mask",
        "the mask's batch axis is broadcast to the heads",
        "make it (B, 1, Q, K)",
    ),
    # -- conventions
    "zeros-and-ones-added": Kind(
        "mask-convention",
        "adds a mask of zeros and ones to its scores, which hides nothing",
        "a 0/1 float mask is added, not applied: it raises some scores by 1",
        "pass a bool mask, or 0 and −inf",
        "certain",
    ),
    "multiplied": Kind(
        "mask-convention",
        "multiplies its scores or its mask by a mask, which leaves forbidden scores at 0 instead of −inf",
        "a hidden score becomes 0, and exp(0) = 1",
        FILL,
    ),
    "scores-of-zero": Kind(
        "mask-convention",
        "gives every forbidden key a score of exactly 0",
        "the scores are multiplied by a 0/1 mask",
        FILL,
        "certain",
    ),
    "additive-times-tril": Kind(
        "mask-convention",
        "gives the future a mask value of 0, which lets it through",
        "the additive mask is 0 over the future, as one that was multiplied by tril is",
        "combine masks as bool, or add them; never multiply an additive mask",
        "certain",
    ),
    "inverted": Kind(
        "mask-convention",
        "sees exactly what it should not: its mask is inverted",
        "the mask is read the wrong way round: what it should keep is hidden",
        "negate it with ~: True means block in nn.MultiheadAttention and keep in scaled_dot_product_attention",
        "certain",
    ),
    "window-inverted": Kind(
        "mask-convention",
        "sees only what lies beyond its window",
        "the window test is inverted",
        "keep q − k ≤ left",
        "certain",
    ),
    "masked-after-softmax": Kind(
        "mask-convention",
        "masks its weights after the softmax, whose denominator still counts the hidden keys",
        "weights are multiplied by the mask after normalisation",
        "mask the scores with −inf before the softmax",
        "certain",
    ),
    "weak-sentinel": Kind(
        "dtype",
        "hides keys with a score of {value:g}, which a large score outweighs",
        "the sentinel {value:g} is finite and too close to real scores",
        "use −inf, or torch.finfo(scores.dtype).min",
        "certain",
    ),
    # -- patterns
    "off-by-a-diagonal": Kind(
        "future-leak",
        "sees {ahead} token{s} ahead: its diagonal is off by {ahead}",
        "the mask's diagonal is off by {ahead}",
        "tril(diagonal=0) keeps the query itself and the past; hide triu(diagonal=1), not triu(diagonal={wider})",
        "certain",
    ),
    "window-width": Kind(
        "window",
        "sees back {left} instead of {promised} keys: its window is {by}",
        "the mask keeps {left} keys back, and {promised} were promised",
        "keep q − k <= {promised}: Hugging Face's sliding_window=W counts the query itself, flash-attention's "
        "window_size=(W, 0) sees one key more",
        "certain",
    ),
    "window-dropped": Kind(
        "window",
        "has no window at all",
        "the window is dropped on this path or layer",
        "hand the window mask to this layer",
        "certain",
    ),
    "window-passed": Kind("window", "sees beyond its window", "the window mask is built wrongly for this layer", LOOK),
    "documents-meet": Kind(
        "packed",
        "lets documents see each other",
        "the document mask does not reach this layer, or its ids are wrong",
        "allow a key only where segment_ids[q] == segment_ids[k]",
    ),
    "beyond-the-prefix": Kind(
        "prefix",
        "sees the future beyond the prefix",
        "what lies beyond the prefix is seen both ways",
        "allow k <= q or k < prefix length, of each sample",
    ),
    "no-causal-mask": Kind(
        "future-leak",
        "sees the future",
        "no causal mask reaches this attention",
        "pass is_causal=True or a causal mask to this attention",
        "certain",
    ),
    "holes-in-the-mask": Kind(
        "future-leak",
        "sees the future",
        "the causal mask has holes here, in {heads}",
        "pass is_causal=True or a causal mask to this attention",
    ),
    "hidden-keys-seen": Kind(
        "future-leak", "sees keys that its mask hides", "the mask is not applied as promised here", LOOK
    ),
    "keys-beyond-the-window": Kind(
        "window", "sees keys that its mask hides", "the mask is not applied as promised here", LOOK
    ),
    "windows-meet": Kind(
        "future-leak",
        "lets positions of one window meet that should be apart",
        "its mask does not part what shares a window; with these pairs masked in this attention the leak is gone",
        "make the mask for the grid as it is cut into windows: pad before rolling, mark what was wrapped around",
        "certain",
    ),
    "keys-among-others": Kind(
        "future-leak",
        "lets positions meet that should be apart, among {keys} keys",
        "its mask leaves pairs that the promise keeps apart; with these masked in this attention the leak is gone",
        "build the mask for all {keys} keys: which of them are positions, and where they stand",
        "certain",
    ),
    # -- padding
    "padding-inverted": Kind(
        "mask-convention",
        "sees the padding and hides the real keys: its padding mask is inverted",
        "the padding mask is read the wrong way round",
        NEGATE,
        "certain",
    ),
    "padding-on-queries": Kind(
        "padding",
        "hides padding queries instead of padding keys",
        "the padding mask stands on the query axis",
        "make it (B, 1, 1, K)",
        "certain",
    ),
    "padding-seen": Kind(
        "padding",
        "sees the padding",
        "the padding mask does not reach this attention",
        "pass it on, combined with the causal mask",
    ),
    "padding-read": Kind(
        "outside-attention",
        "reads the padding",
        "{why}",
        "zero padded positions before it, or leave them out of the statistics",
    ),
    # -- outside attention
    "chooses": Kind("routing", "chooses with {operation} over the whole sequence"),
    "chooses:choice": Kind(
        "routing", "chooses with {operation} over the whole sequence", *KINDS["choice"][1:], "certain"
    ),
    "mixes": Kind("outside-attention", "mixes positions that should stay apart"),
    **{
        f"mixes:{kind}": Kind("outside-attention", "mixes positions that should stay apart", cause, fix, "certain")
        for kind, (_, cause, fix) in KINDS.items()
    },
}

CONSEQUENCES = {  # what follows from a verdict, after the colon
    "output": "output {query} depends on inputs it may not see",
    "weights": "its weights on hidden keys are not zero",
    "rows": "{rows} see no key at all",
    "padding": "other content under the padding on the {side} changes real positions",
    "answer": "other content under the padding on the {side} changes the answer",
    "document": "output {query} depends on document {document}, which is not its own",
}

OF = {  # what a drawing of edges shows
    "keys": "keys allowed in {module}",
    "weights": "weights of {module}",
    "real": "weights of {module}, sample {b}, real queries",
}
