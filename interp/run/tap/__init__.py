"""Listening at the operations every transformer must pass: SDPA, nn.MultiheadAttention, flex_attention, softmax.

Read in this order: ``recorder`` (what a run has shown), ``listening`` (scoped to one thread), ``mode`` (torch hands us
every operation), then one way of computing attention a file: ``sdpa``, ``mha``, ``flex``, ``byhand``, ``reported``.
"""

from headwise.interp.run.tap.listening import listen
from headwise.interp.run.tap.recorder import Recorder, Unseen

__all__ = ["Recorder", "Unseen", "listen"]
