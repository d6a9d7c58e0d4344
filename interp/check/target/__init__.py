"""The model under check as one function: ``target.run(x, mask) → output (B, T, F)``, whatever the module calls its
arguments.

``feeding`` finds inputs that it takes, ``modes`` the ways to run it, ``masking`` how it is told of padding, ``layouts``
where time stands in what it returns; ``target`` is where the model runs, and nowhere else.
"""

from headwise.interp.check.target.modes import BASE, Mode, other_modes
from headwise.interp.check.target.target import Target

__all__ = ["BASE", "Mode", "Target", "other_modes"]
