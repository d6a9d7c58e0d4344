"""What one thread's run has shown so far: where it is, the attention calls, and the modules that gave none."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.claims import ATTENTION_LIKE, CROSS_NAME, STREAMS
from headwise.interp.attention.scores import Factors
from headwise.interp.attention.watch import Watcher
from headwise.interp.run.parts import is_keras, named_parts
from headwise.interp.run.tap.changes import CallChanges, Changes
from headwise.interp.run.tap.channels import over_channels
from headwise.interp.run.tap.places import Visit
from headwise.interp.run.tap.watching import Watch, call_of, watcher_of

CROSS_ARGUMENTS = {"key", "kv", "key_value_states", "encoder_hidden_states", "context", "memory", "cross_states"}
STACK_WORDS = re.compile(r"enc|dec|text|vision|visual|audio|image|speech", re.IGNORECASE)


class Lost(StrEnum):
    """Why a softmax is no attention over positions, in the words of the page."""

    CUT = "its softmax is not over a whole query × key matrix (block-sparse, banded or bucketed)"
    CHANNELS = "its softmax is over channels, not positions"
    MIXED = "its heads are mixed after the softmax, in a way that cannot be followed to the values"
    COMBINED = "its weights are made from more than one softmax"
    UNMET = "its softmax's weights never met values in one product"


# why an attention-like module gave no call
NO_SOFTMAX = "it ran, but no softmax over keys met values (linear, recurrent or fused attention)"
SCRIPTED = "TorchScript runs outside Python; capture the original module"
IDLE = "it did not run for this input"


@dataclass(frozen=True)
class Unseen:
    """An attention-like module that ran, or should have, and gave no call."""

    name: str
    type: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.type}): {self.reason}"


@dataclass
class Softmax:
    """A softmax that may turn out to be attention once its result meets the values."""

    shape: torch.Size
    dim: int
    used: bool = False
    factors: Factors | None = None  # of the scores that went in, where they were a product
    fate: Lost = Lost.UNMET  # what became of it, unless it was used


@dataclass
class Frame:
    """One running module."""

    module: nn.Module
    name: str | None
    visit: Visit
    calls: list[int] = field(default_factory=list)  # indices into Recorder.calls made directly here
    softmaxes: list[Softmax] = field(default_factory=list)
    met: bool = False  # was there a call, here or below?
    watch: Watch | None = None  # where a watcher knows the module


class Recorder:
    """What one thread's run has shown so far. Plain data; read it when the run is over."""

    def __init__(
        self,
        root: nn.Module,
        batch: int = 1,
        watch: frozenset[str] = frozenset(),
        keep_calls: bool = True,
        changes: Changes | None = None,
        watchers: Mapping[str, Watcher] | None = None,
    ):
        self.names = {id(m): name for name, m in named_parts(root)}
        self.root = root
        self.batch = batch
        self.watch = watch  # module names whose input and output are kept
        self.keep_calls = keep_calls
        self.watchers = watchers or {}
        self.watched: Watch | None = None  # of the watched module that is running
        changes = changes or Changes()
        self.changes, self.seam = changes.calls, changes.seam
        self.calls: list[AttentionCall] = []
        self.frames: list[Frame] = []
        self.ran: dict[str, nn.Module] = {}  # attention-like modules that ran
        self.refused: dict[str, str] = {}  # module path → why its softmax is no dense attention
        self.kept: dict[str, tuple[tuple, object]] = {}  # watched name → (inputs, output) of its last run
        self.channels: dict[int, tuple[str, nn.Module]] = {}  # index of a call over channels → where it was made
        self.visits: dict[str, int] = {}  # module path → attention calls made there
        self.entered: Counter = Counter()  # module path → how often it ran
        self.outside = Visit()  # where operations outside all modules are counted

    # -- where ----------------------------------------------------------------------------------------------------
    def enter(self, module: nn.Module) -> None:
        name, visit = self.names.get(id(module)), self.visit
        if name is not None:
            visit = Visit(name, self.entered[name], (*visit.outer, visit))
            self.entered[name] += 1
        frame = Frame(module, name, visit)
        self.frames.append(frame)
        if name is not None and self.watched is None and (watcher := watcher_of(module, self.watchers)) is not None:
            self.watched = frame.watch = Watch(watcher)
        if name is not None and ATTENTION_LIKE.search(type(module).__name__):
            self.ran[name] = module

    def leave(self, module: nn.Module, args: tuple, kwargs: dict, output) -> Any:
        """→ what the module returns instead, or None."""
        while self.frames:  # a module that swallowed a child's exception leaves the child's frame behind: drop it too
            frame = self.frames.pop()
            if frame.watch is not None:
                self.watched = None
            if frame.module is module:
                break
        else:
            return None
        new = self._told(frame, args, kwargs, output) if frame.watch is not None and output is not None else None
        output = output if new is None else new
        for observer in self.seam.observers if self.seam is not None else ():
            observer.left(frame.visit, module, (*args, *kwargs.values()), output)
        if frame.name in self.watch:
            self.kept[frame.name] = (args or tuple(kwargs.values()), output)
        lost = [s for s in frame.softmaxes if not s.used]
        if frame.name is not None and ATTENTION_LIKE.search(type(module).__name__):
            if (why := _refusal(lost, frame.met)) is not None:
                self.refused[frame.name] = str(why)
        elif self.frames:  # nn.Softmax, or a helper module: the product with the values may come in the parent
            self.frames[-1].softmaxes += lost
        if self.frames:
            self.frames[-1].met |= frame.met
        if frame.calls:
            self._judge(frame, args, kwargs)
        return new

    def _told(self, frame: Frame, args: tuple, kwargs: dict, output) -> Any:
        """The call that a watched module was → what it returns instead, where it is changed."""
        here = self.changes.get((frame.name, self.visits.get(frame.name, 0))) if self.changes else None
        if here is None and not self.keep_calls and self.seam is None:
            return None
        with torch._C.DisableTorchFunction():  # what is computed here is no part of the run
            said, form, new = frame.watch.told(frame.module, args, kwargs, output, here)
        if isinstance(said, str):
            self.refuse(frame.name, frame.module, said)
            return None
        self.frames.append(frame)
        self.add(call_of(said, form, frame.name, "cross" if CROSS_NAME.search(frame.name) else "self"), said.at)
        self.frames.pop()
        return None if here is None else new

    def _judge(self, frame: Frame, args: tuple, kwargs: dict) -> None:
        """The calls made directly in a module, now that one knows what it was given."""
        streams = STREAMS.get(type(frame.module).__name__, ())
        if len(streams) == len(frame.calls):
            for index, stream in zip(frame.calls, streams, strict=True):
                self.calls[index] = replace(self.calls[index], stack=stream)
        direct = {id(self.calls[index]): index for index in frame.calls}
        for call in over_channels([self.calls[i] for i in frame.calls], frame.module, [*args, *kwargs.values()]):
            self.channels[direct[id(call)]] = frame.name or self.where, frame.module
        if _attends_elsewhere(frame.module, args, kwargs):
            for index in frame.calls:
                self.calls[index] = replace(self.calls[index], kind="cross")

    @property
    def visit(self) -> Visit:
        """The run of the innermost module that belongs to the root."""
        return self.frames[-1].visit if self.frames else self.outside

    @property
    def where(self) -> str:
        """Path of the innermost running module that belongs to the root."""
        return next((f.name for f in reversed(self.frames) if f.name is not None), "")

    @property
    def kind(self) -> str:
        """What an attention call made here is taken for until its module is left: "self" or "cross"."""
        return "cross" if CROSS_NAME.search(self.where) else "self"

    def changes_here(self) -> CallChanges | None:
        """What is done to the attention call that is made now."""
        if self.watched is not None:
            return None
        return self.changes.get((self.where, self.visits.get(self.where, 0))) if self.changes else None

    def add(self, call: AttentionCall, at: Tensor | None = None) -> None:
        """An attention call was made by the operation that runs now, or by that which made ``at``."""
        if self.watched is not None:  # it is told as a whole when it is done
            return
        occurrence = self.visits.get(call.name, 0)
        self.visits[call.name] = occurrence + 1
        if self.frames:
            self.frames[-1].met = True
        for observer in self.seam.observers if self.seam is not None else ():
            observer.attended(replace(call, occurrence=occurrence), at)
        if self.keep_calls:
            if self.frames:
                self.frames[-1].calls.append(len(self.calls))
            self.calls.append(replace(call, occurrence=occurrence))

    def refuse(self, name: str, module: nn.Module, why: str) -> None:
        """An attention is not shown, for this reason."""
        self.ran[name] = module
        self.refused[name] = why

    # -- once the run is over -------------------------------------------------------------------------------------
    def finished(self, default_stack: str) -> tuple[list[AttentionCall], list[Unseen]]:
        """Numbered calls, and the attention-like modules without one (the outermost of each nest)."""
        calls = [
            c
            for index, c in enumerate(self.calls)
            if index not in self.channels and not any(within(c.name, refused) for refused in self.refused)
        ]
        over = dict(self.channels.values())
        unseen = [Unseen(name, type(module).__name__, str(Lost.CHANNELS)) for name, module in over.items()]
        for name, module in sorted(self.ran.items(), key=lambda item: item[0] == ""):  # the root last: it tells least
            related = [c.name for c in calls] + [u.name for u in unseen]
            if any(within(other, name) or within(name, other) for other in related):
                continue
            inner = next((why for path, why in self.refused.items() if within(path, name)), None)
            unseen.append(Unseen(name, type(module).__name__, inner or NO_SOFTMAX))
        for name, module in self.root.named_modules():
            if isinstance(module, torch.jit.ScriptModule) and not any(within(c.name, name) for c in calls):
                unseen.append(Unseen(name, type(module).__name__, SCRIPTED))
            elif isinstance(module, nn.MultiheadAttention) and name not in self.ran:
                unseen.append(Unseen(name, type(module).__name__, IDLE))
        return _numbered(calls, default_stack), unseen


def same(query: Tensor, key: Tensor) -> bool:
    """One sequence, also when it was computed twice, as in ``attention(norm(x), norm(x), norm(x))``."""
    return query is key or (query.shape == key.shape and torch.equal(query, key))


def within(inner: str, outer: str) -> bool:
    """Is the module path ``inner`` at or below ``outer``?"""
    return inner == outer or outer == "" or inner.startswith(outer + ".")


def _refusal(lost: list[Softmax], met: bool) -> Lost | None:
    """Why an attention module with these lost softmaxes is not shown. One that never met values does not speak against
    a module whose other softmax did: it may weigh a pooling beside the attention."""
    fates = [s.fate for s in lost if len(s.shape) >= 4 and not (met and s.fate is Lost.UNMET)]
    return next((fate for fate in Lost if fate in fates), None)


def _attends_elsewhere(module: nn.Module, args: tuple, kwargs: dict) -> bool:
    """Was the module called with another sequence to take keys from?"""
    try:
        function = module.call if is_keras(module) else module.forward
        given = inspect.signature(function).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return False
    given = {**given, **given.get("kwargs", {})}
    queries = next((v for v in given.values() if isinstance(v, Tensor)), None)
    names = CROSS_ARGUMENTS | ({"value"} if is_keras(module) and given.get("key") is None else set())  # its keys then
    return any(isinstance(given.get(a), Tensor) and not same(queries, given[a]) for a in names)


def _numbered(calls: list[AttentionCall], default_stack: str) -> list[AttentionCall]:
    """Give each call its stack and its layer: the one number in its path, or, where that does not tell calls of a stack
    apart (shared layers, nested numbers), the order in which they ran."""
    stacks: dict[str, list[AttentionCall]] = {}
    for call in calls:
        parts = call.name.split(".")
        first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
        words = [part for part in parts[:first] if STACK_WORDS.match(part)]
        side = ".".join(re.sub(r"_\d+$", "", w).removesuffix("_model") for w in words) or default_stack
        stacks.setdefault("cross" if call.kind == "cross" else call.stack or side, []).append(call)
    numbered: dict[int, AttentionCall] = {}
    for stack, members in stacks.items():
        digits = [[int(p) for p in c.name.split(".") if p.isdigit()] for c in members]
        layers = [d[0] for d in digits if len(d) == 1]
        plain = len(layers) == len(members) == len(set(layers))
        for order, call in enumerate(members):
            numbered[id(call)] = replace(call, stack=stack, layer=layers[order] if plain else order)
    return [numbered[id(call)] for call in calls]
