"""The whole story of one answer: what heads do, when it appears and who says it, what it rests on and how far that can
be believed, which states carry it, and by which paths.

    story = Story(cap, target(cap, "Mary", "John"), corrupted=capture(subject, "When Alice and …"))
    Path("report.html").write_text(report(story, chapters(story)), "utf-8")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import streams
from headwise.interp.drawing.files import stamp, stamp_parts
from headwise.interp.drawing.report.page import Chapter, page
from headwise.interp.run.capture import Capture


@dataclass(frozen=True, eq=False)
class Story:
    """What is told. ``corrupted``: a run of an input like it in which the answer is another, for the chapters on states
    and paths. ``progress`` is told the chapter and the fraction of it that is done."""

    cap: Capture
    aim: Target
    corrupted: Capture | None = None
    progress: Callable[[str, float], None] = lambda chapter, fraction: None


def report(story: Story, told: Iterable[Chapter]) -> str:
    """The story, of these chapters, as one HTML file."""
    cap = story.cap
    prompt = next((axis.text for axis in cap.axes.values() if axis.text), "")
    title = f"{cap.subject.name}: {streams.question(story.aim)}"
    value = f"{story.aim} is {streams.signed_number(story.aim.value(cap))} here ({story.aim.measure})."
    return page(title, value, prompt, told, " · ".join(stamp_parts(stamp(cap))))
