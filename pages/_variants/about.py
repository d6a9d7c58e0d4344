"""What this page can and cannot tell."""

from __future__ import annotations

from headwise.pages._shared.about import about_card

PARAGRAPHS = (
    (
        "The queries, keys and values are those of this model, which was trained with its own attention. So the page "
        "shows what a mechanism would see and miss of this head, not what a model trained with it would do: that one "
        "would have learned other queries and keys.",
        (),
    ),
    (
        "A small error of one head does not add up to a small error of the model, and a head that looks far is hit "
        "harder by a window than one that looks at its neighbours. Surveys order the mechanisms by what they keep.",
        (("Tay et al. 2022", "https://arxiv.org/abs/2009.06732"),),
    ),
)


def about() -> None:
    """Draw the card."""
    about_card(PARAGRAPHS)
