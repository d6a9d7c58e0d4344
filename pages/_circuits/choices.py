"""The choices of the Circuits page."""

from __future__ import annotations

from headwise.pages._shared.choices import INPUT, LONGEST, MODEL, POSITIONS, AnswerChoices, Choice

KINDS = ("Q", "K", "V")
SHARES = ("60", "80", "90")
MEAN = "mean"  # no other input: what each part says on average over this one


class CircuitsChoices(AnswerChoices):
    """What the run is compared with, and which part is looked at.

    ``corruption`` and ``instead`` are the Patching page's too: the kind of a proposal, "" the first that matters, or
    MEAN; and a text of one's own, before all of them · ``stack``, ``layer`` and ``head`` are the Heads page's too; −1
    is the head that carries most · ``part`` is the key of a part of the graph, "" none.
    """

    corruption = Choice("", until=INPUT)
    instead = Choice("", until=INPUT, longest=LONGEST)
    goal = Choice("80", among=SHARES)  # per cent
    sought = Choice(False, until=MODEL)  # a search that takes long is wanted
    stack = Choice("", until=MODEL)
    layer = Choice(-1, between=(-1, None), until=MODEL)
    head = Choice(-1, between=(-1, None), until=MODEL)
    part = Choice("", until=INPUT)
    kind = Choice("K", among=KINDS)
    wired = Choice(False)  # compositions that take long are wanted
    token = Choice(-1, between=(-1, None), until=POSITIONS)  # from where the head looks, and what it finds there
    through = Choice("run", among=("run", "embedding"))

    def look_at(self, stack: str, layer: int, head: int) -> None:
        """Another head."""
        self.stack, self.layer, self.head, self.part = stack, layer, head, ""

    def take(self, kind: str) -> None:
        """Another proposal, or the mean, instead of a text of one's own."""
        self.corruption, self.instead = kind, ""


state = CircuitsChoices()
