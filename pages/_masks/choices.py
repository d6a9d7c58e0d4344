"""The choices of the Masks page."""

from __future__ import annotations

from headwise.interp.masks import Bidirectional, Causal
from headwise.pages._shared.choices import MODEL, Choice, Each, InputChoices

CHOSEN = {"as given": None, "causal": Causal(), "bidirectional": Bidirectional()}  # where nobody says
PATTERNS = ("causal", "bidirectional", "prefix", "window only")
TAKEN = ("read it off", "sdpa", "mha", "additive", "hf")  # by whom a pasted mask is taken
PROMISES = ("anything", "causal", "bidirectional")
EXAMPLE = "1 0 0 0\n1 1 0 0\n1 1 1 0\n1 1 1 1"


class MasksChoices(InputChoices):
    """Which part of the page is open, and what stands in it."""

    section = Choice("look", among=("look", "compose", "lint", "zoo"))

    mask_layer = Choice("", link=False, until=MODEL)
    mask_promise = Choice("as given", among=tuple(CHOSEN), link=False, until=MODEL)
    changed = Choice(None, link=False)  # the token, by its place

    compose_length = Choice(24, link=False)
    compose_layers = Choice(1, link=False)
    compose_pattern = Choice("causal", among=PATTERNS, link=False)
    compose_prefix = Choice(4, link=False)
    compose_window = Choice(False, link=False)
    compose_left = Choice(3, link=False)
    compose_right = Choice(0, link=False)
    compose_strided = Choice(False, link=False)
    compose_stride = Choice(4, link=False)
    compose_packed = Choice(False, link=False)
    compose_cut = Choice(12, link=False)
    compose_blocks = Choice(False, link=False)
    compose_block = Choice(4, link=False)
    compose_chunks = Choice(False, link=False)
    compose_chunk = Choice(4, link=False)
    compose_chunks_left = Choice(0, link=False)
    compose_windows2d = Choice(False, link=False)
    compose_columns = Choice(6, link=False)
    compose_side = Choice(2, link=False)
    compose_shift = Choice(0, link=False)
    compose_global = Choice(False, link=False)
    compose_globals = Choice(1, link=False)
    compose_padding = Choice(False, link=False)
    compose_real = Choice(20, link=False)

    lint_text = Choice(EXAMPLE, link=False)
    lint_convention = Choice("read it off", among=TAKEN, link=False)
    lint_expect = Choice("anything", among=PROMISES, link=False)

    zoo_class = Choice("", link=False)
    zoo_bug = Each("", key="zoo_{}")  # by class
    zoo_fixed = Choice("bug", among=("bug", "fix"), link=False)


state = MasksChoices()
