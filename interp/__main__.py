"""``python -m interp``, from a checkout: the command by its old name."""

import sys

from headwise.__main__ import main

sys.exit(main())
