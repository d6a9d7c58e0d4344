"""Where weights, examples and the browser's scripts lie, in a checkout and installed."""

from pathlib import Path

ASSETS = Path(__file__).parent
