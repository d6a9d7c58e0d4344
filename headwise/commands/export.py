"""``headwise export``: what the app shows, as files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwise.commands.given import add_input, captured, fail
from headwise.interp.drawing.quantities import QUANTITIES

if TYPE_CHECKING:
    from headwise.interp.attention.call import AttentionCall
    from headwise.interp.drawing.matrix import Matrix
    from headwise.interp.run.capture import Capture

HEAD = {"stack", "layer", "batch", "head", "quantity", "words"}
PAPER = {"width", "font", "colours", "top"}
FIGURE = HEAD | PAPER | {"scale", "theme", "view", "query"}
OPTIONS = {  # what each kind of file can be asked for
    ".html": {"stack", "layer", "batch", "head"},
    ".png": FIGURE,
    ".svg": FIGURE,
    ".pdf": FIGURE,
    ".csv": HEAD,
    ".npz": {"stack", "layer", "head"},
}
CSV_TOKENS = 2048  # positions a side; a spreadsheet takes no more


def add(commands) -> None:
    command = commands.add_parser(
        "export",
        help="run a model on a text, a picture or a recording, and save a head as a figure or numbers",
        description="Run SUBJECT on TEXT, a picture or a recording and save what its attention did. The ending of "
        "--out decides the format: .png, .svg and .pdf are a figure of one head, .csv its matrix, .npz the exact "
        "weights of a layer (of all without --layer and --stack, of one head with --head), .html BertViz's views of a "
        "layer, or of one head with --head. Figures and matrices of a "
        "recording leave out the silence that it was filled up with.",
    )
    add_input(command)
    command.add_argument("--out", metavar="FILE", type=Path, required=True, help=f"ends in {', '.join(OPTIONS)}")
    command.add_argument("--layer", metavar="L", type=int, help="default 0")
    command.add_argument("--head", metavar="H", type=int, help="default 0; .npz and .html: default all")
    command.add_argument(
        "--stack", metavar="S", help="encoder, decoder or cross; default cross if there is one, else the model's first"
    )
    command.add_argument(
        "--batch",
        metavar="B",
        type=int,
        help="which sample, or which part where a layer splits its input into windows; default 0",
    )
    command.add_argument("--quantity", choices=tuple(QUANTITIES), help="default weights")
    command.add_argument("--words", action="store_const", const=True, help="merge sub-word tokens into words")
    command.add_argument("--scale", choices=("linear", "log"), help="of the colours; default linear")
    command.add_argument("--theme", choices=("light", "dark"), help="default light")
    command.add_argument(
        "--view", choices=("heatmap", "picture"), help="default picture, where the keys are patches of one"
    )
    command.add_argument(
        "--query",
        metavar="N",
        type=int,
        help="what looks at the picture: a position, special tokens first, then patches row by row; default 0, "
        "which is CLS where there is one",
    )
    paper = command.add_argument_group("for a paper", "of .png, .svg and .pdf")
    paper.add_argument("--width", metavar="CM", type=float, help="of the whole figure; default as wide as it comes")
    paper.add_argument("--font", metavar="PT", type=float, help="size of its labels; default 9")
    paper.add_argument("--colours", choices=("headwise", "grey", "viridis"), help="default headwise")
    paper.add_argument(
        "--top", metavar="VALUE", type=float, help="at the end of the colour scale, so that figures can be compared"
    )
    command.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    suffix = arguments.out.suffix.lower()
    if suffix not in OPTIONS:
        return fail(f"--out expects a file that ends in {', '.join(OPTIONS)}; got {arguments.out.name!r}.")
    known = set().union(*OPTIONS.values())
    for name in sorted(known - OPTIONS[suffix]):
        if getattr(arguments, name) is not None:
            fitting = ", ".join(s for s in OPTIONS if name in OPTIONS[s])
            return fail(f"--{name} does not apply to {suffix}; it is for {fitting}.")
    if not arguments.out.absolute().parent.is_dir():
        return fail(f"The folder {arguments.out.absolute().parent} does not exist; make it first.")
    try:
        data = _exported(arguments, suffix)
        arguments.out.write_bytes(data)
    except (
        ValueError,
        IndexError,
        ImportError,
        OSError,
    ) as error:  # LoadError and InputError are ValueErrors
        return fail(error)
    print(f"{arguments.out}: {len(data):,} bytes")
    return 0


def _exported(arguments: argparse.Namespace, suffix: str) -> bytes:
    from headwise.interp.analysis.firstlook import first_stack  # here, so that --help needs no torch
    from headwise.interp.drawing import files as export

    cap = captured(arguments)
    stack, layer, head = arguments.stack or first_stack(cap), arguments.layer or 0, arguments.head or 0
    if stack not in cap.stacks:
        raise ValueError(f"--stack expects one of {', '.join(cap.stacks)}; got {stack!r}.")
    call = cap.find(layer, stack)
    if suffix == ".npz":
        every = arguments.layer is None and arguments.stack is None and arguments.head is None
        return export.to_npz(cap, None if every else call, arguments.head)
    if suffix == ".html":
        return export.to_html(cap, stack, layer, batch=arguments.batch or 0, head=arguments.head).encode()
    if not 0 <= head < call.heads:
        raise IndexError(f"Layer {layer} has heads 0 … {call.heads - 1}, got {head}.")
    if suffix == ".csv":
        return _csv(arguments, cap, call)
    look = {"scale": arguments.scale or "linear", "theme": arguments.theme or "light", "stamp": export.stamp(cap)}
    asked = {name: getattr(arguments, name) for name in PAPER}
    look["paper"] = export.Paper(**{name: value for name, value in asked.items() if value is not None})
    axis = call.key_axis
    pictured = axis.picture is not None and axis is call.query_axis
    if arguments.view == "picture" and not pictured:
        raise ValueError(f"--view picture is for heads that look at a picture; {stack} attention here does not.")
    if arguments.view != "heatmap" and pictured:
        return _over_picture(arguments, cap, call, suffix, look)
    if arguments.query is not None:
        raise ValueError("--query is for the figure over a picture; a heat map shows all queries.")
    write = {".png": export.to_png, ".svg": export.to_svg, ".pdf": export.to_pdf}[suffix]
    return write(_view(arguments, cap, call, 512), **look)


def _csv(arguments: argparse.Namespace, cap: Capture, call: AttentionCall) -> bytes:
    from headwise.interp.drawing import files as export
    from headwise.interp.drawing.matrix import recorded

    part = recorded(cap, call)
    positions = max(call.queries, call.keys) if part is None else max(part[1], part[3])
    if positions > CSV_TOKENS:
        raise ValueError(f"A CSV holds up to {CSV_TOKENS:,} tokens; this input has {positions:,}. Use .npz.")
    return export.to_csv(_view(arguments, cap, call, CSV_TOKENS))


def _over_picture(
    arguments: argparse.Namespace, cap: Capture, call: AttentionCall, suffix: str, look: dict[str, Any]
) -> bytes:
    """The figure of one query over the picture."""
    from headwise.interp.drawing import files as export

    if arguments.words:
        raise ValueError("--words merges tokens of a text; a picture has none.")
    query = arguments.query or 0
    if not 0 <= query < call.queries:
        raise IndexError(f"--query expects a position 0 … {call.queries - 1}; got {query}.")
    view = _view(arguments, cap, call, call.keys, (query, query + 1, 0, call.keys))
    write = {".png": export.picture_png, ".svg": export.picture_svg, ".pdf": export.picture_pdf}[suffix]
    return write(view, query, **look)


def _view(
    arguments: argparse.Namespace,
    cap: Capture,
    call: AttentionCall,
    size: int,
    region: tuple[int, int, int, int] | None = None,
) -> Matrix:
    from headwise.interp.drawing.matrix import head_view, recorded

    look = {"words": bool(arguments.words), "region": region or recorded(cap, call), "size": size}
    look["batch"] = arguments.batch or 0
    return head_view(cap, call, arguments.head or 0, arguments.quantity or "weights", **look)
