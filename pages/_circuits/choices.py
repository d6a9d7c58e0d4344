"""The choices of the Circuits page."""

from __future__ import annotations

from headwise.pages._shared.choices import INPUT, LONGEST, MODEL, POSITIONS, AnswerChoices, Choice

KINDS = ("Q", "K", "V")
SHARES = ("60", "80", "90")


class CircuitsChoices(AnswerChoices):
    """What the run is compared with, and which part is looked at. ``stack``, ``layer`` and ``head`` are the Heads
    page's too; −1 is the head that carries most. ``mlp`` is another part of the graph, "" none."""

    beside = Choice("", until=MODEL, longest=LONGEST)  # the corrupted input, "" is the mean over the input
    goal = Choice("80", among=SHARES)  # per cent
    sought = Choice(False, until=MODEL)  # a search that takes long is wanted
    stack = Choice("", until=MODEL)
    layer = Choice(-1, between=(-1, None), until=MODEL)
    head = Choice(-1, between=(-1, None), until=MODEL)
    mlp = Choice("", until=INPUT)
    kind = Choice("K", among=KINDS)
    wired = Choice(False)  # compositions that take long are wanted
    token = Choice(-1, between=(-1, None), until=POSITIONS)  # from where the head looks, and what it finds there
    through = Choice("run", among=("run", "embedding"))

    def look_at(self, stack: str, layer: int, head: int) -> None:
        """Another head."""
        self.stack, self.layer, self.head, self.mlp = stack, layer, head, ""


state = CircuitsChoices()
