"""A score as sound: plain tones that fade, a voice each, for listening to what a model wrote."""

from __future__ import annotations

import numpy as np

from headwise.interp.attention.axes import Score

RATE = 22_050  # samples a second
PARTIALS = ((1, 1.0), (2, 0.42), (3, 0.2), (4, 0.1), (5, 0.05))  # an organ's, more or less: multiple, strength
ATTACK, RELEASE, FADE = 0.012, 0.06, 1.6  # seconds; and how fast a held note grows softer
LOUD = 0.8  # of the loudest sample


def played(score: Score, first: int = 0) -> np.ndarray:
    """The notes from position ``first`` on → samples (N,) float32 at RATE, in −1 … 1. Notes of one eighth
    begin together; one that began before ``first`` is heard from there."""
    end = int(score.notes[:, 1].max(initial=first))
    whole = np.zeros(round((max(0, end - first) * score.seconds + RELEASE) * RATE) + 1)
    for begin, stop, pitch, _ in score.notes:
        if stop <= first:
            continue
        start = round(max(0, begin - first) * score.seconds * RATE)
        tone = _tone(440.0 * 2 ** ((pitch - 69) / 12), (stop - max(begin, first)) * score.seconds)
        part = whole[start : start + len(tone)]
        part += tone[: len(part)]
    return (whole * (LOUD / max(1e-9, np.abs(whole).max()))).astype(np.float32)


def _tone(frequency: float, seconds: float) -> np.ndarray:
    """One note, and how it dies away."""
    time = np.arange(round((seconds + RELEASE) * RATE)) / RATE
    wave = sum(
        strength * np.sin(2 * np.pi * frequency * multiple * time)
        for multiple, strength in PARTIALS
        if frequency * multiple < RATE / 2
    )
    shape = np.minimum(1, time / ATTACK) * np.exp(-time / FADE) * np.clip((seconds + RELEASE - time) / RELEASE, 0, 1)
    return wave * shape
