"""The plan of the house: which room may import which, what is packaged, and that examples of docstrings are true."""

import ast
import doctest
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import headwise

ROOT = Path(__file__).parents[1]

ENGINE = ("interp.masks", "interp.attention", "interp.subject")
ROOMS = {  # room → what it may import beside itself and the errors; a room's own rooms are named apart
    "assets": (),
    "interp.errors": (),
    "interp.masks": (),
    "interp.attention": ("interp.masks",),
    "interp.subject": ("interp.masks", "interp.attention"),
    "interp.zoo": ("interp.masks",),
    "interp.run": ENGINE,
    "interp.analysis": (*ENGINE, "interp.run"),
    "interp.check": (*ENGINE, "interp.run"),
    "interp.drawing": (*ENGINE, "interp.run", "interp.analysis", "assets"),
    "models": (*ENGINE, "assets", "_bridge"),
    "models.recipes": (*ENGINE, "interp.run", "interp.analysis", "models", "assets"),
    "pages": ("headwise", "interp", "models", "assets"),
    "commands": ("headwise", "interp", "models", "_bridge"),
    "testing": ("interp.masks", "interp.check"),
    "__init__": ("interp", "models"),  # the face
    "__main__": ("commands",),
    "_bridge": ("headwise",),
    "interp": ("_bridge",),
    "interp.__main__": ("__main__",),
}
FILES = sorted(f for room in ("headwise", "interp", "models", "pages", "assets") for f in (ROOT / room).rglob("*.py"))
LIBRARIES = {  # a library → the rooms that may import it
    "streamlit": ("pages",),
    "plotly": ("pages",),
    "transformers": ("models", "interp.check", "commands"),
}


def dotted(file: Path) -> str:
    """ "interp/run/capture.py" → "interp.run.capture", "interp/run/__init__.py" → "interp.run"."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "headwise" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(file: Path, source: str | None = None) -> set[str]:
    """Dotted names of the modules that a file imports anywhere, as far as they can be told without running it."""
    names = set()
    for node in ast.walk(ast.parse(source or file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "an import of ours begins with headwise"
            parts = node.module.split(".")
            package = ROOT.joinpath(*(parts[1:] if len(parts) > 1 else parts))
            whole = parts[0] == "headwise" and package.is_dir()
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if whole else {node.module}
    return names


def inside(name: str, *places: str) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def room_of(name: str) -> str:
    return max((room for room in ROOMS if inside(name, room)), key=len)


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_a_room_imports_only_lower_rooms(file):
    room = room_of(dotted(file))
    for name in imports(file):
        assert not inside(name, "interp", "models", "pages", "assets", "app", "tests"), f"{name}: begin with headwise"
        if not inside(name, "headwise"):
            continue
        own = name.removeprefix("headwise").lstrip(".") or "headwise"
        if own.split(".")[0] in headwise.__all__:  # a name of the face
            own = "headwise"
        allowed = (*ROOMS[room], room, "interp.errors")
        assert inside(own, *allowed) or (own == "headwise" and "headwise" in allowed), f"{room} may not import {name}"


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_libraries_stay_in_their_rooms(file):
    for library, rooms in LIBRARIES.items():
        if any(inside(name, library) for name in imports(file)):
            assert inside(dotted(file), *rooms), f"{library} is for {', '.join(rooms)}"


@pytest.mark.parametrize("file", [f for f in FILES if inside(dotted(f), "pages")], ids=dotted)
def test_a_page_holds_no_torch(file):
    assert not [name for name in imports(file) if inside(name, "torch", "transformers")]


@pytest.mark.parametrize("file", [f for f in FILES if inside(dotted(f), "pages")], ids=dotted)
def test_a_page_knows_its_own_parts_and_the_shared_ones(file):
    if dotted(file) == "pages":
        return
    page = dotted(file).split(".")[1].strip("_")
    for name in imports(file):
        if inside(name, "headwise.pages"):
            assert inside(name, "headwise.pages._shared", f"headwise.pages._{page}", "headwise.pages.navigate"), name


@pytest.mark.parametrize("file", sorted((ROOT / "pages").glob("[!_]*.py")), ids=dotted)
def test_a_page_is_safe_as_a_first_address(file):
    """Until somebody opened app.py, Streamlit runs a page's file itself; it must then do what app.py does."""
    last = ast.parse(file.read_text("utf-8")).body[-1]
    assert ast.unparse(last) == "if __name__ == '__main__':\n    from headwise.pages import navigate\n    navigate()"


def test_every_package_is_packaged():
    packaged = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"])
    found = {f"headwise.{dotted(f)}" for f in FILES if f.name == "__init__.py"} - {"headwise.__init__"}
    assert packaged == found | {"headwise", "headwise.app"}


def test_the_wheel_accepts_what_a_checkout_pins():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pinned = [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]
    assert {r for r in project if not r.startswith("torch")} == {r for r in pinned if not r.startswith("torch")}


MODULES = [dotted(f) for f in FILES if inside(dotted(f), "interp", "models", "testing") and f.stem != "__main__"]


@pytest.mark.parametrize("name", ["headwise", *(f"headwise.{module}" for module in MODULES)])
def test_examples_of_docstrings(name):
    failed, _ = doctest.testmod(import_module(name))
    assert not failed
