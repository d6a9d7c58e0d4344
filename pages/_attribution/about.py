"""What attributions and their tests can and cannot tell, and where they come from."""

from __future__ import annotations

from headwise.interp.analysis.attribution import METHODS
from headwise.pages._shared.about import about_card

TESTS = (
    "The test asks whether the answer changes when what a method puts first is taken away, on this input and with what "
    "is put in its place. Inputs with parts taken away are unlike any that the model was trained on, so a change may "
    "come from that; a method that itself takes parts away has an advantage here. A good figure says that the order is "
    "right, not why the model uses these parts.",
    [
        ("DeYoung et al. 2020", "https://arxiv.org/abs/1911.03429"),
        ("Petsiuk et al. 2018", "https://arxiv.org/abs/1806.07421"),
        ("Blücher et al. 2024", "https://arxiv.org/abs/2401.06654"),
    ],
)
SANITY = (
    "The sanity check can fail a map, not prove it.",
    [("Adebayo et al. 2018", "https://arxiv.org/abs/1810.03292")],
)


def about(names: tuple[str, str]) -> None:
    """The card, for these two methods."""
    about_card([*_limits(names), TESTS, SANITY])


def _limits(names: tuple[str, str]):
    for name in dict.fromkeys(names):
        method = METHODS[name]
        yield f"{name[:1].upper()}{name[1:]}: {method.limits}", [method.paper]
