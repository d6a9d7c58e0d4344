"""The choices of the Compare page."""

from __future__ import annotations

from headwise.interp.analysis.comparing.compare import MATCHES
from headwise.interp.drawing.comparing import DRAWN
from headwise.pages._shared import changes
from headwise.pages._shared.choices import LONGEST, MODEL, POSITIONS, AnswerChoices, Choice

WAYS = ("input", "model", "edit")


class CompareChoices(AnswerChoices):
    """What stands beside the run, and which head is looked at. ``compare``, ``edits``, ``how``, ``stack``, ``layer``
    and ``head`` are the Heads page's too; −1 is the head that looks elsewhere most."""

    by = Choice("input", among=WAYS)
    beside = Choice("", until=MODEL, longest=LONGEST)  # the other text, "" is a proposal
    beside_file = Choice("", until=MODEL)  # the other example picture or recording
    proposed = Choice(None, link=False)  # the proposal just taken
    removed = Choice(None, link=False)  # the head just taken: stack, layer, head
    compare = Choice("", until=MODEL)  # the other model, "" is the first that reads the same
    edits = Choice((), read=changes.read, write=changes.write, until=MODEL, left=changes.left)
    how = Choice("mean", among=changes.HOWS)
    match = Choice("number", among=MATCHES)
    stack = Choice("", until=MODEL)
    layer = Choice(-1, between=(-1, None), until=MODEL)
    head = Choice(-1, between=(-1, None), until=MODEL)
    query = Choice(-1, between=(-1, None), until=POSITIONS)  # −1: the one that changed most
    drawn = Choice("change", among=DRAWN)
    groups = Choice(0, between=(0, 9))  # on the map of heads, 0: as many as stand out

    def another_pair(self) -> None:
        """Something else stands beside the run: the first look is its own."""
        self.layer = self.head = self.query = -1
        self.answer = self.against = ""


state = CompareChoices()
