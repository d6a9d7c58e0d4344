"""What comparisons can and cannot tell, and where their methods come from."""

from __future__ import annotations

from headwise.pages._shared.about import about_card

ABOUT = (
    (
        "A head that looks elsewhere need not matter: what it says there may be the same, and later parts may not use "
        "it. Patch or remove it to know. And a head that looks at the same place may say something else.",
        [("Jain & Wallace 2019", "https://arxiv.org/abs/1902.10186")],
    ),
    (
        "Patterns are compared as distributions over the positions that both runs have, one more place for all others, "
        "by the Jensen–Shannon divergence: 0 bits is the same, 1 bit nothing in common.",
        [("Lin 1991", "https://doi.org/10.1109/18.61115")],
    ),
    (
        "Heads of two models that were trained apart have no common numbers: matched by pattern, they are those that "
        "look most alike on this one text, and may do different work.",
        [("Kornblith et al. 2019", "https://arxiv.org/abs/1905.00414")],
    ),
)


def about() -> None:
    """The card."""
    about_card(ABOUT)
