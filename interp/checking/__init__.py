"""Does a model keep its mask? ``check`` finds out from outside, by running it.

Read in this order: ``report`` (what comes out), ``target`` (a model as a function), ``bench`` (the base run and the
leak test),
``locate`` (where a leak enters), ``causes`` (from evidence to a sentence), ``probes`` (one idea a file), ``check``,
``lint``.
"""

from interp.checking.check import check
from interp.checking.lint import MaskReport, check_mask
from interp.checking.report import CLASSES, CheckError, Finding, Picture, Report
from interp.checking.state import seeded

__all__ = ["CLASSES", "CheckError", "Finding", "MaskReport", "Picture", "Report", "check", "check_mask", "seeded"]
