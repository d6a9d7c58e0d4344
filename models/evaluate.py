"""Measure a bundled model on held-out data: `python -m models.evaluate tiny-encoder`.

Prints the data with its sha256, the seed, the model's figures and those of a simple baseline on the same data.
"""

import argparse

from .recipes import RECIPES, recipe_of


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m models.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--seed", type=int, default=1000, help="of whatever is drawn at random; default 1000")
    options = parser.parse_args(arguments)
    print(recipe_of(options.name).report(options.seed))


if __name__ == "__main__":
    main()
