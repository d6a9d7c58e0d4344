"""``features``: what an answer can be attributed to, and the answer as a function of it.

    found = features(capture(load("tiny-classifier"), "A wonderful film"))
    value = found.forward(target(found.cap))
    without = found.kept(mask, found.baseline("mask"))   # mask (N, U): N inputs, each without some units
    value(*without)                                      # (N,)

Every method of attribution and every measure of its faithfulness is made of these few. Nothing of a shared model is
touched: what a token looks up is replaced for this thread alone, at ``F.embedding``.

Letters: N copies, U units, T positions, C width of the embedding.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from headwise.interp.analysis.attribution.sequences import (
    Lookup,
    Sequence,
    Slot,
    of_picture,
    of_sound,
    of_tokens,
    of_vectors,
)
from headwise.interp.analysis.targets import Target, target
from headwise.interp.attention.axes import Axis, numbered
from headwise.interp.errors import InputError
from headwise.interp.run.acting import Plan
from headwise.interp.run.capture import Capture
from headwise.interp.run.outputs import primary
from headwise.interp.run.running import KEEP, run
from headwise.interp.run.sweeping import POSITIONS, repeated
from headwise.interp.subject import Inputs, Subject

NO_WORDS = ("attention_mask", "token_type_ids", "position_ids", "padding_mask", "segment")  # whole numbers, no tokens
STEP, CLIFF = 1e-4, 0.5  # the answer does more than half of its change on the first ten-thousandth of the way
TARGETS = ("decoder_input", "tgt", "target")  # how arguments that hold a target begin
SOUNDS = ("input_features", "input_values", "audio_values")

_jump: WeakKeyDictionary[Subject, bool] = WeakKeyDictionary()  # whether an embedding of zero is like none near it
_seen: WeakKeyDictionary[Capture, dict[Slot, tuple[Lookup, ...]]] = WeakKeyDictionary()  # so that one run finds them


@dataclass(frozen=True, eq=False)
class Features:
    """What the answer to a capture's input can be attributed to: U units in its ``sequences``, one after another.

    ``embedded`` and everything like it is a tuple of tensors (N, …) that gradients are taken by: the embeddings of
    tokens (N, T, C), pixels (N, 3, H, W), a spectrogram (N, mel, frames).
    """

    cap: Capture
    sequences: tuple[Sequence, ...]
    _ways: dict[str, bool] = field(default_factory=dict, repr=False)  # what was found of how the model runs

    @property
    def axes(self) -> tuple[tuple[str, Axis], ...]:
        """(name of a sequence, its units), such as "input", or "source" and "target"."""
        return tuple((one.name, one.axis) for one in self.sequences)

    @property
    def count(self) -> int:
        """U."""
        return sum(map(len, self.sequences))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for one in self.sequences for label in one.axis.labels)

    @cached_property
    def fixed(self) -> Tensor:
        """Bool (U,): units that are never removed, such as [CLS] and padding."""
        return torch.cat([one.fixed for one in self.sequences])

    @cached_property
    def embedded(self) -> tuple[Tensor, ...]:
        """The input as it is, (1, …) each."""
        return tuple(tensor for one in self.sequences for tensor in one.tensors)

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of what can stand in for a unit, the usual one first: zero for tokens, unless the model jumps there."""
        return tuple(dict.fromkeys(kind for one in self.sequences for kind in one.makers))

    def baseline(self, kind: str | None = None) -> tuple[Tensor, ...]:
        """The input without anything to tell, like ``embedded``; what is ``fixed`` stays in it. A sequence that has no
        baseline of this name has its usual one. Raises InputError for a name that none has."""
        if kind is not None and kind not in self.baselines:
            raise InputError(f"The baselines here are {', '.join(self.baselines)}; got {kind!r}.")
        return tuple(tensor for one in self.sequences for tensor in one.baseline(kind))

    def gathered(self, *tensors: Tensor) -> Tensor:
        """The sum of numbers like ``embedded`` (1, …) over each unit → (U,)."""
        return torch.cat([one.gathered(part)[0] for one, part in self._each(tensors)])

    def kept(self, mask: Tensor, baseline: tuple[Tensor, ...] | str | None = None) -> tuple[Tensor, ...]:
        """Inputs (N, …) in which the units of a bool ``mask`` (N, U) are as they are, and the others as in the
        ``baseline``; what is ``fixed`` stays."""
        given = baseline if isinstance(baseline, tuple) else self.baseline(baseline)
        masks = mask.split([len(one) for one in self.sequences], -1)
        pairs = zip(self._each(given), masks, strict=True)
        return tuple(tensor for (one, part), own in pairs for tensor in one.kept(own, part))

    def parted(self, scores: Tensor) -> tuple[Tensor, ...]:
        """Scores (U,) of each sequence."""
        return scores.split([len(one) for one in self.sequences])

    def forward(self, target: Target) -> Forward:
        """The target's value as a function of tensors like ``embedded`` (N, …) → (N,). Raises InputError where it is
        not what the capture's run said."""
        return Forward(self, target)

    @cached_property
    def copies(self) -> int:
        """How many inputs are run at once at most."""
        return max(1, POSITIONS // max((call.queries for call in self.cap.calls), default=1))

    def _each(self, tensors: tuple[Tensor, ...]) -> list[tuple[Sequence, tuple[Tensor, ...]]]:
        rest, found = list(tensors), []
        for one in self.sequences:
            count = len(one.tensors)
            found.append((one, tuple(rest[:count])))
            del rest[:count]
        return found


class Forward:
    """A target's value as a function of an input's tensors, in runs of several copies where the model takes them: that
    is checked, once, against a run of one."""

    def __init__(self, features: Features, target: Target):
        self.features, self.target = features, target
        self.cap = features.cap
        self.plain = target.value(self.cap)
        self.keep = self._keep() if features._ways.get("keeps", True) else 0
        with torch.no_grad():
            if self.keep and not self._near(self._run(features.embedded), self.plain):
                self.keep = 0
            features._ways["keeps"] = bool(self.keep)
            if not self.keep and not self._near(found := self._run(features.embedded), self.plain):
                raise InputError(
                    f"{self.cap.subject.name} gives {float(found):.4g} where its run gave {self.plain:.4g}: it draws "
                    "at random, or takes its input from elsewhere too. Put it in eval mode."
                )

    def __call__(self, *embedded: Tensor) -> Tensor:
        """(N, …) each → (N,), in float32 or better; gradients flow where they are on."""
        count, ways = len(embedded[0]), self.features._ways
        if count == 1:
            return self._run(embedded)
        size = self.features.copies if ways.get("batches", True) else 1
        found = []
        for start in range(0, count, size):
            part = tuple(one[start : start + size] for one in embedded)
            if len(part[0]) > 1 and "batches" not in ways:
                ways["batches"] = self._batches(part)
                if not ways["batches"]:
                    return self(*embedded)
            found.append(self._run(part))
        return torch.cat(found)

    def _batches(self, part: tuple[Tensor, ...]) -> bool:
        """Whether copies in one run come to what the last of them comes to alone."""
        with torch.no_grad():
            try:
                found = self._run(part)
            except InputError:
                return False
            alone = self._run(tuple(one[-1:] for one in part))
            return len(found) == len(part[0]) and self._near(found[-1:], float(alone))

    def _near(self, found: Tensor, wanted: float) -> bool:
        scale = max(abs(wanted), 0.1)
        return bool((found - wanted).abs().max() <= torch.finfo(self.cap.subject.dtype).eps ** 0.5 * scale)

    def _keep(self) -> int:
        """How many of the last positions must have logits, where the model can be told; else 0."""
        takes = KEEP in inspect.signature(self.cap.subject.module.forward).parameters
        if not takes or self.target.position is None or KEEP in self.cap.inputs.kwargs:
            return 0
        return self.cap.result.length - self.target.position

    def _run(self, embedded: tuple[Tensor, ...]) -> Tensor:
        """One run → (N,)."""
        inputs, vectors = self._inputs(embedded)
        plan = Plan(self.cap)
        plan.add(self.cap.edits)
        with Embedded(vectors) as mode:
            output, _ = run(
                self.cap.subject, inputs, changes=plan.changes(), keep_calls=False, operations=bool(self.cap.edits),
                grad=torch.is_grad_enabled(), **({KEEP: self.keep} if self.keep else {}),
            )  # fmt: skip
        mode.check(self.cap)
        target = replace(self.target, position=0) if self.keep else self.target
        return target.measured(primary(output, inputs.kwargs).float())

    def _inputs(self, embedded: tuple[Tensor, ...]) -> tuple[Inputs, list[tuple[Lookup, Tensor]]]:
        """N copies of the input with these tensors in it, and what lookups give instead."""
        inputs = repeated(self.cap.inputs, len(embedded[0]))
        kwargs, args, vectors = dict(inputs.kwargs), list(inputs.args), []
        for one, tensors in self.features._each(embedded):
            if one.lookups:
                vectors += zip(one.lookups, tensors, strict=True)
            elif isinstance(one.slot, int):
                args[one.slot] = tensors[0]
            else:
                kwargs[one.slot] = tensors[0]
        return replace(inputs, kwargs=kwargs, args=tuple(args)), vectors


def features(cap: Capture) -> Features:
    """What the answer to a capture's input can be attributed to. Raises InputError where there is nothing: a batch, or
    an input without tokens, pixels, sound or vectors."""
    inputs = cap.inputs
    if inputs.batch != 1:
        raise InputError(f"Attributions are of one input, and this capture has a batch of {inputs.batch}. Give one.")
    slots: dict[Slot, object] = {**dict(enumerate(inputs.args)), **inputs.kwargs}
    given = {slot: value for slot, value in slots.items() if isinstance(value, Tensor) and value.ndim > 1}
    lookups = _lookups(cap, {slot: value for slot, value in given.items() if _may_be_tokens(slot, value)})
    sequences: list[Sequence] = []
    several = any(str(slot).startswith(TARGETS) for slot in given)
    for slot, value in given.items():
        name = _name(slot, inputs.axes, [one.name for one in sequences], several)
        axis = inputs.axes.get(name)
        if slot in lookups:
            axis = axis if axis is not None and len(axis) == value.shape[1] else numbered(value.shape[1])
            held = _held(cap, slot, value)
            sequences.append(of_tokens(name, axis, lookups[slot], held, cap.subject.mask_token))
        elif not value.is_floating_point():
            continue
        elif value.ndim == 4:
            sequences.append(of_picture(name, axis, value, slot))
        elif slot in SOUNDS and value.ndim in (2, 3):
            sequences.append(of_sound(name, axis, value, slot))
        elif value.ndim in (2, 3) and not any(word in str(slot) for word in NO_WORDS):
            sequences.append(of_vectors(name, axis, value, slot))
    if not sequences:
        raise InputError(
            f"{cap.subject.name} looks up no tokens and reads no picture, sound or vectors here, so there is nothing "
            "to attribute its answer to."
        )
    found = Features(cap, tuple(sequences))
    if not any(one.lookups for one in sequences) or not _jumps_at_zero(found):
        return found
    return Features(cap, tuple(one.beginning("mean") if one.lookups else one for one in sequences), found._ways)


def _jumps_at_zero(found: Features) -> bool:
    """Whether embeddings of zero are an input unlike any near them: where everything is divided by its size before it
    is read (RMSNorm, without positions that are added), zero alone has no direction."""
    subject = found.cap.subject
    if subject not in _jump:
        try:
            value, zero = found.forward(target(found.cap)), found.baseline("zero")
            near = tuple(one + STEP * (other - one) for one, other in zip(zero, found.embedded, strict=True))
            with torch.no_grad():
                at_zero, beside = float(value(*zero)), float(value(*near))
        except InputError:  # it gives no answer that could be explained
            return False
        _jump[subject] = abs(beside - at_zero) > CLIFF * abs(value.plain - at_zero)
    return _jump[subject]


class Embedded(TorchFunctionMode):
    """Inside, looking up these tokens in these tables gives these vectors instead."""

    def __init__(self, vectors: list[tuple[Lookup, Tensor]]):
        super().__init__()
        self.vectors = vectors
        self.met: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.embedding:
            ids, table = _arguments(args, kwargs)
            for number, (lookup, vectors) in enumerate(self.vectors):
                if table.data_ptr() == lookup.table.data_ptr() and _same_ids(ids, lookup.ids, len(vectors)):
                    self.met.add(number)
                    return vectors.reshape(*ids.shape, vectors.shape[-1])
        return func(*args, **kwargs)

    def check(self, cap: Capture) -> None:
        """Raises InputError where a table was not asked."""
        if len(self.met) != len(self.vectors):
            raise InputError(f"{cap.subject.name} did not look its tokens up again, so they cannot be replaced.")


class _Finder(TorchFunctionMode):
    """Notes every lookup: (ids, table)."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.embedding:
            self.found.append(_arguments(args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _lookups(cap: Capture, tokens: Mapping[Slot, Tensor]) -> dict[Slot, tuple[Lookup, ...]]:
    """For each argument that holds tokens, the tables that they are looked up in. Which numbers are looked up is told
    by their memory, and where the model copies them, by their values."""
    if not tokens:
        return {}
    if cap in _seen:
        return _seen[cap]
    with _Finder() as finder, torch.no_grad():
        run(cap.subject, cap.inputs, keep_calls=False, operations=False)
    found: dict[Slot, dict[int, Lookup]] = {}
    for same in (_shares_memory, lambda ids, other: _same_ids(ids, other, 1)):
        for ids, table in finder.found:
            slot = next((slot for slot, other in tokens.items() if same(ids, other)), None)
            if slot is not None and (slot not in found or same is _shares_memory):
                found.setdefault(slot, {})[table.data_ptr()] = Lookup(table.detach(), tokens[slot])
    _seen[cap] = {slot: tuple(tables.values()) for slot, tables in found.items()}
    return _seen[cap]


def _arguments(args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    ids, table = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
    return ids, table


def _may_be_tokens(slot: Slot, value: Tensor) -> bool:
    whole = value.dtype in (torch.int64, torch.int32) and value.ndim == 2
    return whole and not any(word in str(slot) for word in NO_WORDS)


def _shares_memory(ids: Tensor, other: Tensor) -> bool:
    return ids.numel() == other.numel() and ids.data_ptr() == other.data_ptr()


def _same_ids(ids: Tensor, other: Tensor, copies: int) -> bool:
    """Whether these are the tokens ``other`` (1, T), so many times."""
    return ids.numel() == copies * other.numel() and bool((ids.reshape(copies, -1) == other).all())


def _held(cap: Capture, slot: Slot, ids: Tensor) -> Tensor:
    """Bool (T,): padding, and the gap that a masked language model is asked to fill."""
    real = cap.inputs.real_target if str(slot).startswith("decoder") else cap.inputs.real
    held = ~real[0] if real is not None and real.shape == ids.shape else torch.zeros_like(ids[0], dtype=torch.bool)
    return held if cap.subject.mask_token is None else held | (ids[0] == cap.subject.mask_token)


def _name(slot: Slot, axes: Mapping[str, Axis], taken: list[str], several: bool) -> str:
    """What a sequence is called: "input", or "source" and "target" where a model has both; else as its argument is."""
    target = str(slot).startswith(TARGETS)
    wanted = ("target",) if target else ("source", "input") if several else ("input",)
    free = [name for name in (*wanted, str(slot)) if name not in taken]
    return next((name for name in (*free, "source") if name in axes and name not in taken), free[0])
