"""``headwise app``: the browser app."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path


def add(commands) -> None:
    command = commands.add_parser(
        "app",
        help="open the app in the browser",
        description="Start the app. Whatever stands after -- goes to `streamlit run`, such as -- --server.port 8080.",
    )
    command.add_argument("options", nargs="*", metavar="OPTION", help="of streamlit run, after --")
    command.set_defaults(run=run)


def script() -> Path:
    """app.py: in the package where it is installed, at the top of a checkout."""
    installed = find_spec("headwise.app")
    folders = [*(installed.submodule_search_locations or ())] if installed else []
    beside = [Path(folder) / "app.py" for folder in folders] + [Path(__file__).parents[2] / "app.py"]
    return next(file for file in beside if file.is_file())


def run(arguments: argparse.Namespace) -> int:
    """By Streamlit's own command: only that reads the config.toml beside the script."""
    command = [sys.executable, "-m", "streamlit", "run", str(script()), *arguments.options]
    try:
        return subprocess.call(command, env={**os.environ})
    except KeyboardInterrupt:
        return 130
