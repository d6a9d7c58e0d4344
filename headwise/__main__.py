"""The command: ``headwise check | explain | export | app | fetch | train | evaluate``.

Exit status: 0 done or clean, 1 findings or not fetched, 2 usage or load error, with one sentence on stderr.
"""

import argparse
import sys

from headwise.commands import app, check, explain, export, models


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("headwise", description="See every head of any transformer, and trust every mask.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in (app, explain, export, check, models):
        part.add(commands)
    arguments = parser.parse_args(argv)
    return arguments.run(arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
