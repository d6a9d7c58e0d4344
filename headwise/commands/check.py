"""``headwise check``: the check from the command line, for a script or a continuous build.

Exit status: 0 clean, 1 findings, 2 it could not run or not be tested to the end, with one sentence on stderr.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HINTS = (  # options of check that are a word: (flag, its value, what it says)
    ("--layout", "LAYOUT", "where samples (B), time (T) and features stand, as in einops: '(T, B, C) -> (T, B, V)'"),
    ("--padding-mask", "NAME", "the argument that says what is padding; found by what it does where this is left out"),
    ("--reset", "NAME", "the method that begins a new sequence, of a model that keeps its cache to itself"),
)
EPILOG = """\
What no flag can say the factory does: it may return (module, options), these being keyword arguments of headwise.check,
  return module, {"inputs": torch.randn(3, 40, 6)}                      tensors that the model takes, a dict of several
  return module, {"forward": lambda model, x, attention_mask=None: …}   how to call it
  return module, {"step": lambda model, x, cache: …}                    how to decode with it: (output, cache)
and packed, output, positions, pad_id, modes and dtypes; help(headwise.check) tells of them all. A flag outranks them.

Exit status: 0 clean, also with advice; 1 findings; 2 it could not run, or the promise was not tested to the end.
"""


def add(commands) -> None:
    command = commands.add_parser(
        "check",
        help="find out whether a model keeps its mask",
        description="Run a model on changed inputs and see whether its outputs depend on "
        "what its mask forbids. FILE.py:factory names a function "
        "that returns an nn.Module, or (module, options), options being "
        "keyword arguments of headwise.check. The file's code is run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        help="causal, bidirectional, window:8, prefix:4, chunks:8, windows2d:7,7,3, packed:0,0,1, or an expression "
        "like 'Causal() & Window(7, 0)'",
    )
    for flag, value, says in HINTS:
        command.add_argument(flag, metavar=value, help=says)
    command.add_argument(
        "--known-ahead",
        metavar="NAME",
        action="append",
        help="an input that may be seen ahead; may be said several times",
    )
    command.add_argument(
        "--padding", choices=("left", "right"), help="the side on which the model is padded in use; both are tried else"
    )
    command.add_argument("--allow-untested", action="store_true", help="exit 0 where the promise could not be tested")
    command.add_argument("--json", action="store_true", help="print the report as JSON and nothing else")
    command.add_argument("--html", metavar="FILE", type=Path, help="write the report as one page")
    command.add_argument("--markdown", metavar="FILE", type=Path, help="write the report as Markdown")
    command.add_argument(
        "--reproduce",
        metavar="FILE",
        type=Path,
        help="write the first finding as a script that needs torch only and exits 1 with the bug, 0 without it",
    )
    command.add_argument("--budget", metavar="SECONDS", type=float, help="default 120")
    command.add_argument("--length", metavar="T", type=int, help="length of the random inputs")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from headwise.commands.checking import run  # here, so that --help needs no torch

    return run(arguments)
