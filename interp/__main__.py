"""``python -m interp export`` and ``check``: what the app shows, and whether a model keeps its mask, from the
command line.

Exit status: 0 done or clean, 1 findings, 2 usage or load error, with one sentence on stderr.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from interp.checking.command import add_check

QUANTITIES = ("weights", "scores", "value_weighted")
OPTIONS = {  # what each kind of file can be asked for
    ".html": {"stack", "layer"},
    ".png": {"stack", "layer", "head", "quantity", "words", "scale", "theme"},
    ".svg": {"stack", "layer", "head", "quantity", "words", "scale", "theme"},
    ".csv": {"stack", "layer", "head", "quantity", "words"},
    ".npz": {"stack", "layer"},
}
CSV_TOKENS = 2048  # positions a side; a spreadsheet takes no more


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m interp", description="Headwise: see every head, and trust every mask.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_export(commands)
    add_check(commands, _load)
    arguments = parser.parse_args(argv)
    return arguments.run(arguments)


def _load(name: str):
    from models import load  # here, so that --help needs no torch

    return load(name)


def _fail(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _add_export(commands) -> None:
    command = commands.add_parser(
        "export",
        help="run a model on a text and save a head as a figure or numbers",
        description="Run SUBJECT on TEXT and save what its attention did. The ending of --out decides the "
        "format: .png and .svg are a figure of one head, .csv its matrix, .npz the exact weights of a "
        "layer (of all without --layer), .html BertViz's views of a layer.",
    )
    command.add_argument("subject", metavar="SUBJECT", help="a bundled model's name, a folder, or a Hugging Face id")
    command.add_argument("text", metavar="TEXT")
    command.add_argument(
        "--pair", metavar="TEXT", help="a second text: sentence B, or the target of an encoder-decoder"
    )
    command.add_argument("--out", metavar="FILE", type=Path, required=True, help=f"ends in {', '.join(OPTIONS)}")
    command.add_argument("--layer", metavar="L", type=int, help="default 0")
    command.add_argument("--head", metavar="H", type=int, help="default 0")
    command.add_argument("--stack", metavar="S", help="encoder, decoder or cross; default the model's first")
    command.add_argument("--quantity", choices=QUANTITIES, help="default weights")
    command.add_argument("--words", action="store_const", const=True, help="merge sub-word tokens into words")
    command.add_argument("--scale", choices=("linear", "log"), help="of the colours; default linear")
    command.add_argument("--theme", choices=("light", "dark"), help="default light")
    command.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    suffix = arguments.out.suffix.lower()
    if suffix not in OPTIONS:
        return _fail(f"--out expects a file that ends in {', '.join(OPTIONS)}; got {arguments.out.name!r}.")
    known = set().union(*OPTIONS.values())
    for name in sorted(known - OPTIONS[suffix]):
        if getattr(arguments, name) is not None:
            fitting = ", ".join(s for s in OPTIONS if name in OPTIONS[s])
            return _fail(f"--{name} does not apply to {suffix}; it is for {fitting}.")
    if not arguments.out.absolute().parent.is_dir():
        return _fail(f"The folder {arguments.out.absolute().parent} does not exist; make it first.")
    try:
        data = _exported(arguments, suffix)
        arguments.out.write_bytes(data)
    except (
        ValueError,
        IndexError,
        ImportError,
        OSError,
    ) as error:  # LoadError and InputError are ValueErrors
        return _fail(error)
    print(f"{arguments.out}: {len(data):,} bytes")
    return 0


def _exported(arguments: argparse.Namespace, suffix: str) -> bytes:
    from interp import capture, export  # here, so that --help needs no torch
    from interp.view import head_view
    from models import load

    subject = load(arguments.subject)
    cap = capture(subject, arguments.text if arguments.pair is None else (arguments.text, arguments.pair))
    if not cap.calls:
        raise ValueError(f"{subject.name} ran, but no attention was seen in it.")
    stack, layer, head = arguments.stack or cap.stacks[0], arguments.layer or 0, arguments.head or 0
    if stack not in cap.stacks:
        raise ValueError(f"--stack expects one of {', '.join(cap.stacks)}; got {stack!r}.")
    call = cap.find(layer, stack)
    if suffix == ".npz":
        every = arguments.layer is None and arguments.stack is None
        return export.to_npz(cap, None if every else call)
    if suffix == ".html":
        return export.to_html(cap, stack, layer).encode()
    if not 0 <= head < call.heads:
        raise IndexError(f"Layer {layer} has heads 0 … {call.heads - 1}, got {head}.")
    quantity, words = arguments.quantity or "weights", bool(arguments.words)
    if suffix == ".csv":
        if (tokens := max(call.queries, call.keys)) > CSV_TOKENS:
            raise ValueError(f"A CSV holds up to {CSV_TOKENS:,} tokens; this text has {tokens:,}. Use .npz.")
        return export.to_csv(head_view(cap, call, head, quantity, words=words, size=CSV_TOKENS))
    view = head_view(cap, call, head, quantity, words=words)
    title = f"{subject.name} · {f'{stack} · ' if len(cap.stacks) > 1 else ''}layer {layer} · head {head}"
    write = export.to_png if suffix == ".png" else export.to_svg
    scale, theme = arguments.scale or "linear", arguments.theme or "light"
    return write(view, title, scale, theme, quantity=quantity, stamp=export.stamp(cap))


if __name__ == "__main__":
    sys.exit(main())
