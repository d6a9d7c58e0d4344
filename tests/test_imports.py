"""Imports run one way: interp knows neither app nor models, models only the base of interp, pages both."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"interp.masks", "interp.call", "interp.subject"}
LAYERS = (
    "masks",
    "call",
    "tap",
    "subject",
    "capture",
    "metrics",
)  # a module may import those before it; edits lies beside capture
FILES = sorted(f for package in ("interp", "models", "pages", "benchmarks") for f in (ROOT / package).rglob("*.py"))


def imports(file: Path, source: str | None = None) -> set[str]:
    """Dotted names of the modules a file imports anywhere, as far as they can be told without running it."""
    names = set()
    package = file.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(source or file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *filter(None, [node.module])))
            of_package = (ROOT / base.replace(".", "/")).is_dir()
            names |= {f"{base}.{alias.name}" for alias in node.names} if of_package else {base}
    return names


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", [f for f in FILES if f.is_relative_to(ROOT / "interp")], ids=named)
def test_the_engine_knows_no_app(file):
    forbidden = ("streamlit", "pages", "app", *(() if file.name == "__main__.py" else ("models",)))
    assert not [name for name in imports(file) if inside(name, *forbidden)]
    if file.stem in LAYERS and file.parent == ROOT / "interp":
        later = LAYERS[LAYERS.index(file.stem) + 1 :]
        assert not [name for name in imports(file) if inside(name, *(f"interp.{layer}" for layer in later))]


@pytest.mark.parametrize("file", [f for f in FILES if f.is_relative_to(ROOT / "interp")], ids=named)
def test_the_engine_draws_nothing_by_plotly(file):
    assert not [name for name in imports(file) if inside(name, "plotly")]


@pytest.mark.parametrize("file", [f for f in FILES if f.is_relative_to(ROOT / "models")], ids=named)
def test_models_stand_on_the_base_of_the_engine(file):
    assert not [name for name in imports(file) if inside(name, "streamlit", "plotly", "pages", "app")]
    assert not [name for name in imports(file) if inside(name, "interp") and not inside(name, *BASE)]


@pytest.mark.parametrize("file", sorted((ROOT / "pages").glob("[!_]*.py")), ids=named)
def test_a_page_holds_no_torch(file):
    assert not [name for name in imports(file) if inside(name, "torch", "transformers")]


def test_nothing_but_the_app_imports_pages():
    outside = [f for f in FILES if not f.is_relative_to(ROOT / "pages")]
    assert not [named(f) for f in outside if any(inside(name, "pages", "app") for name in imports(f))]


def test_the_parser_sees_every_way_to_import():
    lines = (
        "import streamlit as st",
        "from models import load",
        "def f():",
        " from interp.tap import Tap",
        " from . import masks",
    )
    assert imports(ROOT / "interp" / "new.py", "\n".join(lines)) == {
        "streamlit",
        "models.load",
        "interp.tap",
        "interp.masks",
    }
