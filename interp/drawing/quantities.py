"""What the numbers of a matrix are. Loads no torch: the command's help names the quantities of a head."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("weight", "score", "signed")


@dataclass(frozen=True)
class Quantity:
    """What a number is called, and how numbers become colours.

    ``kind`` "weight": from 0 to the largest, and an alarm where it stands on a forbidden cell · "score": from the least
    to the largest of the allowed cells · "signed": to both sides of 0. ``many``: what several are called · ``no``: what
    0 is called where there are only 0 and 1.
    """

    name: str
    kind: str = "weight"
    many: str = ""
    no: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind expects one of {', '.join(KINDS)}; got {self.kind!r}.")
        object.__setattr__(self, "many", self.many or self.name)

    @property
    def difference(self) -> Quantity:
        """What one of these less another is."""
        return Quantity(f"{self.name} difference", "signed")


SIGNED = Quantity("weight", "signed", many="weights")
QUANTITIES = {  # of a head, by the name of the call's method that computes it
    "weights": Quantity("weight", many="weights"),
    "scores": Quantity("score", "score", many="scores"),
    "value_weighted": Quantity("‖a·v‖"),
}
