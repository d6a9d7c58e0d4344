"""The residual stream of any transformer: found by dataflow, proven by numbers, read on any input.

Read in this order: ``graph`` (the values of a run), ``norms`` and ``back`` (what one value was before it), ``streams``,
``heads`` and ``readout`` (what is found), ``doubts`` and ``proof`` (whether it is believed), ``model`` and ``describe``
(what is kept of it), ``discover`` (all of this, once a module), then ``reading`` and ``parts`` (any other run).
"""

from headwise.interp.run.anatomy.discover import anatomy
from headwise.interp.run.anatomy.model import Anatomy, Branch, Proof, Readout, Rotary, Stream
from headwise.interp.run.anatomy.norms import Norm
from headwise.interp.run.anatomy.parts import Part, Parts
from headwise.interp.run.anatomy.reading import Reading, read

__all__ = [
    "Anatomy",
    "Branch",
    "Norm",
    "Part",
    "Parts",
    "Proof",
    "Reading",
    "Readout",
    "Rotary",
    "Stream",
    "anatomy",
    "read",
]  # fmt: skip
