"""``Target``: a module and how to call it. The only place of a check where the model runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import CheckError, Refused, first_line, handed, theirs
from headwise.interp.check.expectation import Unfit
from headwise.interp.check.options import Options
from headwise.interp.check.state import Snapshot, seed_everything
from headwise.interp.check.target.arguments import arguments, each, takes_anything
from headwise.interp.check.target.feeding import Feed
from headwise.interp.check.target.layout import Layout, Shapes, read
from headwise.interp.check.target.masking import PaddingArgument, padding_argument
from headwise.interp.check.target.modes import BASE, Doubled, Mode, Still
from headwise.interp.check.target.streams import Batch
from headwise.interp.run.outputs import primary
from headwise.interp.subject import Subject

WEIGHT_FLAGS = (
    "output_attentions",
    "need_weights",
    "return_attention",
    "return_attn",
    "return_weights",
    "return_attention_weights",
)
TARGET_ARGUMENTS = ("targets", "target", "labels")  # given for outputs at all positions, as in nanoGPT


class Target:
    """A module, how to call it, and what to feed it. What the model raises leaves here as ``Refused``."""

    def __init__(self, model: nn.Module | Subject, options: Options):
        subject = model if isinstance(model, Subject) else None
        module = subject.module if subject else model
        if not isinstance(module, nn.Module):
            raise CheckError(f"check expects an nn.Module or a Subject, got {type(model).__name__}.")
        self.module, self.options = module, options
        self.name = subject.name if subject else type(module).__name__
        self.forward, self.step, self.packed = options.forward, options.step, options.packed
        self.parameters, self.open = arguments(module.forward), takes_anything(module.forward)
        named = self.forward is None
        self.feed = Feed(module, subject, parameters=self.parameters, named=named, options=options)
        self.config, self.hugging = self.feed.vocabulary.config, self.feed.vocabulary.hugging
        self.padding = self._padding()
        self.targets: str | None = None  # one of TARGET_ARGUMENTS, where it must be given
        flags = [f for f in WEIGHT_FLAGS if f in self.parameters and named]
        self.weight_flag = next(iter(flags), None)
        self.layout: Layout | None = None  # of the output
        self.inner: str | None = None  # the module whose output is watched, where the model's own has no positions
        self.answer: Layout | None = None  # then: the layout of the model's own
        self.notes: list[str] = []
        self.runs = 0
        self.deadline: Callable[[], None] = lambda: None  # raises OutOfTime
        self.snapshot: Snapshot | None = None  # restored before every run
        self.stateless = False  # a run leaves no trace, so nothing needs restoring

    def _padding(self) -> PaddingArgument:
        return padding_argument(self.parameters, self.feed.stream, self.forward, self.options.padding_mask)

    @property
    def position_name(self) -> str | None:
        """The argument that says at which position each token of the stream stands."""
        name = "decoder_position_ids" if self.decodes_a_source else "position_ids"
        return name if self.forward is None and name in self.parameters else None

    @property
    def decodes_a_source(self) -> bool:
        """The stream is the decoder's of an encoder-decoder."""
        return self.feed.stream == "decoder_input_ids"

    def candidates(self, batch: int | None, length: int | None, fixed: int | None) -> Iterator[tuple[int, int]]:
        """(B, T) to try, the likeliest way to feed the module first."""
        for size in self.feed.candidates(batch, length, fixed):
            self.padding = self._padding()
            yield size

    # -- running ----------------------------------------------------------------------------------------------------
    @contextmanager
    def in_mode(self, mode: Mode):
        """Training flags, gradient, stilled dropout and attention implementation of ``mode``; undone afterwards."""
        flags = [(m, m.training) for m in self.module.modules()]
        implementation = getattr(self.config, "_attn_implementation", None)
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(mode.grad))
            if mode.train:
                stack.enter_context(Still())
            if self.feed.dtype == torch.float64:
                stack.enter_context(Doubled())
            try:
                for m, _ in flags:
                    statistics = isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats
                    m.training = mode.train and (mode.statistics or not statistics)
                if mode.eager:
                    handed(self.module.set_attn_implementation, mode.eager)
                yield
            finally:
                if mode.eager:
                    handed(self.module.set_attn_implementation, implementation)
                for m, flag in flags:
                    m.training = flag
                if mode.train and self.snapshot is not None:
                    self.snapshot.restore()  # running statistics moved, averages were kept

    @contextmanager
    def alone(self, b: int, batch: int):
        """Runs of sample ``b`` of ``batch`` by itself: the fixed arguments, such as its source, are its own."""
        fixed, axis = self.feed.fixed, self.feed.streams[0].layout.samples or 0

        def own(t: Tensor) -> Tensor:
            at = axis if t.ndim > axis and t.shape[axis] == batch else 0
            return t.narrow(at, b, 1) if t.shape[at] == batch else t

        with self.beside(lambda _: each(fixed(batch), own)):
            yield

    @contextmanager
    def beside(self, fixed: Callable[[int], dict]):
        """Runs with other fixed arguments beside the stream."""
        before, self.feed.fixed = self.feed.fixed, fixed
        try:
            yield
        finally:
            self.feed.fixed = before

    @property
    def parameters_n(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    @contextmanager
    def as_copy(self, module: nn.Module, dtype: torch.dtype):
        """Runs of a copy of the module in another dtype, its fixed inputs cast along."""
        feed, fixed = self.feed, self.feed.fixed
        before = self.module, feed.dtype, self.snapshot, self.stateless

        def cast(t: Tensor) -> Tensor:
            return t.to(dtype) if t.is_floating_point() else t

        try:
            self.module, feed.dtype = module, dtype
            self.snapshot = Snapshot(module)
            with self.beside(lambda batch: each(fixed(batch), cast)):
                yield
        finally:
            self.module, feed.dtype, self.snapshot, self.stateless = before

    @contextmanager
    def untouched(self):
        """Runs that keep what the module keeps between them. It starts from, and ends in, its own state."""
        held, self.snapshot = self.snapshot, None
        if held is not None:
            held.restore()
        try:
            yield held
        finally:
            self.snapshot = held
            if held is not None:
                held.restore()

    def raw(self, x: Batch, mask: Tensor | None = None, *, mode: Mode = BASE, seed: int = 0, **extra) -> Any:
        """One call of the model, from the same random streams and the same state every time."""
        self.deadline()
        self.runs += 1
        seed_everything(seed)
        if self.snapshot is not None and not self.stateless:
            self.snapshot.restore()
        if mode.ones and mask is None and self.padding.name:
            mask = torch.ones(x.size, x.length, dtype=torch.long, device=x.device)
        with theirs(), self.in_mode(mode):
            return self._called(x, mask, mode, extra)

    def _called(self, x: Batch, mask: Tensor | None, mode: Mode, extra: dict):
        parts = self.feed.arguments(x)
        if self.forward is not None:
            given = {} if mask is None else {self.padding.name: mask.bool() if self.padding.boolean else mask}
            return self._inside(self.forward, self.module, self._bare(parts), **given)
        kwargs = {**self.feed.fixed(x.size)}
        end = x.start + x.length
        kwargs |= {n: square[..., x.start : end, x.start : end] for n, square in self.feed.square_arguments()}
        kwargs |= {n: line[x.start : end] for n, line in self.feed.lines.items()}
        kwargs |= {s.name: part for s, part in zip(self.feed.streams[1:], parts[1:], strict=True)}
        if mask is not None:
            kwargs[self.padding.name] = self.padding.taken(mask)
        if self.targets is not None:
            kwargs[self.targets] = parts[0]
        if mode.weights and self.weight_flag:
            kwargs[self.weight_flag] = True
        kwargs.update({k: v for k, v in extra.items() if v is not None})
        if self.hugging and "use_cache" not in kwargs and "use_cache" in self.parameters:
            kwargs["use_cache"] = False
        stream = self.parameters.get(self.feed.stream)
        if stream is not None and stream.kind is not inspect.Parameter.POSITIONAL_ONLY:
            return self._inside(self.module, **{self.feed.stream: parts[0]}, **kwargs)
        return self._inside(self.module, parts[0], **kwargs)

    def _bare(self, parts: list[Tensor]) -> Tensor | dict[str | None, Tensor]:
        """As the caller's own functions take it: a tensor, or, of several streams, a dict of them."""
        if len(parts) == 1:
            return parts[0]
        return {stream.name: part for stream, part in zip(self.feed.streams, parts, strict=True)}

    def _inside(self, function: Callable, *args, **kwargs) -> Any:
        """The model's answer, with the output of the module that is watched, if it is another."""
        if self.inner is None:
            return handed(function, *args, **kwargs)
        seen: list[Any] = []
        hook = self.module.get_submodule(self.inner).register_forward_hook(lambda m, a, out: seen.append(out))
        try:
            answer = handed(function, *args, **kwargs)
        finally:
            hook.remove()
        return Answered(answer, seen[-1] if seen else answer)

    def run(self, x: Batch, mask: Tensor | None = None, **options) -> Tensor:
        """The output as (B, T, F). ``mask`` (B, T) is 1 at real positions."""
        return self.read(self.raw(x, mask, **options), x)

    def stepped(self, chunk: Batch, cache) -> tuple[Any, Any]:
        """The caller's ``step``: (output, cache), or the output alone where the model keeps its cache to itself."""
        with theirs():
            made = handed(self.step, self.module, self._bare(self.feed.arguments(chunk)), cache)
        if isinstance(made, tuple | list) and len(made) == 2:
            return made[0], made[1]
        if not isinstance(made, Tensor | Mapping):
            raise Refused(TypeError(f"step expects to return (output, cache) or the output, got {type(made).__name__}"))
        return made, None

    def row(self, x: Batch, segments: Tensor) -> Tensor:
        """The caller's ``packed``: one row of several documents → (1, T, F)."""
        self.deadline()
        if self.snapshot is not None:
            self.snapshot.restore()
        with self.in_mode(BASE):
            with theirs():
                raw = handed(self.packed, self.module, self._bare(self.feed.arguments(x)), segments)
            return self.read(raw, x)

    # -- reading ----------------------------------------------------------------------------------------------------
    def picked(self, raw: Any) -> Tensor:
        """The tensor to watch."""
        raw = raw.inner if isinstance(raw, Answered) else raw
        if self.options.output is not None and self.inner is None:
            with theirs():
                out = handed(self.options.output, raw)
        else:
            try:
                out = primary(raw)
            except TypeError as error:  # it returned no tensor
                raise Refused(error) from error
        out = out.to_padded_tensor(0.0) if out.is_nested else out
        return out if out.ndim else out[None]

    def read(self, raw: Any, x: Batch) -> Tensor:
        """Any output → (B, T, F); F gathers the rest. A pooled output (B, F) becomes (B, 1, F)."""
        out = self.picked(raw)
        layout = self.layout
        if layout is None or len(layout.axes) != out.ndim:
            layout = self._read(Shapes(tuple(out.shape), x.size, self._length(x)))
        out = layout.one_order(out, x.size)
        out = torch.view_as_real(out) if out.is_complex() else out
        return out.flatten(2) if out.ndim > 2 else out[..., None]

    def _length(self, x: Batch) -> int:
        return x.length if self.feed.positional else -1

    def _read(self, shapes: Shapes) -> Layout:
        return read(shapes, self.feed.streams[0].layout, self.feed.grid)

    @property
    def pooled(self) -> bool:
        """Has the output no positions?"""
        return self.layout is not None and not self.layout.timed and self.layout.axes[0] != "(B T)"

    def look_inside(self, name: str, layout: Layout) -> None:
        """Watch the output of a module inside."""
        self.answer, self.layout, self.inner = self.layout, layout, name
        self.notes.append(f"one output a sequence: what {name} gives at each position was watched in its place")

    @contextmanager
    def answering(self):
        """What is read is the model's own answer, also where a module inside it is watched."""
        inner, layout = self.inner, self.layout
        if inner is not None:
            self.inner, self.layout = None, self.answer
        try:
            yield
        finally:
            self.inner, self.layout = inner, layout

    def last_only(self, raw: Any, x: Batch) -> bool:
        """Did it answer for the last position only, and can it be made to answer for all by giving it targets?"""
        out = self.picked(raw)
        name = next((n for n in TARGET_ARGUMENTS if n in self.parameters), None)
        alone = self.feed.positional and out.ndim == 3 and out.shape[1] == 1 < x.length
        if self.forward is not None or name is None or not alone or self.feed.alphabet is None:
            return False
        self.targets = name
        self.notes.append(f"without {name} it answers for the last position only, so it is given {name}")
        return True

    def settle(self, raw: Any, x: Batch) -> None:
        """Fix the output's layout, by how its shape follows the input's length and number of samples."""
        told = self.feed.told.layout
        shape = tuple(self.picked(raw).shape)
        if told is not None and told.output is not None:
            if len(told.output.axes) != len(shape):
                raise CheckError(f"layout= says the output is {told.output}, but it has shape {shape}.")
            self.layout = told.output
            return
        shorter = smaller = None
        if self.feed.cuts:
            shorter = self._shape_of(x.cut(0, n)) if (n := x.length - max(1, x.length // 4)) else None
            smaller = self._shape_of(x[: x.size - 1]) if x.size > 1 else None
        self.layout = self._read(Shapes(shape, x.size, self._length(x), shorter, smaller))

    @property
    def reading(self) -> str:
        """How inputs and output were read: "skill (B, T), answer (B, T) → (B, T, C)"."""
        given = ", ".join(f"{s.name or 'input'} {s.layout}" for s in self.feed.streams)
        inside = f", watched at {self.inner}" if self.inner else ""
        return f"{given} → {self.layout}{inside}"

    def _shape_of(self, x: Batch) -> tuple[int, ...] | None:
        """Of the output; None where the model does not take ``x``."""
        try:
            return tuple(self.picked(self.raw(x)).shape)
        except Refused:
            return None

    def refusal(self, refused: list[tuple[int, int, Exception]]) -> str:
        """Why no input could be fed, as a sentence that says what to give."""
        if not refused:
            return (
                f"{self.name}: what to feed it could not be told from its layers; give "
                "inputs=, a tensor (B, T) of ids or (B, T, C) of floats."
            )
        b, t, error = refused[0]
        if isinstance(error, Unfit):
            return str(error)
        given = self.feed.names
        required = [n for n, p in self.parameters.items() if p.default is p.empty and n not in given]
        if self.forward is None and required and isinstance(error, TypeError):
            return (
                f"{self.name}.forward wants {', '.join(required)} besides its input: "
                "give inputs= as a dict of its arguments, or forward=."
            )
        what = "the inputs given" if self.feed.forced else f"random inputs of batch {b}, length {t}"
        return (
            f"{self.name} raised {type(error).__name__} on {what}: {first_line(error)[:200]}. Give "
            "inputs= that it takes, or forward=(model, x, attention_mask)."
        )


@dataclass(frozen=True)
class Answered:
    """What a run gave: the model's answer, and the output of the module inside it that is watched."""

    answer: Any
    inner: Any
