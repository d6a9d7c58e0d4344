"""The findings of decoding with a cache."""

from headwise.interp.check.findings.kinds import Kind

DECODED = "Decoding ({plan}) differs from the full forward from position {position} on⟨, first at {module}⟩."

CACHE = {
    "cache-outputs": Kind(
        "cache",
        "Decoding ({plan}) gives {given} outputs for {wanted}.",
        "a step returns outputs for the whole cache",
        "return the new positions only",
        "certain",
    ),
    "cache-raises": Kind(
        "cache", "Decoding raises ({plan}): {error}.", "step fails on a chunk of the sequence", "", "certain"
    ),
    "cache-raises-on-one": Kind(
        "cache",
        "Decoding raises ({plan}): {error}.",
        "the mask does not fit one query against a longer cache",
        "build the mask for (queries, cache + queries)",
        "certain",
    ),
    "cache-differs": Kind(
        "cache",
        DECODED,
        "⟨the difference enters at {module}; ⟩we did not find why ({why})",
        "",
        "certain",
    ),
    "cache-faded": Kind(
        "cache",
        DECODED,
        "what came before a chunk enters its positions with the wrong weight: made {factors} times as large, in their "
        "order, the step agrees",
        "let what came before fade for each position of a chunk, as it does step by step",
        "certain",
    ),
    "cache-slots": Kind(
        "cache",
        DECODED,
        "its attention sees {extra} of {keys} slots that nobody has written",
        "mask the slots behind the last position that was written",
        "certain",
    ),
    "cache-keys-gone": Kind(
        "cache",
        DECODED,
        "its attention has {keys} of {end} keys, and the full run sees some of those that are gone",
        "keep as many keys as the mask lets a query see",
        "certain",
    ),
    "cache-sees-more": Kind(
        "cache",
        DECODED,
        "in the step query {query} sees key {key}, which the full run hides from it",
        "mask by absolute position: query start + i sees keys up to start + i",
        "certain",
    ),
    "cache-sees-less": Kind(
        "cache",
        DECODED,
        "in the step query {query} does not see key {key}, which it sees in the full run",
        "mask by absolute position: query start + i sees keys up to start + i",
        "certain",
    ),
    "cache-bias": Kind(
        "cache",
        DECODED,
        "the bias on the step's scores is not the full run's: it is off by up to {size:.2g}, alike in every sample",
        "make the bias for all keys, those of the cache included, and take the rows of the new queries",
        "certain",
    ),
    "cache-turned": Kind(
        "cache",
        DECODED,
        "the {what} of the step are as long as in the full run and turned otherwise: they stand at other positions",
        "count positions from the length of the cache",
        "certain",
    ),
    "cache-scores": Kind(
        "cache",
        DECODED,
        "the {what} of the step are not those of the full run",
        "",
        "certain",
    ),
    "cache-values": Kind(
        "cache",
        DECODED,
        "the values of the step are not those of the full run",
        "",
        "certain",
    ),
    "cache-left": Kind(
        "cache",
        "Of two sequences decoded one after the other, the second ({what}, {reset}) differs from the full forward from "
        "position {position} on: something of the first is left⟨ in {module}⟩.",
        "⟨what the first sequence left in {kept}: put back, the difference is gone⟩",
        "begin each sequence with what is kept between steps as it was at first",
        "certain",
    ),
    "cache-padded": Kind(
        "cache",
        "With left padding, a chunk decoded from the cache differs from the full forward.",
        "the same steps agree without padding: beside the cache the padding mask, or what is counted from it, is lost",
        "pass the whole attention_mask with every step",
        "certain",
    ),
}
