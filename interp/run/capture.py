"""``capture``: run a subject once and keep what attention did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.attention.axes import Axis
from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.claims import claim
from headwise.interp.errors import InputError
from headwise.interp.masks import Causal, Mask
from headwise.interp.run import parts
from headwise.interp.run.acting import changes
from headwise.interp.run.anatomy import Anatomy, Reading, anatomy, read
from headwise.interp.run.anatomy.reading import reader, reading_of
from headwise.interp.run.edits import Edit
from headwise.interp.run.outputs import Result, primary
from headwise.interp.run.running import default_stack, observe, run
from headwise.interp.run.tap import Unseen
from headwise.interp.run.tap.changes import Changes
from headwise.interp.subject import Inputs, Subject

# what is in the name of an attention's class, or of a part of it → the word for its keys beyond the queries' own
BEYOND = {"compress": "compressed", "transientglobal": "summary"}


@dataclass(frozen=True, eq=False)
class Capture:
    """One run of a subject. Frozen and safe to share between threads; what is dear is computed when first looked
    at.

    ``calls`` in the order they ran · ``axes`` names of the positions · ``unseen`` attention-like modules that gave
    no call · ``notes`` what was done to the input · ``outputs`` what else the module returned by name with at most two
    axes, such as a next-sentence score (B, 2) · ``residuals``, ``logits`` and ``fidelity`` are lazy.
    """

    subject: Subject
    inputs: Inputs
    calls: tuple[AttentionCall, ...]
    unseen: tuple[Unseen, ...]
    result: Result
    edits: tuple[Edit, ...] = ()
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    _reading: Reading | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        stacks = ", ".join(f"{name}: {len(self.stack(name))} layers" for name in self.stacks) or "no attention call"
        sizes = (
            ", ".join(f"{name} of {len(axis)}" for name, axis in self.axes.items()) or f"batch of {self.inputs.batch}"
        )
        more = f", {len(self.unseen)} unseen" if self.unseen else ""
        edits = f", edits={self.edits!r}" if self.edits else ""
        return f"Capture({self.subject.name!r}, {sizes}; {stacks}{more}{edits})"

    # A notebook asks these for what it draws. That is the business of rooms above this one, so they are asked by name.
    def head(self, layer: int, head: int, stack: str | None = None) -> Any:
        """One head, to be looked at in a notebook. Raises IndexError for one that is not there."""
        return import_module("headwise.notebook").one(self, layer, head, stack)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """For IPython."""
        return import_module("headwise.notebook").bundle(self, include, exclude)

    def _display_(self) -> Any:
        """For marimo."""
        return import_module("headwise.notebook").shown(self)

    @property
    def axes(self) -> Mapping[str, Axis]:
        return self.inputs.axes

    @property
    def notes(self) -> tuple[str, ...]:
        return self.subject.warnings + self.inputs.notes

    @property
    def stacks(self) -> tuple[str, ...]:
        """ "encoder", "decoder", "cross" …: those that have calls, in the order they first ran."""
        return tuple(dict.fromkeys(c.stack for c in self.calls))

    def stack(self, name: str | None = None) -> tuple[AttentionCall, ...]:
        """The calls of one stack by layer; of the first one when no name is given."""
        name = name or (self.stacks[0] if self.calls else None)
        return tuple(sorted((c for c in self.calls if c.stack == name), key=lambda c: c.layer))

    def find(self, layer: int, stack: str | None = None) -> AttentionCall:
        """The call of a layer. Raises IndexError naming the layers there are."""
        calls = self.stack(stack)
        for call in calls:
            if call.layer == layer:
                return call
        raise IndexError(
            f"No attention call in layer {layer}; {stack or 'this model'} has layers {[c.layer for c in calls]}."
        )

    @property
    def nbytes(self) -> int:
        """Bytes of q, k, v and seen weights this capture keeps alive."""
        return sum(c.nbytes for c in self.calls)

    @property
    def logits(self) -> Tensor:
        """(B, T, V) for language models, else the module's first output. Recomputed from the last hidden state
        where the output embedding is the model's last step, since these are the largest tensor of a run."""
        return self.result.logits()

    @property
    def scores_positions(self) -> bool:
        """Whether the logits are (B, T, V), a row for each position, rather than one row for the whole input."""
        return self.result.per_position

    def logits_at(self, position: int) -> Tensor:
        """(B, V) at one position, without computing those of the others. Raises InputError when the model scores the
        input as a whole, and IndexError beyond its positions."""
        if not self.scores_positions:
            raise InputError(
                f"{self.subject.name} scores the input as a whole, not each position. Load a checkpoint with a "
                "language-model head."
            )
        return self.result.logits([position])[:, 0]

    @cached_property
    def fidelity(self) -> float | None:
        """max |Δlogit| between the captured run and the same run without capture, over real positions. Costs one
        plain run. None when the model returned nothing that could be measured: whole numbers, or its own input."""
        if not self.result.measurable(self.inputs.kwargs):
            return None
        plain, _, _ = observe(self.subject, self.inputs, keep_calls=False, operations=False)
        return self.result.furthest(plain, self.inputs.real_target if "cross" in self.stacks else self.inputs.real)

    @property
    def anatomy(self) -> Anatomy:
        """The residual streams of the subject on inputs of this kind, found once and remembered with its module."""
        return anatomy(self.subject, self.inputs)

    @cached_property
    def stream(self) -> Reading:
        """What this run put into its residual streams. One more run of the model, unless it was captured with
        ``stream=True``. Raises InputError, with the reason, where the anatomy was refused."""
        if self._reading is not None:
            return self._reading
        edited = changes(self, self.edits)
        return replace(read(self.subject, self.inputs, self.anatomy, changes=edited), calls=self.calls)

    @cached_property
    def residuals(self) -> tuple[Tensor, ...]:
        """The residual stream: after the embedding, then after each block → L + 1 tensors (B, T, C).

        Where the anatomy is refused blocks are the numbered modules that hold this run's self-attention. One more run
        of the model reads them. For encoder-decoders it is the decoder's stream. Empty when the blocks cannot be told.
        """
        try:
            return self.stream.blocks()
        except InputError:
            return self._modules_made()

    def _modules_made(self) -> tuple[Tensor, ...]:
        blocks = parts.stream([(c.stack, c.name) for c in self.calls if c.kind == "self"])
        if not blocks:
            return ()
        _, recorder = run(self.subject, self.inputs, changes=changes(self, self.edits), watch=blocks, keep_calls=False)
        kept = [recorder.kept[b] for b in blocks if b in recorder.kept]
        entering = [t for t in kept[0][0] if isinstance(t, Tensor) and t.is_floating_point()][:1] if kept else []
        return (*entering, *(primary(output) for _, output in kept))


def capture(
    subject: Subject, raw: Any, edits: Sequence[Edit] = (), *, grad: bool = False, stream: bool = False
) -> Capture:
    """Run ``subject`` on ``raw`` once and keep every attention computation.

    ``raw`` is what the subject encodes: a text, a (source, target) pair, a picture, a waveform, or a dict of
    tensors and flags, which is passed to the module as keyword arguments. ``edits`` change the run at the attention
    seam (see ``headwise.edits``); since they name layers, they cost a run more than ``rerun`` of a capture that is
    there. With ``stream`` the same run also reads the residual stream, where there is one (see ``Capture.stream``).
    Scoped to this thread: nothing stays on the module, also after an exception.

    Raises InputError (a ValueError) for inputs the subject cannot take.
    """
    inputs = raw if isinstance(raw, Inputs) else subject.encode(raw)
    if not isinstance(inputs, Inputs):
        inputs = Inputs(dict(inputs))
    plain = _captured(subject, inputs, (), Changes(), grad=grad and not edits, stream=stream and not edits)
    return rerun(plain, edits, grad=grad, stream=stream) if edits else plain


def rerun(cap: Capture, edits: Sequence[Edit], *, grad: bool = False, stream: bool = False) -> Capture:
    """Run the subject of a capture once more on the same input with ``edits``, and nothing else changed.

    Raises InputError for an edit of what the captured run has not.
    """
    edits = tuple(edits)
    return _captured(cap.subject, cap.inputs, edits, changes(cap, edits), grad=grad, stream=stream)


def _captured(
    subject: Subject, inputs: Inputs, edits: tuple[Edit, ...], what: Changes, *, grad: bool, stream: bool = False
) -> Capture:
    found = anatomy(subject, inputs) if stream else Anatomy()
    tape, seam = reader(found, inputs, what.seam) if found.streams else (None, what.seam)
    result, outputs, recorder = observe(subject, inputs, changes=replace(what, seam=seam), grad=grad)
    seen, unseen = recorder.finished(default_stack(subject))
    calls = tuple(_named_beyond(_bound(call, subject, inputs, seen), subject.module) for call in seen)
    reading = None if tape is None else replace(reading_of(subject, found, tape, inputs, calls), spared=not grad)
    return Capture(subject, inputs, calls, tuple(unseen), result, edits, outputs, reading)


def _bound(call: AttentionCall, subject: Subject, inputs: Inputs, calls: list[AttentionCall]) -> AttentionCall:
    """The call with what its positions are called and which of them are real, as far as their number tells, and what
    it should see."""
    both = any(c.stack == "cross" for c in calls)
    axes, real = [], []
    for side, length in (("query", call.queries), ("key", call.keys)):
        if call.stack == "cross":
            wanted = ("target", "input") if side == "query" else ("source", "input")
        else:
            wanted = ("source", "input") if call.stack.startswith("enc") else ("target", "input")
        names = (*wanted, *inputs.axes)
        axes.append(next((inputs.axes[n] for n in names if n in inputs.axes and len(inputs.axes[n]) == length), None))
        of_target = both and (call.stack.startswith("dec") or (call.stack, side) == ("cross", "query"))
        mask = inputs.real_target if of_target else inputs.real
        real.append(mask if mask is not None and mask.shape[1] == length else None)
    return call.bound(tuple(axes), tuple(real), claim(subject.module, call, inputs.kwargs, subject.said))


def _named_beyond(call: AttentionCall, module: nn.Module) -> AttentionCall:
    """Self-attention with more keys than queries: the keys of the queries' own positions are named as the queries are,
    the others by what made them.

    Where these are is read off the mask. Keys of an earlier run, from a cache or a memory, come before the queries'
    own, and each query sees all of them and its own past. Where the queries' own come first, each sees the key of its
    own number and none later among them. LongT5's summaries are known to come last.
    """
    own, beyond = call.queries, call.keys - call.queries
    if call.kind != "self" or beyond <= 0:
        return call
    inside = [type(part).__name__.lower() for part in parts.modules_below(module, call.name)]
    word = next((word for part, word in BEYOND.items() if any(part in kind for kind in inside)), "extra")
    if word != "summary":
        if _follows(call.mask, own, call.keys):
            before = (f"memory −{i}" for i in range(beyond, 0, -1))
            return call.with_keys(Axis((*before, *call.query_axis.labels)))
        seen = call.mask.dense(own, call.keys)[..., :own].reshape(-1, own, own)
        if own == 1 or not bool((seen.diagonal(0, -2, -1).all(-1) & ~seen.triu(1).any((-2, -1))).any()):
            return call  # in no sample and head
    return call.with_keys(Axis((*call.query_axis.labels, *(f"{word} {i}" for i in range(beyond)))))


def _follows(mask: Mask, queries: int, keys: int) -> bool:
    """Does each query see all keys before the queries' own, and of these the ones up to itself? Of a single query only
    a mask that says so tells."""
    after = Causal(keys - queries)
    return mask == after or (queries > 1 and torch.equal(mask.dense(queries, keys).cpu(), after.dense(queries, keys)))
