"""One thread's run is recorded while it lasts; other threads pass through untouched, and nothing stays behind."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from headwise.interp.run.tap.mode import Tap
from headwise.interp.run.tap.recorder import Recorder

_recorder: ContextVar[Recorder | None] = ContextVar("headwise_recorder", default=None)
_lock = threading.Lock()
_listeners = 0
_hooks: list = []


def _before(module, args):
    if (recorder := _recorder.get()) is not None:
        recorder.enter(module)


def _after(module, args, kwargs, output=None):  # when forward raised, torch leaves kwargs out
    if (recorder := _recorder.get()) is not None:
        return recorder.leave(module, args, kwargs or {}, output)
    return None


@contextmanager
def listen(recorder: Recorder, *, operations: bool = True):
    """Record this thread's run of ``recorder.root``. Hooks are torch's global ones, there only while some thread
    listens; other threads pass through them untouched, and the last one out removes them, also after an exception.
    As long as they are there, what torch.compile made runs as it was written: compiled code would hide its
    operations. Without ``operations`` only modules are watched, and torch's fused paths stay as they are."""
    global _listeners
    if _recorder.get() is not None:
        raise RuntimeError("This thread is already capturing a run. Finish that capture before starting another.")
    with _lock:
        if _listeners == 0:
            if compiler_is_loaded():  # else nothing was compiled, and importing the compiler takes a second
                _hooks.append(_Uncompiled())
            if (layer := _keras_layer()) is not None:
                _hooks.append(_KerasCalls(layer))
            _hooks.append(register_module_forward_pre_hook(_before))
            _hooks.append(register_module_forward_hook(_after, with_kwargs=True, always_call=True))
        _listeners += 1
    token = _recorder.set(recorder)
    try:
        with Tap(recorder) if operations else nullcontext():
            yield recorder
    finally:
        _recorder.reset(token)
        with _lock:
            _listeners -= 1
            if _listeners == 0:
                while _hooks:
                    hook = _hooks.pop()
                    hook.remove()
                    _global_forward_hooks_with_kwargs.pop(getattr(hook, "id", None), None)  # remove() forgets it


def recording() -> Recorder | None:
    """What this thread's run is recorded by, while it runs."""
    return _recorder.get()


def compiler_is_loaded() -> bool:
    return "torch._dynamo" in sys.modules


class _Uncompiled:
    """torch.compile's stance "force_eager" until removed. The stance is one for all threads."""

    def __init__(self):
        self.stance = torch.compiler.set_stance("force_eager")

    def remove(self) -> None:
        self.stance.__exit__(None, None, None)


def _keras_layer() -> type | None:
    """Keras's Layer where Keras is loaded and runs on torch: its layers are modules that pass torch's hooks by."""
    layer = getattr(getattr(sys.modules.get("keras"), "layers", None), "Layer", None)
    return layer if isinstance(layer, type) and issubclass(layer, torch.nn.Module) else None


class _KerasCalls:
    """What torch's two hooks do, around the calls of Keras layers, until removed."""

    def __init__(self, layer: type):
        self.layer, self.call = layer, layer.__call__
        own = self.call

        def recorded(this, *args, **kwargs):
            if _recorder.get() is None:
                return own(this, *args, **kwargs)
            output = None
            _before(this, args)
            try:
                output = own(this, *args, **kwargs)
            finally:
                changed = _after(this, args, kwargs, output)
            return output if changed is None else changed

        layer.__call__ = recorded

    def remove(self) -> None:
        self.layer.__call__ = self.call
