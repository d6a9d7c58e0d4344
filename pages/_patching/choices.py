"""The choices of the Patching page."""

from __future__ import annotations

from headwise.pages._shared.choices import INPUT, LONGEST, MODEL, POSITIONS, AnswerChoices, Choice

DIRECTIONS = ("denoising", "noising")
SHOWN = ("exact", "estimated", "error")
PARTS = ("query", "key", "value")
ANSWER = "answer"


class PatchingChoices(AnswerChoices):
    """The corrupted input, and what is put where. ``corruption`` is the kind of a proposal, "" the first one;
    ``instead`` a text of one's own, before all proposals. ``receiver`` is "answer" or a head as "stack:layer:head", ""
    the head that restores most."""

    corruption = Choice("", until=INPUT)
    instead = Choice("", until=INPUT, longest=LONGEST)
    direction = Choice("denoising", among=DIRECTIONS)
    shown = Choice("exact", among=SHOWN)
    measured = Choice(False, until=INPUT)  # exact patching that takes long is wanted
    spot = Choice("", until=POSITIONS)  # the cell looked at: "kind:row:position"
    placed = Choice(-1, between=(-1, None), until=POSITIONS)  # a position on the page of positions that is shown
    receiver = Choice(ANSWER, until=MODEL)
    receives = Choice("query", among=PARTS)
    traced = Choice(False, until=INPUT)  # paths that take long are wanted

    def take(self, kind: str) -> None:
        """Another proposal, instead of a text of one's own."""
        self.corruption, self.instead, self.spot = kind, "", ""


state = PatchingChoices()
