"""A subject's modules once more, for what must hook them or must know that no parameter has a gradient."""

from __future__ import annotations

import copy

from torch import nn

from headwise.interp.errors import InputError
from headwise.interp.subject import Subject


def own_modules(subject: Subject) -> nn.Module:
    """Modules like the subject's that share its numbers and nothing else: cheap, and nobody else runs them. Their
    parameters take no gradient. Raises InputError where they cannot be copied."""
    module = subject.module
    known = {}
    for parameter in module.parameters():
        plain = type(parameter) is nn.Parameter
        known[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False) if plain else parameter
    known |= {id(buffer): buffer for buffer in module.buffers()}
    try:
        return copy.deepcopy(module, known)
    except (TypeError, RuntimeError, AttributeError) as error:  # what deepcopy refuses: locks, tensors of a graph
        raise InputError(f"The modules of {subject.name} cannot be copied, which this method needs.") from error
