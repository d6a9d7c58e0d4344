"""``Target``: a module and how to call it. The only place of a check where the model runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import CheckError, Refused, handed, theirs
from headwise.interp.check.options import Options
from headwise.interp.check.state import Snapshot, seed_everything
from headwise.interp.check.target.arguments import arguments, each, takes_anything
from headwise.interp.check.target.feeding import Feed
from headwise.interp.check.target.layouts import WORDS, laid_out, layout_of
from headwise.interp.check.target.masking import padding_argument
from headwise.interp.check.target.modes import BASE, Mode, Still
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
        self.feed = Feed(
            module,
            subject,
            parameters=self.parameters,
            named=self.forward is None,
            pad_id=options.pad_id,
            name=self.name,
        )
        self.config, self.hugging = self.feed.config, self.feed.hugging
        self.feed.take(options.inputs)
        self.padding = padding_argument(self.parameters, self.feed.stream, self.forward)
        self.targets: str | None = None  # one of TARGET_ARGUMENTS, where it must be given
        flags = [f for f in WEIGHT_FLAGS if f in self.parameters and self.forward is None]
        self.weight_flag = next(iter(flags), None)
        self.layout: str | None = None  # of the output
        self.notes: list[str] = []
        self.runs = 0
        self.deadline: Callable[[], None] = lambda: None  # raises OutOfTime
        self.snapshot: Snapshot | None = None  # restored before every run
        self.stateless = False  # a run leaves no trace, so nothing needs restoring

    @property
    def position_name(self) -> str | None:
        """The argument that says at which position each token of the stream stands."""
        name = "decoder_position_ids" if self.decodes_a_source else "position_ids"
        return name if self.forward is None and name in self.parameters else None

    @property
    def decodes_a_source(self) -> bool:
        """The stream is the decoder's of an encoder-decoder."""
        return self.feed.stream == "decoder_input_ids"

    def candidates(self, batch: int | None, length: int | None) -> Iterator[tuple[int, int]]:
        """(B, T) to try, the likeliest way to feed the module first."""
        for size in self.feed.candidates(batch, length):
            self.padding = padding_argument(self.parameters, self.feed.stream, self.forward)
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
            try:
                for m, _ in flags:
                    statistics = isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats
                    m.training = mode.train and not statistics
                if mode.eager:
                    handed(self.module.set_attn_implementation, mode.eager)
                yield
            finally:
                if mode.eager:
                    handed(self.module.set_attn_implementation, implementation)
                for m, flag in flags:
                    m.training = flag

    @contextmanager
    def alone(self, b: int, batch: int):
        """Runs of sample ``b`` of ``batch`` by itself: the fixed arguments, such as its source, are its own."""
        fixed = self.feed.fixed

        def own(t: Tensor) -> Tensor:
            return t[b : b + 1] if t.shape[0] == batch else t

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

    def raw(self, x: Tensor, mask: Tensor | None = None, *, mode: Mode = BASE, seed: int = 0, **extra) -> Any:
        """One call of the model, from the same random streams and the same state every time."""
        self.deadline()
        self.runs += 1
        seed_everything(seed)
        if self.snapshot is not None and not self.stateless:
            self.snapshot.restore()
        if mode.ones and mask is None and self.padding.name:
            mask = torch.ones(x.shape[0], x.shape[self.feed.time], dtype=torch.long, device=x.device)
        with theirs(), self.in_mode(mode):
            return self._called(x, mask, mode, extra)

    def _called(self, x: Tensor, mask: Tensor | None, mode: Mode, extra: dict):
        if self.forward is not None:
            if mask is None:
                return handed(self.forward, self.module, x)
            return handed(
                self.forward, self.module, x, **{self.padding.name: mask.bool() if self.padding.boolean else mask}
            )
        kwargs = {**self.feed.fixed(x.shape[0])}
        if mask is not None:
            kwargs[self.padding.name] = self.padding.taken(mask)
        if self.targets is not None:
            kwargs[self.targets] = x
        if mode.weights and self.weight_flag:
            kwargs[self.weight_flag] = True
        kwargs.update({k: v for k, v in extra.items() if v is not None})
        if self.hugging and "use_cache" not in kwargs and "use_cache" in self.parameters:
            kwargs["use_cache"] = False
        stream = self.parameters.get(self.feed.stream)
        if stream is not None and stream.kind is not inspect.Parameter.POSITIONAL_ONLY:
            return handed(self.module, **{self.feed.stream: x}, **kwargs)
        return handed(self.module, x, **kwargs)

    def run(self, x: Tensor, mask: Tensor | None = None, **options) -> Tensor:
        """The output as (B, T, F). ``mask`` (B, T) is 1 at real positions."""
        return self.read(self.raw(x, mask, **options), x)

    def stepped(self, chunk: Tensor, cache) -> tuple[Any, Any]:
        """The caller's ``step``."""
        with theirs():
            made = handed(self.step, self.module, chunk, cache)
        if not isinstance(made, tuple | list) or len(made) != 2:
            raise Refused(TypeError(f"step expects to return (output, cache), got {type(made).__name__}"))
        return made[0], made[1]

    def row(self, x: Tensor, segments: Tensor) -> Tensor:
        """The caller's ``packed``: one row of several documents → (1, T, F)."""
        self.deadline()
        if self.snapshot is not None:
            self.snapshot.restore()
        with self.in_mode(BASE):
            with theirs():
                raw = handed(self.packed, self.module, x, segments)
            return self.read(raw, x)

    # -- reading ----------------------------------------------------------------------------------------------------
    def picked(self, raw: Any) -> Tensor:
        """The tensor to watch."""
        if self.options.output is not None:
            with theirs():
                out = handed(self.options.output, raw)
        else:
            try:
                out = primary(raw)
            except TypeError as error:  # it returned no tensor
                raise Refused(error) from error
        return out.to_padded_tensor(0.0) if out.is_nested else out

    def read(self, raw: Any, x: Tensor) -> Tensor:
        """Any output → (B, T, F); F gathers the rest. A pooled output (B, F) becomes (B, 1, F)."""
        out = self.picked(raw)
        timed = self.feed.positional and x.ndim > self.feed.time
        b, t = x.shape[0], x.shape[self.feed.time] if timed else -1
        return laid_out(out, self.layout or layout_of(tuple(out.shape), b, t), b)

    def last_only(self, raw: Any, x: Tensor) -> bool:
        """Did it answer for the last position only, and can it be made to answer for all by giving it targets?"""
        out = self.picked(raw)
        name = next((n for n in TARGET_ARGUMENTS if n in self.parameters), None)
        alone = self.feed.positional and out.ndim == 3 and out.shape[1] == 1 < x.shape[self.feed.time]
        if self.forward is not None or name is None or not alone or self.feed.alphabet is None:
            return False
        self.targets = name
        self.notes.append(f"without {name} it answers for the last position only, so it is given {name}")
        return True

    def settle(self, raw: Any, x: Tensor) -> None:
        """Fix the output's layout from a run at lengths that can be told apart."""
        shape = tuple(self.picked(raw).shape)
        self.layout = layout_of(shape, x.shape[0], x.shape[self.feed.time] if self.feed.positional else -1)
        if self.layout not in ("plain", "pooled"):
            self.notes.append(f"the output {shape} was read as {WORDS.get(self.layout, 'time on ' + self.layout)}")
