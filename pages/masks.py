"""Masks: what a model's masks let through, masks built by hand, a lint for mask tensors, and a zoo of real bugs."""

from __future__ import annotations

from headwise.pages._masks.choices import MasksChoices, state
from headwise.pages._masks.compose import compose
from headwise.pages._masks.lint import lint
from headwise.pages._masks.look import look
from headwise.pages._masks.zoo import zoo
from headwise.pages._shared.bar import FIRST, bar, share
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.defence import page
from headwise.pages._shared.frame import frame


@page
def masks() -> None:
    """The page. Only its first section looks at a model."""
    state.restore(text=FIRST)
    if state.section != "look":
        frame()
        _sections()
        {"compose": compose, "lint": lint, "zoo": zoo}[state.section]()
        state.publish(text=state.text)
        return
    run = bar(state, above=_sections)
    share(run, state)
    look(run)


def _sections() -> None:
    choice("Section", MasksChoices.section)


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
