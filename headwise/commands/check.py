"""``headwise check``: the check from the command line, for a script or a continuous build.

Exit status: 0 clean, 1 findings, 2 it could not run or not be tested to the end, with one sentence on stderr.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands) -> None:
    command = commands.add_parser(
        "check",
        help="find out whether a model keeps its mask",
        description="Run a model on changed inputs and see whether its outputs depend on "
        "what its mask forbids. FILE.py:factory names a function "
        "that returns an nn.Module, or (module, options), options being "
        "keyword arguments of headwise.check. The file's code is run.",
    )
    command.add_argument("factory", metavar="FILE.py:factory", nargs="?")
    command.add_argument(
        "--hf", metavar="ORG/NAME|FOLDER", help="a Hugging Face model, or a bundled one, in place of a file"
    )
    command.add_argument(
        "--hf-config", metavar="KIND", help="a tiny random model of an architecture, such as bert or llama; no weights"
    )
    command.add_argument(
        "--is-decoder", action="store_true", help="with --hf-config: set is_decoder, and expect a causal mask"
    )
    command.add_argument(
        "--expect",
        metavar="MASK",
        help="causal, bidirectional, window:8, prefix:4, packed:0,0,1, or an expression like 'Causal() & Window(7, 0)'",
    )
    command.add_argument("--json", action="store_true", help="print the report as JSON and nothing else")
    command.add_argument("--html", metavar="FILE", type=Path, help="write the report as one page")
    command.add_argument("--markdown", metavar="FILE", type=Path, help="write the report as Markdown")
    command.add_argument(
        "--reproduce",
        metavar="FILE",
        type=Path,
        help="write the first finding as a script that needs torch only and exits 1 with the bug, 0 without it",
    )
    command.add_argument("--budget", metavar="SECONDS", type=float, default=120.0, help="default 120")
    command.add_argument("--length", metavar="T", type=int, help="length of the random inputs")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from headwise.commands.checking import run  # here, so that --help needs no torch

    return run(arguments)
