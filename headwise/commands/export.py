"""``headwise export``: what the app shows, as files."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwise.interp.drawing.quantities import QUANTITIES

if TYPE_CHECKING:
    from headwise.interp.attention.call import AttentionCall
    from headwise.interp.drawing.matrix import Matrix
    from headwise.interp.run.capture import Capture

HEAD = {"stack", "layer", "batch", "head", "quantity", "words"}
FIGURE = HEAD | {"scale", "theme", "view", "query"}
OPTIONS = {  # what each kind of file can be asked for
    ".html": {"stack", "layer", "batch"},
    ".png": FIGURE,
    ".svg": FIGURE,
    ".csv": HEAD,
    ".npz": {"stack", "layer"},
}
TAKES = {"vision": ("--image", "looks at pictures"), "audio": ("--audio", "listens to recordings")}  # others: TEXT
CSV_TOKENS = 2048  # positions a side; a spreadsheet takes no more


def _fail(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def add(commands) -> None:
    command = commands.add_parser(
        "export",
        help="run a model on a text, a picture or a recording, and save a head as a figure or numbers",
        description="Run SUBJECT on TEXT, a picture or a recording and save what its attention did. The ending of "
        "--out decides the format: .png and .svg are a figure of one head, .csv its matrix, .npz the exact weights of "
        "a layer (of all without --layer and --stack), .html BertViz's views of a layer. Figures and matrices of a "
        "recording leave out the silence that it was filled up with.",
    )
    command.add_argument("subject", metavar="SUBJECT", help="a bundled model's name, a folder, or a Hugging Face id")
    command.add_argument("text", metavar="TEXT", nargs="?", help="or one of --image and --audio")
    command.add_argument("--image", metavar="FILE", type=Path, help="a picture: PNG, JPEG, WebP, GIF, BMP or TIFF")
    command.add_argument("--audio", metavar="FILE", type=Path, help="a recording: WAV")
    command.add_argument(
        "--pair",
        metavar="TEXT",
        help="a second text: sentence B, or what an encoder-decoder says, which it else writes itself",
    )
    command.add_argument("--out", metavar="FILE", type=Path, required=True, help=f"ends in {', '.join(OPTIONS)}")
    command.add_argument("--layer", metavar="L", type=int, help="default 0")
    command.add_argument("--head", metavar="H", type=int, help="default 0")
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
    from headwise.interp.analysis.firstlook import first_stack  # here, so that --help needs no torch
    from headwise.interp.drawing import files as export

    cap = _capture(arguments)
    stack, layer, head = arguments.stack or first_stack(cap), arguments.layer or 0, arguments.head or 0
    if stack not in cap.stacks:
        raise ValueError(f"--stack expects one of {', '.join(cap.stacks)}; got {stack!r}.")
    call = cap.find(layer, stack)
    if suffix == ".npz":
        every = arguments.layer is None and arguments.stack is None
        return export.to_npz(cap, None if every else call)
    if suffix == ".html":
        return export.to_html(cap, stack, layer, batch=arguments.batch or 0).encode()
    if not 0 <= head < call.heads:
        raise IndexError(f"Layer {layer} has heads 0 … {call.heads - 1}, got {head}.")
    if suffix == ".csv":
        return _csv(arguments, cap, call)
    look = {"scale": arguments.scale or "linear", "theme": arguments.theme or "light", "stamp": export.stamp(cap)}
    axis = call.key_axis
    pictured = axis.picture is not None and axis is call.query_axis
    if arguments.view == "picture" and not pictured:
        raise ValueError(f"--view picture is for heads that look at a picture; {stack} attention here does not.")
    if arguments.view != "heatmap" and pictured:
        return _over_picture(arguments, cap, call, suffix, look)
    if arguments.query is not None:
        raise ValueError("--query is for the figure over a picture; a heat map shows all queries.")
    write = export.to_png if suffix == ".png" else export.to_svg
    return write(_view(arguments, cap, call, 512), **look)


def _capture(arguments: argparse.Namespace) -> Capture:
    """Run the model on what was given. Raises ValueError where the two do not fit together."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its hints are for programmers
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from headwise.interp.run.capture import capture
    from headwise.models import load, read_image, read_wav

    ways = {"TEXT": arguments.text, "--image": arguments.image, "--audio": arguments.audio}
    given = [way for way, value in ways.items() if value is not None]
    if len(given) != 1:
        told = " and ".join(given) or "none of them"
        raise ValueError(f"export expects exactly one of TEXT, --image and --audio; got {told}.")
    (way,) = given
    if way == "--image" and arguments.pair is not None:
        raise ValueError("--pair goes with TEXT or --audio, not with --image.")
    read = {"--image": read_image, "--audio": read_wav}.get(way)  # before the model, whose loading takes longer
    raw = ways[way] if read is None else read(ways[way])
    subject = load(arguments.subject)
    fitting, does = TAKES.get(subject.family, ("TEXT", "reads text"))
    if way != fitting:
        raise ValueError(f"{subject.name} {does}: give it {fitting}, not {way}.")
    cap = capture(subject, raw if arguments.pair is None else (raw, arguments.pair))
    if not cap.calls:
        raise ValueError(f"{subject.name} ran, but no attention was seen in it.")
    return cap


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
    write = export.picture_png if suffix == ".png" else export.picture_svg
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
