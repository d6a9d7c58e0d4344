"""Which parts of an input an answer rests on, by several methods that disagree, each with its own check.

Read in this order: ``sequences`` and ``features`` (what an answer can be attributed to, and the answer as a function of
it), then the methods, one family a file.
"""

from headwise.interp.analysis.attribution.gradients import Attribution, attribute

__all__ = ["Attribution", "attribute"]
