"""Whatever goes wrong inside a page is one sentence, and the log has the rest."""

import ast
import logging

import pytest
from streamlit.runtime.scriptrunner_utils.exceptions import StopException
from streamlit.testing.v1 import AppTest

from headwise.interp.errors import InputError
from headwise.models import load
from headwise.pages._heads import explorer
from headwise.pages._masks import look
from headwise.pages._shared import defence, shelf
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.{page} import {page}
{page}()
"""


def app(page: str = "heads", **state) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT), page=page), default_timeout=240)
    for name, value in state.items():
        test.query_params[name] = value
    return test.run()


def one_sentence(test: AppTest) -> str:
    assert not test.exception, test.exception
    (error,) = test.main.error
    assert test.selectbox(key="model").value  # the sidebar is still there
    return error.value.replace("\\", "")


class Boom(KeyError):
    """Nothing that anybody catches by name."""


def raising(*args, **kwargs):
    raise Boom("a <b>secret</b> key")


@pytest.fixture
def broken(monkeypatch):
    """tiny-encoder, whose module raises when it runs; the text is a new one, so that nothing is on the shelf."""
    subject = load("tiny-encoder")
    monkeypatch.setattr(subject.module, "forward", raising)
    monkeypatch.setattr(shelf, "load", lambda name, **options: subject)
    shelf.server.clear()
    yield subject
    shelf.server.clear()


@pytest.mark.parametrize("page", ["heads", "masks"])
def test_a_model_that_raises_while_it_runs(broken, page, caplog):
    said = one_sentence(app(page, model="tiny-encoder", text="One text."))
    assert "secret" in said and "\n" not in said


@pytest.mark.parametrize("family", [RuntimeError, TypeError, Boom, AssertionError])
def test_a_bug_in_a_fragment(monkeypatch, caplog, family):
    def bug(*args):
        raise family("no such head")

    monkeypatch.setattr(explorer, "grid", bug)
    with caplog.at_level(logging.ERROR):
        said = one_sentence(app())
    assert family.__name__ in said and "no such head" in said and "tests.pages" not in said.split(" in ")[0]
    assert "try another model" in said
    assert any(record.exc_info and record.exc_info[0] is family for record in caplog.records)


def test_a_bug_in_a_fragment_that_reruns_alone(monkeypatch):
    test = app("masks", section="look")
    assert not test.error
    monkeypatch.setattr(look, "followed", raising)
    names = test.selectbox(key="mask_layer").options
    test.selectbox(key="mask_layer").set_value(names[-1]).run()
    assert "Boom" in one_sentence(test)
    monkeypatch.undo()
    test.selectbox(key="mask_layer").set_value(names[0]).run()
    assert not test.error and not test.exception


def test_precise_sentences_stay_as_they_are(monkeypatch):
    def refused(*args):
        raise InputError("This model takes pictures; got a text.")

    monkeypatch.setattr(explorer, "grid", refused)
    assert one_sentence(app()) == "This model takes pictures; got a text."


def test_streamlits_own_signals_pass():
    with pytest.raises(StopException), defence.defended("It"):
        raise StopException


def test_a_message_is_one_line_and_never_markdown():
    try:
        raise ValueError("first\n   second $x$ " + "long " * 200)
    except ValueError as error:
        said = defence.sentence(error, "The page Heads")
    assert "first second" in said and len(said) < 600 and "…" in said
    assert f"in {__name__}" in said


@pytest.mark.parametrize("file", sorted((ROOT / "pages").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_page_and_fragment_is_defended(file):
    tree = ast.parse(file.read_text("utf-8"))
    if file.name != "defence.py":
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "fragment"]
    if file.parent.name == "pages" and file.name != "__init__.py":
        (drawn,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == file.stem]
        assert [ast.unparse(d) for d in drawn.decorator_list] == ["page"]
