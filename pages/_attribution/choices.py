"""The choices of the Attribution page."""

from __future__ import annotations

from headwise.pages._shared.choices import MODEL, AnswerChoices, Choice


class AttributionChoices(AnswerChoices):
    """Which two methods stand side by side, and what stands in for what is taken away; "" is the usual one."""

    method = Choice("AttnLRP")
    compared = Choice("", until=MODEL)
    baseline = Choice("", until=MODEL)
    checked = Choice(False)  # are the weights randomised?
    tested = Choice(False)  # are all methods tested?


state = AttributionChoices()
