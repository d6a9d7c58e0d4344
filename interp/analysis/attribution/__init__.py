"""Which parts of an input an answer rests on, by several methods that disagree, each with its own check.

Read in this order: ``sequences`` and ``features`` (what an answer can be attributed to, and the answer as a function of
it), ``model`` (what a method is asked and answers), the methods, one family a file (``gradients``, ``removal``,
``rollout``, ``relevance``, ``lrp``), ``methods`` (all of them by name), then how far to believe them.
"""

from headwise.interp.analysis.attribution.features import Features, features
from headwise.interp.analysis.attribution.methods import METHODS, attribute, explain, why_not
from headwise.interp.analysis.attribution.model import Attribution, Method

__all__ = ["METHODS", "Attribution", "Features", "Method", "attribute", "explain", "features", "why_not"]
