"""What all readers share: keyword arguments pass as they are, a list is a batch or is refused."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs, device_of, dtype_of


class BaseReader:
    """A Reader (see ``headwise.interp.subject``) whose kind says in ``read`` what it makes of one raw input."""

    def __call__(self, raw: Any, *, truncate: bool = False) -> Inputs:
        if isinstance(raw, Inputs):
            return raw
        if isinstance(raw, Mapping):
            return keywords(raw)
        return self.batch(raw, truncate) if isinstance(raw, list) else self.read(raw, truncate)

    def read(self, raw: Any, truncate: bool) -> Inputs:
        raise NotImplementedError

    def batch(self, raws: list, truncate: bool) -> Inputs:
        raise InputError(
            f"Expected one input, got a list of {len(raws)}. Give them one by one; a pair is a tuple: (first, second)."
        )


def keywords(raw: Mapping[str, Any]) -> Inputs:
    """A mapping as the model's keyword arguments: tensors, flags and whatever it takes. Raises InputError when there
    is no tensor among them."""
    if not any(map(_holds_tensor, raw.values())):
        raise InputError(
            "A dict is the model's keyword arguments, and one of them at least is a tensor; got "
            f"{', '.join(f'{k}: {type(v).__name__}' for k, v in raw.items()) or 'nothing'}. Make tensors of them, such "
            'as by return_tensors="pt".'
        )
    return Inputs(dict(raw))


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping | list | tuple):
        return any(map(_holds_tensor, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, Tensor)


def taken(module: nn.Module, made: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that a processor made and the module takes, where it runs and in its precision."""
    accepted, device, dtype = arguments(module), device_of(module), dtype_of(module)
    return {
        k: v.to(device, dtype if v.is_floating_point() else v.dtype)
        for k, v in made.items()
        if isinstance(v, Tensor) and k in accepted
    }


def arguments(module: nn.Module) -> set[str]:
    return set(inspect.signature(module.forward).parameters)
