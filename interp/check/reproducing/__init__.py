"""Evidence to hand on: a finding as a script that needs torch alone, exits 1 with the bug and 0 without it.

Read in this order: ``spelling`` (values as text), ``sources`` (classes and functions with what they use), ``building``
(a living module as an expression), ``scene`` (runs as text), ``contents``, ``states`` and ``padded`` (the
experiments), ``proving`` (which experiment shows a finding, and the script as a whole).
"""

from headwise.interp.check.reproducing.proving import Checked, reproduced

__all__ = ["Checked", "reproduced"]
