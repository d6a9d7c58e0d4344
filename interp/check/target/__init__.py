"""The model under check as one function: ``target.run(x, mask) → output (B, T, F)``, whatever the module calls its
arguments.

Read in this order: ``layout`` (where samples and positions stand in a tensor), ``streams`` (an input in one order),
``given`` and ``ways`` (inputs of the caller, or told from the layers), ``feeding`` (drawing and changing them),
``masking`` and ``hiding`` (how it is told of padding), ``modes`` (the ways to run it); ``target`` is where the model
runs; ``steps``, ``resetting`` and ``stepping`` (how it is decoded).
"""

from headwise.interp.check.target.modes import BASE, Mode, batch_statistics, other_modes
from headwise.interp.check.target.streams import Batch
from headwise.interp.check.target.target import Target

__all__ = ["BASE", "Batch", "Mode", "Target", "batch_statistics", "other_modes"]
