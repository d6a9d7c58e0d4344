"""The choices of the Stream page."""

from __future__ import annotations

from headwise.interp.drawing.streams import LENS_SHADES, NORM_SHADES
from headwise.pages._shared.choices import MODEL, POSITIONS, AnswerChoices, Choice


class StreamChoices(AnswerChoices):
    """Which answer, and where one looks. ``row`` counts the states of the stream, the one that enters the first block
    is 0; −1 is the last. ``position`` −1 is where the answer is read."""

    stream = Choice("", until=MODEL)
    reading = Choice("lens", among=("lens", "tuned", "norms"))
    shade = Choice("chance", among=tuple(LENS_SHADES))
    measure = Choice("norm", among=tuple(NORM_SHADES))
    row = Choice(-1, between=(-1, None), until=MODEL)
    position = Choice(-1, between=(-1, None), until=POSITIONS)
    asked = Choice(-1, between=(-1, None), until=POSITIONS)  # where the answer is read, −1: where the model gives it
    every = Choice(False)  # each row of a deep model
    parts = Choice("parts", among=("parts", "map", "positions"))


state = StreamChoices()
