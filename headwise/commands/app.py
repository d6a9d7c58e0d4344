"""``headwise app``: the browser app."""

from __future__ import annotations

import argparse
import runpy
import signal
import sys
from importlib.util import find_spec
from pathlib import Path


def add(commands) -> None:
    command = commands.add_parser(
        "app",
        help="open the app in the browser",
        description="Start the app; Ctrl-C ends it. Whatever stands after -- goes to `streamlit run`, such as "
        "-- --server.address 0.0.0.0.",
    )
    command.add_argument("--port", type=int, metavar="N", help="where it listens; default 8501, or the next free one")
    command.add_argument("options", nargs="*", metavar="OPTION", help="of streamlit run, after --")
    command.set_defaults(run=run)


def script() -> Path:
    """app.py: in the package where it is installed, at the top of a checkout. It is found, and not run."""
    found = find_spec("headwise.app")
    return Path(found.origin) if found.origin else Path(found.submodule_search_locations[0]) / "app.py"


def run(arguments: argparse.Namespace) -> int:
    """By Streamlit's own command, in this process: only that reads the config.toml beside the script."""
    port = [] if arguments.port is None else ["--server.port", str(arguments.port)]
    signal.signal(signal.SIGINT, lambda *_: sys.exit())  # Ctrl-C is how the app ends, and no failure
    sys.argv = ["streamlit", "run", str(script()), *port, *arguments.options]
    runpy.run_module("streamlit", run_name="__main__")  # ends by SystemExit
    return 0
