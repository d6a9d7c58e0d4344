"""What a command is given to run a model on: a text, a picture or a recording."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwise.interp.run.capture import Capture
    from headwise.interp.subject import Subject

TAKES = {"vision": ("--image", "looks at pictures"), "audio": ("--audio", "listens to recordings")}  # others: TEXT


def add_input(command: argparse.ArgumentParser) -> None:
    """SUBJECT, and one of TEXT, --image and --audio."""
    command.add_argument("subject", metavar="SUBJECT", help="a bundled model's name, a folder, or a Hugging Face id")
    command.add_argument("text", metavar="TEXT", nargs="?", help="or one of --image and --audio")
    command.add_argument("--image", metavar="FILE", type=Path, help="a picture: PNG, JPEG, WebP, GIF, BMP or TIFF")
    command.add_argument("--audio", metavar="FILE", type=Path, help="a recording: WAV")
    command.add_argument(
        "--pair",
        metavar="TEXT",
        help="a second text: sentence B, or what an encoder-decoder says, which it else writes itself",
    )


def fail(error: object) -> int:
    """Say what went wrong; the exit status of that."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def captured(arguments: argparse.Namespace) -> Capture:
    """Run the model on what was given. Raises ValueError where the two do not fit together."""
    from headwise.interp.run.capture import capture  # here, so that --help needs no torch

    subject, raw = loaded(arguments)
    cap = capture(subject, raw)
    if not cap.calls:
        raise ValueError(f"{subject.name} ran, but no attention was seen in it.")
    return cap


def loaded(arguments: argparse.Namespace) -> tuple[Subject, Any]:
    """The model, and what it is given. Raises ValueError as above."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its hints are for programmers
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from headwise.models import load, read_image, read_wav

    ways = {"TEXT": arguments.text, "--image": arguments.image, "--audio": arguments.audio}
    given = [way for way, value in ways.items() if value is not None]
    if len(given) != 1:
        told = " and ".join(given) or "none of them"
        raise ValueError(f"{arguments.command} expects exactly one of TEXT, --image and --audio; got {told}.")
    (way,) = given
    if way == "--image" and arguments.pair is not None:
        raise ValueError("--pair goes with TEXT or --audio, not with --image.")
    read = {"--image": read_image, "--audio": read_wav}.get(way)  # before the model, whose loading takes longer
    raw = ways[way] if read is None else read(ways[way])
    subject = load(arguments.subject)
    fitting, does = TAKES.get(subject.family, ("TEXT", "reads text"))
    if way != fitting:
        raise ValueError(f"{subject.name} {does}: give it {fitting}, not {way}.")
    return subject, raw if arguments.pair is None else (raw, arguments.pair)
