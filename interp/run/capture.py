"""``capture``: run a subject once and keep what attention did."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.attention.axes import Axis
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.edits import Edit, resolve
from headwise.interp.run.tap import Recorder, Unseen, listen
from headwise.interp.subject import Inputs, Subject

LOGIT_BLOCK = 256  # positions whose logits are compared at a time


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
    edits: tuple[Edit, ...] = ()
    _output: Tensor | None = field(default=None, repr=False)  # (B, T, V) or whatever the module returned first
    _head: tuple[nn.Module, Tensor] | None = field(default=None, repr=False)  # output embedding and its input (B, T, C)
    outputs: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

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

    def axis(self, call: AttentionCall, side: str) -> Axis:
        """The axis of a call's "query" or "key" positions; plain numbers where nothing better fits its length."""
        length = call.queries if side == "query" else call.keys
        if call.stack == "cross":
            wanted = ("target", "input") if side == "query" else ("source", "input")
        else:
            wanted = ("source", "input") if call.stack.startswith("enc") else ("target", "input")
        for name in (*wanted, *self.axes):
            if name in self.axes and len(self.axes[name]) == length:
                return self.axes[name]
        return Axis(tuple(map(str, range(length))))

    def real(self, side: str, call: AttentionCall) -> Tensor | None:
        """Bool (B, positions) of the call's real queries or keys, or None when nothing is padding."""
        decodes = call.stack.startswith("dec") or (call.stack, side) == ("cross", "query")
        of_target = decodes and "cross" in self.stacks
        real = self.inputs.real_target if of_target else self.inputs.real
        length = call.queries if side == "query" else call.keys
        return real if real is not None and real.shape[1] == length else None

    @property
    def nbytes(self) -> int:
        """Bytes of q, k, v and seen weights this capture keeps alive."""
        return sum(c.nbytes for c in self.calls)

    @property
    def logits(self) -> Tensor:
        """(B, T, V) for language models, else the module's first output. Recomputed from the last hidden state
        where the output embedding is the model's last step, since these are the largest tensor of a run."""
        if self._head is None:
            return self._output
        head, hidden = self._head
        with torch.no_grad():
            return head(hidden)

    @property
    def scores_positions(self) -> bool:
        """Whether the logits are (B, T, V), a row for each position, rather than one row for the whole input."""
        return (self._output if self._head is None else self._head[1]).ndim == 3

    def logits_at(self, position: int) -> Tensor:
        """(B, V) at one position, without computing those of the others. Raises InputError when the model scores the
        input as a whole, and IndexError beyond its positions."""
        if not self.scores_positions:
            raise InputError(
                f"{self.subject.name} scores the input as a whole, not each position. Load a checkpoint with a "
                "language-model head."
            )
        here = (self._output if self._head is None else self._head[1])[:, [position]]  # (B, 1, V or C)
        if self._head is not None:
            with torch.no_grad():
                here = self._head[0](here)
        return here[:, 0]

    @cached_property
    def fidelity(self) -> float:
        """max |Δlogit| between the captured run and the same run without capture, over real positions. Costs one
        plain run."""
        with torch.no_grad():
            plain = primary(self.subject.module(**self.inputs.kwargs))
        mine = self._output if self._head is None else None
        if mine is not None and mine.shape != plain.shape:
            raise RuntimeError(f"Captured output has shape {tuple(mine.shape)}, the plain run's {tuple(plain.shape)}.")
        real = self.inputs.real_target if "cross" in self.stacks else self.inputs.real
        if plain.ndim < 3 or real is None or real.shape != plain.shape[:2]:
            real = None
        worst = 0.0
        if plain.ndim < 2:
            return float((mine - plain).abs().max())
        for start in range(0, plain.shape[1], LOGIT_BLOCK):
            part = slice(start, start + LOGIT_BLOCK)
            with torch.no_grad():
                ours = mine[:, part] if mine is not None else self._head[0](self._head[1][:, part])
            gap = (ours.float() - plain[:, part].float()).abs()
            gap = gap[real[:, part]] if real is not None else gap
            if gap.numel():
                worst = max(worst, float(gap.max()))
        return worst

    @cached_property
    def residuals(self) -> tuple[Tensor, ...]:
        """The residual stream: after the embedding, then after each block → L + 1 tensors (B, T, C).

        Blocks are the numbered modules that hold this run's self-attention; one more run of the model reads them.
        For encoder-decoders it is the decoder's stream. Empty when the blocks cannot be told.
        """
        blocks = [b for b in (_block(c.name) for c in self.calls if c.kind == "self" and self._last_stack(c)) if b]
        blocks = tuple(dict.fromkeys(blocks))
        if not blocks:
            return ()
        _, recorder = _run(self.subject, self.inputs, self.edits, self.calls, watch=frozenset(blocks), keep_calls=False)
        kept = [recorder.kept[b] for b in blocks if b in recorder.kept]
        entering = [t for t in kept[0][0] if isinstance(t, Tensor) and t.is_floating_point()][:1] if kept else []
        return (*entering, *(primary(output) for _, output in kept))

    def _last_stack(self, call: AttentionCall) -> bool:
        own = [s for s in self.stacks if s != "cross"]
        return call.stack == own[-1]


def capture(subject: Subject, raw: Any, edits: tuple[Edit, ...] = (), *, grad: bool = False) -> Capture:
    """Run ``subject`` on ``raw`` once and keep every attention computation.

    ``raw`` is what the subject encodes: a text, a (source, target) pair, a picture, a waveform, or a dict of
    tensors, which is passed to the module as keyword arguments. ``edits`` change the run at the attention seam (see
    ``headwise.edits``). Scoped to this thread: nothing stays on the module, also after an exception.

    Raises InputError (a ValueError) for inputs the subject cannot take.
    """
    inputs = raw if isinstance(raw, Inputs) else subject.encode(raw)
    if not isinstance(inputs, Inputs):
        inputs = Inputs(dict(inputs))
    edits = tuple(edits)
    calls = ()
    if edits:  # edits name layers and heads: a run without them says which calls those are
        _, before = _run(subject, inputs, (), ())
        calls, _ = before.finished(_default_stack(subject))
    output, recorder = _run(subject, inputs, edits, calls, grad=grad)
    seen, unseen = recorder.finished(_default_stack(subject))
    head_name = _head_name(subject.module)
    result = primary(output)
    head = None
    if head_name is not None and head_name in recorder.kept:
        given, made = recorder.kept[head_name]
        # only when nothing happened after the head, so that head(hidden) are the logits themselves
        if isinstance(made, Tensor) and made.data_ptr() == result.data_ptr() and made.shape == result.shape:
            head = (subject.module.get_submodule(head_name), given[0])
    return Capture(
        subject, inputs, tuple(seen), tuple(unseen), edits, None if head else result, head, _named(output, result)
    )


def primary(output: Any) -> Tensor:
    """The tensor a run is about: logits, else the last hidden state, else the first tensor found."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        for name in ("logits", "last_hidden_state", "logits_per_text", "pooler_output"):
            if isinstance(output.get(name), Tensor):
                return output[name]
    for item in _leaves(output):
        if isinstance(item, Tensor):
            return item
    raise TypeError(
        f"The module returned {type(output).__name__} without a tensor in it; a capture needs one to compare runs by."
    )


def _named(output: Any, result: Tensor) -> dict[str, Tensor]:
    """What a module returned by name beside the ``result``, as long as it is small."""
    if not isinstance(output, Mapping):
        return {}
    return {k: v for k, v in output.items() if isinstance(v, Tensor) and v.ndim <= 2 and v is not result}


def _leaves(value) -> Iterator:
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    if children is None:
        yield value
    else:
        for child in children:
            yield from _leaves(child)


def _run(subject, inputs, edits, calls, *, watch=frozenset(), keep_calls=True, grad=False):
    head_name = _head_name(subject.module)
    watch = watch | ({head_name} if head_name is not None and keep_calls else frozenset())
    recorder = Recorder(subject.module, inputs.batch, watch, keep_calls, resolve(edits, calls))
    with torch.set_grad_enabled(grad), listen(recorder):
        try:
            output = subject.module(**inputs.kwargs)
        except TypeError as error:
            if "unexpected keyword argument" in str(error) or ("missing" in str(error) and "argument" in str(error)):
                raise InputError(f"{type(subject.module).__name__} does not take these inputs: {error}.") from error
            raise
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise InputError(
                    f"{subject.name} ran out of memory on this input. Use a shorter input, a smaller model "
                    "or a lower precision."
                ) from error
            raise
    return output, recorder


def _head_name(module: nn.Module) -> str | None:
    """Path of a Hugging Face model's output embedding, the step that makes logits."""
    if not hasattr(module, "get_output_embeddings"):
        return None
    try:
        head = module.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return next((name for name, m in module.named_modules() if m is head), None) if head is not None else None


def _default_stack(subject: Subject) -> str:
    return {"encoder-decoder": "decoder", "custom": "self", "vision": "encoder", "audio": "encoder"}.get(
        subject.family, subject.family
    )


def _block(name: str) -> str | None:
    """ "model.layers.3.self_attn" → "model.layers.3"."""
    match = re.match(r"(.*?\.?\d+)(\.|$)", name)
    return match.group(1) if match else None
