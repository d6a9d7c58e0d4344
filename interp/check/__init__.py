"""Does a model keep its mask? ``check`` finds out from outside, by running it.

Read in this order: ``report`` (what comes out), ``target`` (a model as a function), ``bench`` (the base run and the
leak test),
``locate`` (where a leak enters), ``causes`` (from evidence to a sentence), ``probes`` (one idea a file), ``check``,
``lint``.
"""

from headwise.interp.check.check import check
from headwise.interp.check.lint import MaskReport, check_mask
from headwise.interp.check.report import CLASSES, CheckError, Finding, Picture, Report
from headwise.interp.check.state import seeded

__all__ = ["CLASSES", "CheckError", "Finding", "MaskReport", "Picture", "Report", "check", "check_mask", "seeded"]
