"""A promise: what an attention may see, and who says so. Without a source there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from headwise.interp.masks import And, Bidirectional, Causal, Mask

MEDIA = re.compile(r"(^|[._])(vision|visual|image|audio|speech|acoustic|video)", re.IGNORECASE)  # in a module's path


@dataclass(frozen=True)
class Promise:
    """``mask``: what may be seen, None where nobody says. ``source``: who says so, for people to read.

    >>> from headwise.interp.masks import Window
    >>> print(Promise(Causal(), "you said: decoder").narrowed(Window(3, 0)))
    Causal() & Window(3, 0) (you said: decoder)
    >>> print(Promise(None, "nothing says").narrowed(Window(3, 3)))
    Window(3, 3) (nothing says)
    >>> print(Promise(Causal(), "you said: decoder").narrowed(Causal() & Window(3, 0)))
    Causal() & Window(3, 0) (you said: decoder)
    """

    mask: Mask | None
    source: str

    def narrowed(self, given: Mask, padding: Mask | None = None) -> Promise:
        """The same promise within the mask a run was given and without its padding keys. What is not claimed stays
        as it was given, so that nothing of it can be called a leak."""
        mask = given if self.mask is None or self.mask == Bidirectional() or self.mask in _joined(given) else self.mask
        if given not in (mask, Bidirectional()):
            mask = mask & given
        return replace(self, mask=mask if padding is None else mask & padding)

    def __str__(self) -> str:
        return f"{'unknown' if self.mask is None else repr(self.mask)} ({self.source})"


def _joined(mask: Mask) -> tuple[Mask, ...]:
    """The masks whose & it is."""
    return (*_joined(mask.left), *_joined(mask.right)) if isinstance(mask, And) else (mask,)


UNKNOWN = Promise(None, "nothing says")


@dataclass(frozen=True)
class Said:
    """What a person said of a model: a mask for all its self-attention, or the kind it is of."""

    mask: Mask | None = None
    kind: str = ""
    source: str = "you said"

    def about(self, stack: str) -> Promise:
        """What a kind promises of one stack. Towers that read pictures or sound have no part in it."""
        first, source = stack.split(".")[0], f"{self.source}: {self.kind}"
        tower = bool(MEDIA.match(stack)) or first.startswith("enc")
        match self.kind:
            case "decoder":
                return UNKNOWN if tower else Promise(Causal(), source)
            case "encoder-decoder" | "audio" if first.startswith("dec"):
                return Promise(Causal(), source)
            case "encoder" | "vision" | "encoder-decoder" | "audio":
                return Promise(Bidirectional(), source)
        return UNKNOWN


NOTHING = Said()
