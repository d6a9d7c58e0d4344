"""One run of a subject under the tap: what it returned, and what the recorder saw."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from headwise.interp.errors import InputError, LoadError
from headwise.interp.run import parts
from headwise.interp.run.failures import as_sentence, in_model
from headwise.interp.run.outputs import Result, named, primary
from headwise.interp.run.tap import Recorder, listen
from headwise.interp.run.tap.changes import Changes
from headwise.interp.run.tap.listening import compiler_is_loaded
from headwise.interp.subject import Inputs, Subject

KEEP = "logits_to_keep"  # Hugging Face's argument: compute the output embedding at the last so many positions only

STACKS = {"encoder-decoder": "decoder", "custom": "self", "vision": "encoder", "audio": "encoder"}  # by family, where
# the module's path does not say it

# modules whose logits are not the output embedding of their last hidden state: scaled, capped, projected
_more_than_head: WeakSet[nn.Module] = WeakSet()


def default_stack(subject: Subject) -> str:
    """What the stack of a call is called whose module's path does not say it."""
    return STACKS.get(subject.family, subject.family)


def run(
    subject: Subject,
    inputs: Inputs,
    *,
    changes: Changes | None = None,
    watch: Iterable[str] = (),
    keep_calls: bool = True,
    operations: bool = True,
    grad: bool = False,
    **more,
) -> tuple[Any, Recorder]:
    """Run the module once, recorded → (what it returned, the recorder). ``more`` are further keyword arguments.

    Raises InputError, one sentence, whatever the module raised.
    """
    watchers = subject.watchers if operations else {}
    recorder = Recorder(subject.module, inputs.batch, frozenset(watch), keep_calls, changes, watchers)
    for observer in recorder.seam.observers if recorder.seam is not None else ():
        observer.began()
    knew_compiler = compiler_is_loaded()
    try:
        alike = _drawing_alike() if subject.watchers else nullcontext()
        with torch.set_grad_enabled(grad), alike, listen(recorder, operations=operations):
            args, kwargs = map(_unused, inputs.args), {k: _unused(v) for k, v in inputs.kwargs.items()}
            return subject.module(*args, **kwargs, **more), recorder
    except (InputError, LoadError):
        raise
    except Exception as error:  # a stranger's model may raise anything
        if not knew_compiler and compiler_is_loaded() and type(error).__module__.startswith("torch._dynamo"):
            # it compiles as it runs, which the tap forbids from the start only where the compiler is loaded: now it is
            return run(subject, inputs, changes=changes, watch=watch, keep_calls=keep_calls,
                       operations=operations, grad=grad, **more)  # fmt: skip
        if not in_model(error):
            raise
        raise as_sentence(error, subject.module, inputs.kwargs, subject.name) from error


@contextmanager
def _drawing_alike() -> Iterator[None]:
    """Attention that hashes by random directions draws the same ones in every run, so that runs can be compared."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        yield


def observe(subject: Subject, inputs: Inputs, **options) -> tuple[Result, dict[str, Tensor], Recorder]:
    """Run once → (what the run is about, small outputs by name, the recorder). ``options`` are those of ``run``.

    The output embedding is computed at the last position only where the module allows that and nothing follows it:
    logits of the others are made from the hidden states when somebody looks.
    """
    module, path = subject.module, parts.output_embedding(subject.module)
    trunk = parts.trunk(module)
    watch = {path} - {None}
    sparing = (
        bool(path and trunk) and module not in _more_than_head and _takes(module, KEEP) and not options.get("grad")
    )
    if sparing and not ({KEEP, "labels"} & set(inputs.kwargs)):
        output, recorder = run(subject, inputs, watch=watch | {trunk}, **options, **{KEEP: 1})
        result = primary(output, inputs.kwargs)
        hidden = _hidden(recorder.kept.get(trunk), recorder.kept.get(path), result)
        if hidden is not None:
            return Result(None, module.get_submodule(path), hidden), named(output, result), recorder
        _more_than_head.add(module)
    output, recorder = run(subject, inputs, watch=watch, **options)
    result = primary(output, inputs.kwargs)
    given, made = recorder.kept.get(path, ((), None))
    if _is_last(made, result):
        return Result(None, module.get_submodule(path), given[0]), named(output, result), recorder
    return Result(result), named(output, result), recorder


def _unused(value: Any) -> Any:
    """What a run would write into, copied: a key/value cache grows, and the same input may be run again."""
    if isinstance(value, Tensor | Mapping | set) or not callable(getattr(value, "update", None)):
        return value
    return copy.deepcopy(value, {id(t): t.clone() for t in _tensors_in(value, set())})  # deepcopy refuses gradients


def _tensors_in(value: Any, visited: set[int]) -> Iterator[Tensor]:
    """Also those that objects hold as attributes."""
    if isinstance(value, Tensor):
        yield value
    elif id(value) not in visited:
        visited.add(id(value))
        inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        for part in (*inside, *getattr(value, "__dict__", {}).values()):
            yield from _tensors_in(part, visited)


def _takes(module: nn.Module, argument: str) -> bool:
    return argument in inspect.signature(module.forward).parameters


def _is_last(made: Any, result: Tensor) -> bool:
    """Did nothing happen after the output embedding, so that what it made are the logits themselves?"""
    return isinstance(made, Tensor) and made.data_ptr() == result.data_ptr() and made.shape == result.shape


def _hidden(trunk: tuple | None, head: tuple | None, result: Tensor) -> Tensor | None:
    """All hidden states (B, T, C), if the output embedding was given the last of them and made the result."""
    if trunk is None or head is None or not _is_last(head[1], result):
        return None
    hidden, given = primary(trunk[1]), head[0][0]
    fits = hidden.ndim == 3 and hidden.shape[::2] == given.shape[::2] and hidden.dtype == given.dtype
    return hidden if fits and torch.equal(hidden[:, -given.shape[1] :], given) else None
