"""``headwise explain``: the whole story of one answer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.commands.given import add_input, captured, fail

if TYPE_CHECKING:
    from headwise.interp.drawing.report.story import Story


def add(commands) -> None:
    command = commands.add_parser(
        "explain",
        help="say why a model answers as it does: heads, stream, attributions, patching and paths, in one file",
        description="Run SUBJECT on TEXT, a picture or a recording and tell why it answers as it does: what heads do, "
        "when the answer appears and who says it, which tokens it rests on by several methods and how faithful each "
        "is on this very input, which states carry it, and by which paths. The story goes to the terminal, a sentence "
        "a chapter, and with --html into one file that needs no network.",
    )
    add_input(command)
    command.add_argument("--target", metavar="T", help="the answer that is explained; default what the model says")
    command.add_argument("--against", metavar="A", help="rather than which other answer; default none")
    command.add_argument(
        "--corrupted",
        metavar="TEXT",
        help="a text as long with another answer, for patching and paths; by default one is made of TEXT",
    )
    command.add_argument("--html", metavar="FILE", type=Path, help="where the story is written")
    command.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    if arguments.html is not None and not arguments.html.absolute().parent.is_dir():
        return fail(f"The folder {arguments.html.absolute().parent} does not exist; make it first.")
    try:
        found = _story(arguments)
        _tell(found, arguments.html)
    except (ValueError, ImportError, OSError) as error:  # LoadError and InputError are ValueErrors
        return fail(error)
    return 0


def _story(arguments: argparse.Namespace) -> Story:
    from headwise.interp.analysis.patching.corrupting import corrupted, corruptions, telling
    from headwise.interp.analysis.targets import target  # here, so that --help needs no torch
    from headwise.interp.drawing.report.story import Story

    cap = captured(arguments)
    aim = target(cap, arguments.target, arguments.against)
    raw = arguments.corrupted
    if raw is None and (proposal := telling(cap, corruptions(cap), aim)) is not None:
        raw = proposal.raw
    other = None if raw is None else corrupted(cap, raw)
    return Story(cap, aim, other, _progress if sys.stderr.isatty() else lambda chapter, fraction: None)


def _tell(story: Story, place: Path | None) -> None:
    from headwise.interp.drawing.report.chapters import chapters
    from headwise.interp.drawing.report.story import report

    made = []
    for chapter in chapters(story):
        print(f"{chapter.title}: {chapter.sentence}")
        made.append(chapter)
    if place is not None:
        place.write_text(report(story, made), "utf-8")
        print(f"{place}: {place.stat().st_size:,} bytes")


def _progress(chapter: str, fraction: float) -> None:
    end = "\r" if fraction < 1 else f"\r{' ' * (len(chapter) + 10)}\r"
    print(f"{chapter} … {fraction:.0%}  ", end=end, file=sys.stderr, flush=True)
