"""Does a model keep its mask? ``check`` finds out from outside, by running it.

Read in this order: ``report`` (what comes out), ``errors`` (whose fault a crash is), ``target`` (a model as a
function), ``bench`` (the base run and the leak test), ``locate`` (where a leak enters), ``causes`` (from evidence to a
verdict), ``findings`` (the words for it), ``describe``, ``probes`` (one idea a file), ``check``; and ``lint``, for a
mask tensor alone.
"""

from headwise.interp.check.check import check
from headwise.interp.check.errors import CheckError
from headwise.interp.check.lint import MaskReport, check_mask
from headwise.interp.check.report import CLASSES, Edges, Finding, Report
from headwise.interp.check.state import seeded

__all__ = ["CLASSES", "CheckError", "Edges", "Finding", "MaskReport", "Report", "check", "check_mask", "seeded"]
