"""What is said of a place where content flows that the mask forbids, and what follows from it."""

from headwise.interp.check.findings.kinds import LOOK, NEGATE, Kind

FILL = "use scores.masked_fill(~allowed, −inf) before the softmax"
STATISTICS = ("statistics are taken over time", "normalise each position by itself (LayerNorm over features)")
BACKWARDS = ("a bidirectional recurrence reads backwards", "use bidirectional=False")

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
        "the mask's query and key axes are swapped (triu for tril, or .T)",
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
        "an additive mask was multiplied by tril",
        "combine masks as bool, or add them; never multiply an additive mask",
        "certain",
    ),
    "inverted": Kind(
        "mask-convention",
        "sees exactly what it should not: its mask is inverted",
        "True means block in nn.MultiheadAttention and keep in scaled_dot_product_attention",
        "negate the mask with ~",
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
        "tril(diagonal={ahead}) or triu(diagonal={wider}) was used",
        "tril(diagonal=0) keeps the query itself and the past",
        "certain",
    ),
    "window-width": Kind(
        "window",
        "sees back {left} instead of {promised} keys: its window is {by}",
        "Hugging Face's sliding_window=W counts the query itself, "
        "flash-attention's window_size=(W, 0) sees one key more",
        "keep q − k <= {promised}",
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
        "the two-way part of the mask is longer than the prefix",
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
    # -- padding
    "padding-inverted": Kind(
        "mask-convention",
        "sees the padding and hides the real keys: its padding mask is inverted",
        NEGATE,
        "negate it",
        "certain",
    ),
    "padding-on-queries": Kind(
        "padding",
        "hides padding queries instead of padding keys",
        "the padding mask stands on the query axis: unsqueeze(3) for unsqueeze(2)",
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
        "{why}; padding counts among its inputs",
        "zero padded positions before it, or leave them out of the statistics",
    ),
    # -- outside attention
    "chooses": Kind(
        "routing",
        "chooses with {operation} over the whole sequence",
        "{operation} on a tensor {shape} looks at every position to decide about one",
        "choose for each position from its own past, or say that the model is not causal",
    ),
    "mixes": Kind(
        "outside-attention",
        "mixes positions that should stay apart",
        "{operation} mixes positions",
        "take statistics over features, or over the past only",
    ),
    "mixes-somehow": Kind(
        "outside-attention",
        "mixes positions that should stay apart",
        "positions are mixed here, by something other than attention weights",
        "take statistics over features, or over the past only",
    ),
    **{
        f"mixes:{kind}": Kind("outside-attention", "mixes positions that should stay apart", cause, fix)
        for kind, (cause, fix) in {  # a word in the type of the module, the most telling first
            "conv": (
                "a convolution that is padded on both sides reads ahead",
                "pad on the left by (kernel − 1)·dilation only",
            ),
            "batchnorm": STATISTICS,
            "instancenorm": STATISTICS,
            "groupnorm": STATISTICS,
            "layernorm": (
                "the norm runs over the time axis too",
                "normalise over features only: normalized_shape = (C,)",
            ),
            "pool": ("pooling windows reach ahead", "pool over the past only"),
            "lstm": BACKWARDS,
            "gru": BACKWARDS,
            "rnn": BACKWARDS,
            "linear": (
                "the layer multiplies along the time axis",
                "apply it along features, or mask its weight to a triangle",
            ),
            "upsample": ("interpolation reads its neighbours on both sides", "repeat past values instead"),
        }.items()
    },
}

CONSEQUENCES = {  # what follows from a verdict, after the colon
    "output": "output {query} depends on inputs it may not see",
    "weights": "its weights on hidden keys are not zero",
    "rows": "{rows} see no key at all",
    "padding": "other content under the padding on the {side} changes real positions",
    "document": "output {query} depends on document {document}, which is not its own",
}

OF = {  # what a drawing of edges shows
    "keys": "keys allowed in {module}",
    "weights": "weights of {module}",
    "real": "weights of {module}, sample {b}, real queries",
}
