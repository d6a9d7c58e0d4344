"""The findings of the probes: whole sentences, in the order the probes run."""

from headwise.interp.check.findings.cached import CACHE
from headwise.interp.check.findings.kinds import LOOK, LOWEST, NEGATE, Kind

FINDINGS = {
    # -- N: numbers and empty rows
    "empty-rows": Kind(
        "empty-rows",
        "Layer {layer} ({module}): {rows} see no key at all.",
        "the diagonal is masked too, or the mask is aligned to another corner",
        "let every query see itself: tril(diagonal=0)",
    ),
    "empty-rows-across": Kind(
        "empty-rows",
        "Layer {layer} ({module}): {rows} of {queries} see none of the {keys} keys.",
        "a causal mask is aligned bottom-right while there are more queries than keys",
        "align it top-left, or drop it where queries outnumber keys",
    ),
    "not-finite": Kind(
        "empty-rows",
        "The output has NaN or infinite values (samples {samples}), first after {first}.",
        "a row whose keys are all −inf becomes NaN in the softmax, or a value overflows",
        "leave every row one key, or zero such rows after the softmax",
    ),
    "weights-not-finite": Kind(
        "empty-rows",
        "The weight {weight} has NaN or infinite values, and so has the output (samples {samples}).",
        "the weights themselves are not finite",
        "load or train them again: nothing else can be tested with these",
        "certain",
    ),
    # -- R: the same input twice
    "state-kept": Kind(
        "state",
        "The same input gives another output the second time: the module keeps state between calls.",
        "a hidden state, a cache or a counter stays on the module after a call",
        "pass the state in and out, or reset it at the start of forward; every probe here starts from the same state",
        "certain",
    ),
    "state-of-a-shape": Kind(
        "state",
        "The same input gives an output of another shape the second time: {first}, then {again}.",
        "what a call leaves on the module – a cache, a list, a counter – grows into the next one's output",
        "pass the state in and out, or reset it at the start of forward",
        "certain",
    ),
    "state-raises": Kind(
        "state",
        "The same input raises the second time: {error}.",
        "what a call leaves on the module does not fit the next one",
        "pass the state in and out, or reset it at the start of forward",
        "certain",
    ),
    "state-after-reset": Kind(
        "state",
        "After its reset the same input gives another output⟨, first at {module}⟩: something is left of before.",
        "the reset does not reach all that is kept between calls",
        "reset all that is kept between calls",
        "certain",
    ),
    "state-of-a-length": Kind(
        "state",
        "An input of another {what}, run before, changes the output: something built for one {what} is kept for all.",
        "a mask or a table is cached by the first call",
        "rebuild it when the {what}, device or dtype changes",
    ),
    "random-in-eval": Kind(
        "mode",
        "In eval mode the output is random: it follows the random stream, not the input alone.",
        "dropout is left on, such as F.dropout(x) without training=self.training, or noise is drawn in forward",
        "F.dropout(x, p, self.training), or nn.Dropout",
        "certain",
    ),
    # -- B, S: samples of a batch
    "sample-alone-shape": Kind(
        "layout",
        "A sample alone gives another output than among {batch}: {together} and {alone} differ.",
        "an axis is squeezed, broadcast or averaged away when the batch is one",
        "name the axis: squeeze(dim), not squeeze()",
    ),
    "sample-alone": Kind(
        "layout",
        "A sample alone gives another output than in a batch of {batch}.",
        "an axis is squeezed, broadcast or averaged away when the batch is one",
        "name the axis: squeeze(dim), not squeeze()",
    ),
    "samples-in-attention": Kind(
        "layout",
        "Sample {b} changes when only sample {changed} does, first at {first}: samples of a batch see each other.",
        "attention runs over the batch: it got (B, T, C) and expects (T, B, C), so its {batch} × {batch} weights join "
        "samples",
        "set batch_first=True, or transpose the input",
    ),
    "samples-share": Kind(
        "outside-attention",
        "Sample {b} changes when only sample {changed} does, first at {first}: samples of a batch see each other.",
        "a statistic, a scale or a choice is shared by the batch",
        "compute it for each sample, or each position, by itself",
    ),
    "batch-sizes": Kind(
        "layout",
        "Runs for a batch of {taken}⟨ – its {accident} heads⟩, and raises for {broken}: {error}.",
        "a (B, …) tensor is broadcast against heads or positions, and fits only when their numbers agree",
        "unsqueeze the head axis: (B, 1, Q, K)",
    ),
    # -- P, J, W: content
    "holds-in-another-mode": Kind(
        "mode",
        "In {here}, {said}; the mask {other}.",
        "the mask is not applied on the path this mode takes: {why}",
        "build the mask yourself and pass it on every path; a hint such as is_causal=True is no mask",
        "certain",
    ),
    "gradient": Kind(
        "future-leak",
        "The gradient of output {query} reaches input {changed}, which it may not see; "
        "changing that input was not seen to change the output.",
        "a path that only the gradient takes, such as a straight-through estimate",
        "detach it, or mask it as the forward pass is masked",
    ),
    "sees-less": Kind(
        "window",
        "Layer {layer} ({module}) sees less than promised: {found!r} instead of {promised!r}.",
        "{why}",
        LOOK,
    ),
    "in-training-only": Kind(
        "mode",
        "In training only, {said}; in eval the promise holds.",
        "its statistics are taken over the whole batch, over what an output may not see and over other samples; with "
        "frozen statistics the leak is gone",
        "normalise each position by itself (LayerNorm over features), or train with this norm in eval",
        "certain",
    ),
    "mixes-in-a-mode": Kind(
        "mode", "In {here}, {said}; the promise {other}.", "{why}, on the path this mode takes", "", ""
    ),
    "prefix-dropped": Kind(
        "prefix",
        "Layer {layer} ({module}) does not let the prefix see itself: it is plainly causal.",
        "the prefix part of the mask is dropped",
        LOOK,
    ),
    "outputs-see-less": Kind("window", "Outputs see less than promised.", "the mask is narrower than promised", ""),
    "one-way": Kind(
        "mode",
        "Layer {layer} ({module}) is causal, but both directions were promised: no output sees its future.",
        "a decoder's mask is left on",
        "turn is_causal off for the encoder",
    ),
    # -- G, T, E: lengths and modes
    "length-enters": Kind(
        "outside-attention",
        "The first {length} outputs change when {more} more inputs follow, whatever these are⟨, first at {module}⟩.",
        "the length itself enters: a mean over it, a position counted from the end, a bucket or a scale",
        "count from the start",
    ),
    "ones-hide-all": Kind(
        "mask-convention",
        "Layer {layer} ({module}) hides every key when all are real: its padding mask is inverted.",
        "the padding mask is read the wrong way round",
        NEGATE,
        "certain",
    ),
    "modes-differ": Kind(
        "mode",
        "The output in {mode} differs from that in {base}⟨, first at {module}⟩.",
        "{why}",
        "compute the mask once and pass it on every path",
    ),
    "modes-shapes-differ": Kind(
        "mode",
        "The output in {mode} is {here}, in {base} {there}.",
        "{why}",
        "return the same positions and features on every path",
        "certain",
    ),
    # -- B: padding
    "padding-inverted": Kind(
        "mask-convention",
        "Layer {layer} ({module}) sees the padding and hides the real keys: its padding mask is inverted.",
        "the padding mask is read the wrong way round",
        NEGATE,
        "certain",
    ),
    "padding-hides-real": Kind(
        "empty-rows",
        "Layer {layer} ({module}): real queries see no key when padding stands on the {side}, and become NaN.",
        "the padding mask hides real keys too",
        "combine masks as bool",
    ),
    "padding-nan": Kind(
        "empty-rows",
        "With padding on the {side}, real positions become NaN: padding queries see no key, and their NaN spreads.",
        "a row of −inf gives NaN, and 0 · NaN is NaN for whoever attends to it next",
        "let padding queries see themselves, or zero empty rows after the softmax",
    ),
    "padding-drops-positions": Kind(
        "mode",
        "With padding on the {side} the output has {positions} positions, without it {without}.",
        "with padding, positions are dropped from the output",
        "pad the output back; of nn.TransformerEncoder, pass enable_nested_tensor=False",
        "certain",
    ),
    "padding-shapes-differ": Kind(
        "mode",
        "With padding, the output is {here} in {mode} and {there} in {base}.",
        "one of the two paths drops positions",
        "compare shapes, or turn the fused path off",
        "certain",
    ),
    "padding-modes-differ": Kind(
        "mode",
        "With padding, real positions differ between {mode} and {base}.",
        "one path reads the padding mask differently",
        "build one mask and pass it on every path",
        "certain",
    ),
    "padding-dropped-in-a-mode": Kind(
        "mode",
        "In {here}, {said}; the mask {other}.",
        "the padding mask is dropped on the path this mode takes",
        "",  # that of the finding it rewords
        "",
    ),
    "left-positions": Kind(
        "position-ids",
        "A left-padded sample gives another answer than alone: its positions are counted from the "
        "padding⟨, first in {module}⟩.",
        "positions are arange over the row, padding included",
        "position_ids = (attention_mask.cumsum(1) − 1).clamp(min=0)",
    ),
    "left-advice": Kind(
        "position-ids",
        "Padded on the left, a sample gives another answer than alone⟨, first in {module}⟩: its positions are counted "
        "from the start of the row.",
        "",
        "pad on the right, or count positions from the first real token, (attention_mask.cumsum(1) − 1).clamp(min=0); "
        "padding='left' (--padding left) makes this a finding",
    ),
    "left-borders": Kind(
        "position-ids",
        "A left-padded sample gives another answer than alone⟨, first in {module}⟩; {agree}: what it sees is cut from "
        "the start of the row, padding included.",
        "⟨borders that come every {period} positions, as those of chunks do, are counted over the row⟩",
        "count them from each sample's first real token",
        "certain",
    ),
    "answer-looked-up": Kind(
        "padding",
        "With padding on the {side} the answer is read at position {at} of the row, and the last real token stands at "
        "{last}.",
        "{why}",
        "look up the last real token: (torch.arange(T) * attention_mask).argmax(1)",
        "certain",
    ),
    "padding-of-one": Kind(
        "layout",
        "A padded sample alone in its batch {what}.",
        "an axis of the padding mask is squeezed or broadcast when the batch is one",
        "name the axis: squeeze(dim), not squeeze(); a padding mask is (B, 1, 1, T)",
    ),
    "padding-counts": Kind(
        "padding",
        "A padded sample gives another answer than alone⟨, at {whole} positions⟩: how much padding there is changes "
        "it⟨, first at {module}⟩.",
        "the amount of padding enters a statistic, a length or a position",
        "count real positions only",
    ),
    "source-padding": Kind(
        "padding",
        "The decoder changes with the content under the source's padding⟨, seen by {module}⟩.",
        "cross-attention gets no encoder padding mask",
        "pass encoder_attention_mask to the cross-attention",
    ),
    "source-length": Kind(
        "padding",
        "The decoder's answer changes with how much padding its source has.",
        "the amount of source padding enters a statistic or a position",
        "mask the source in every layer",
        "certain",
    ),
    **CACHE,  # C
    # -- K, L, D
    "document-alone": Kind(
        "position-ids",
        "The document at {differs} gives another answer packed than alone, though no other document changes it: its "
        "positions, or its mask, are not its own.",
        "positions run on over the row instead of starting anew in each document",
        "position_ids restart at 0 in each document",
    ),
    "labels-inside": Kind(
        "labels",
        "{why}.",
        "the loss equals cross_entropy(logits[:, :T − {shift}], {argument}[:, {shift}:])",
        "compare logits[:, :-1] with {argument}[:, 1:]",
        "certain",
    ),
    "labels-outside": Kind(
        "labels",
        "{why}.",
        "the loss equals cross_entropy(logits[:, :T − {shift}], {argument}[:, {shift}:])",
        "compare logits with {argument} as they come",
        "certain",
    ),
    "half-raises": Kind(
        "dtype",
        "In {dtype} it raises: {error}.",
        "a mask value is beyond {dtype}, whose largest is {largest:g}",
        LOWEST,
        "certain",
    ),
    "half-not-finite": Kind(
        "dtype",
        "In {dtype} the output is not finite⟨ with {padding}⟩⟨, first after {module}⟩.",
        "two mask values added, or one alone, overflow to −inf, and a row of −inf is NaN",
        "combine masks as bool before making them additive",
    ),
    "half-leak": Kind(
        "dtype",
        "In {dtype} output {query} depends on inputs it may not see.",
        "the mask's value is not low enough in this dtype",
        LOWEST,
    ),
}

WHY = {  # causes that one kind of finding chooses among
    # a mode differs
    "weights-asked": "asking for the attention weights takes another path",
    "ones": "no mask and a mask of ones are not the same: a mask replaces another one, or polarity differs",
    "implementation": "the {implementation} implementation masks or scales differently",
    "branch": "a branch on training or gradient mode",
    # a mask holds in one mode and not in another: the path that mode takes
    "path-fused": "the one that eval without gradient takes",
    "path-weights": "asking for the attention weights",
    "path-ones": "being given a mask of ones",
    "path-implementation": "the {implementation} implementation",
    "path-no-mask": "no attention mask was given",
    "path-no-weights": "attention weights are not asked for",
    "path-training": "a branch on training mode",
    "path-gradient": "a branch on the gradient mode",
    # where one answer of a sequence is read
    "by-count": "the last token is looked up at the number of real tokens − 1, which is right only where the "
    "padding is on the right",
    "by-row": "the last position of the row is taken, padding or not",
    # a layer sees less than promised
    "window-small": "the window counts the query itself, or is one too small",
    "window-by-one": "off by one: Hugging Face's sliding_window=W is W keys with the query, "
    "flash-attention's (W, 0) is W + 1",
    "other-shape": "the mask is built for another shape or count",
    # labels
    "shift-0": "Each output is compared with its own input token: the labels are not shifted",
    "shift-1": "The labels are shifted inside although they come shifted",
    "shift-2": "The labels are shifted twice: each output is compared with the token after next",
    "shift--1": "The labels are shifted the wrong way: each output is compared with the token before",
    "shift-n": "The labels are shifted by {shift}",
}
