"""What a person has chosen: read from addresses that anybody wrote, and reset when it means nothing any more."""

import ast
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from headwise.pages._heads.choices import HeadsChoices
from headwise.pages._masks.choices import MasksChoices
from headwise.pages._shared.choices import LONGEST, Choices, InputChoices
from tests.browser.serving import ROOT

PAGES = sorted((ROOT / "pages").rglob("*.py"))
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import streamlit as st
from headwise.pages._heads.choices import state
state.restore(text="a text")
if st.button("model"):
    state.another_model()
if st.button("input"):
    state.another_input()
if st.button("positions"):
    state.other_positions()
st.text(repr((state.layer, state.stack, state.compare, state.written, state.zoom, state.pin, state.scale, state.model)))
st.text(str(state.publish(text="a text")))
"""
VIEW = {
    "layer": "2",
    "stack": "cross",
    "compare": "tiny-vit",
    "written": "5-9",
    "zoom": "1-4-0-3",
    "pin": "key-3",
    "scale": "log",
    "model": "tiny-vit",
}
OPENED = (2, "cross", "tiny-vit", (5, 9), (1, 4, 0, 3), {"axis": "key", "index": 3}, "log", "tiny-vit")


def opened(**view: str) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)))
    for name, value in view.items():
        test.query_params[name] = value
    return test.run()


def shown(test: AppTest) -> tuple:
    assert not test.exception, test.exception
    return ast.literal_eval(test.text[0].value)


def test_a_copied_link_opens_the_same_view_and_is_written_again():
    test = opened(**VIEW)
    assert shown(test) == OPENED
    assert test.query_params == VIEW


@pytest.mark.parametrize(
    ("button", "kept"),
    [
        ("positions", (2, "cross", "tiny-vit", (5, 9), None, None, "log", "tiny-vit")),
        ("input", (2, "cross", "tiny-vit", (), None, None, "log", "tiny-vit")),
        ("model", (-1, "", "", (), None, None, "log", "tiny-vit")),
    ],
)
def test_each_reset_ends_what_means_nothing_any_more(button, kept):
    test = opened(**VIEW)
    next(b for b in test.button if b.label == button).click().run()
    assert shown(test) == kept


def test_a_reset_reaches_the_choices_of_other_pages():
    assert {HeadsChoices, MasksChoices, InputChoices} <= set(Choices.known)
    test = AppTest.from_string(
        SCRIPT.format(root=str(ROOT)) + "\nfrom headwise.pages._masks.choices import state as masks\n"
        "st.text(masks.mask_layer)\n"
    )
    test.session_state["mask_layer"] = "decoder layer 2"
    test.run()
    assert test.text[2].value == "decoder layer 2"
    test.button[0].click().run()
    assert test.text[2].value == ""


def test_a_long_text_stays_out_of_the_address():
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)))
    test.session_state["second"] = "x" * (LONGEST + 1)
    test.session_state["scale"] = "log"
    test.run()
    assert test.text[1].value == "False" and test.query_params == {"scale": "log"}


@pytest.mark.parametrize(
    ("choice", "text", "value"),
    [
        (HeadsChoices.temperature, "nan", 1.0),
        (HeadsChoices.temperature, "9", 2.0),
        (HeadsChoices.top_k, "-3", 0),
        (HeadsChoices.top_k, "3.5", 0),
        (HeadsChoices.seed, "9" * 30, 2**31 - 1),
        (HeadsChoices.layer, "-7", 0),
        (HeadsChoices.scale, "cubic", "linear"),
        (HeadsChoices.words, "yes", False),
        (HeadsChoices.words, "1", True),
        (HeadsChoices.zoom, "1-2-3", None),
        (HeadsChoices.zoom, "1-2-3-4", (1, 2, 3, 4)),
        (HeadsChoices.pin, "row-1", None),
        (HeadsChoices.pin, "query-x", None),
        (HeadsChoices.pin, "query-4", {"axis": "query", "index": 4}),
        (InputChoices.written, "5-x-2", ()),
        (InputChoices.written, "-".join(["7"] * 999), (7,) * 512),
        (InputChoices.written, "5" * 5_000, ()),  # more digits than Python reads
        (MasksChoices.section, "cellar", "look"),
    ],
)
def test_an_address_that_anybody_wrote(choice, text, value):
    assert choice.parse(text, choice.default) == value


def test_every_choice_is_written_as_it_is_read():
    example = {"written": (3, 4), "zoom": (0, 5, 1, 6), "pin": {"axis": "key", "index": 2}}
    for page in Choices.known:
        for choice in page.each():
            value = example.get(choice.key, choice.among[-1] if choice.among else choice.default)
            if choice.link and value != -1:
                assert choice.parse(choice.write(value), choice.default) == value, choice.key


def names_in(file: Path) -> set[str]:
    """Attributes and names that the code says; prose does not count."""
    tree = ast.walk(ast.parse(file.read_text("utf-8")))
    return {n.attr if isinstance(n, ast.Attribute) else n.id for n in tree if isinstance(n, ast.Attribute | ast.Name)}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_session_and_the_address_have_one_owner(file):
    own = file.relative_to(ROOT / "pages").as_posix()
    said = names_in(file)
    if own != "_shared/choices.py":
        assert "session_state" not in said or own == "_shared/canvas.py", "declare a Choice"  # it reads its own event
        assert "query_params" not in said or own == "__init__.py", "only navigate carries an address on"
    assert "query-params" not in file.read_text("utf-8")


@pytest.mark.parametrize("file", sorted((ROOT / "pages").glob("[!_]*.py")), ids=lambda file: file.name)
def test_a_page_is_short(file):
    assert len(file.read_text("utf-8").splitlines()) <= 60


@pytest.mark.parametrize(
    ("page", "view", "bar", "settings"),
    [
        ("heads", {}, True, True),
        ("masks", {"section": "look"}, True, True),
        ("masks", {"section": "lint"}, False, False),
        ("masks", {"section": "zoo"}, False, False),
        ("variants", {"part": "trained"}, False, False),
        ("embeddings", {}, False, True),
    ],
)
def test_a_page_shows_only_what_it_uses(page, view, bar, settings):
    script = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom headwise.pages.{page} import {page}\n{page}()\n"
    test = AppTest.from_string(script, default_timeout=200)
    for name, value in view.items():
        test.query_params[name] = value
    test.run()
    assert not test.exception
    assert any(box.key == "model" for box in test.selectbox) == bar
    assert any(area.key == "text" for area in test.text_area) == bar
    assert any("Where the model runs" in block.proto.popover.help for block in test.get("popover")) == settings
