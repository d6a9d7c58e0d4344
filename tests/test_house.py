"""The plan of the house: which room may import which, what is packaged, and that examples of docstrings are true."""

import ast
import doctest
import tomllib
from graphlib import TopologicalSorter
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
    "notebook": ("interp", "assets"),
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
    "anywidget": ("notebook",),
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


LINES, CODE, PARAMETERS = 450, 60, 7
LONGER = {"interp.masks.patterns": "half of it are the drawings in its docstrings"}
WIDER = {
    "pages._shared.choices.__init__": "what a field may say of itself, each by its own keyword",
    "interp.analysis.patching.activations.patch": "what a person may ask, each by its own keyword",
    "interp.analysis.patching.paths.path_patch": "what a person may ask, each by its own keyword",
    "interp.check.check.check": "what a person may tell the check, each by its own keyword",
    "interp.run.tap.sdpa.attention": "the signature is torch's",
    "interp.run.tap.flex.attention": "the signature is torch's",
}


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_budgets(file):
    """Habits, not fences: what passes one says why here."""
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= LINES or dotted(file) in LONGER
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        told = ast.get_docstring(node, clean=False)
        code = node.end_lineno - node.lineno + 1 - (len(told.splitlines()) if told else 0)
        assert code <= CODE, f"{node.name} has {code} lines of code"
        given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        count = len([a for a in given if a not in ("self", "cls")])
        assert count <= PARAMETERS or f"{dotted(file)}.{node.name}" in WIDER, f"{node.name} has {count} parameters"


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_what_is_private_stays_in_its_file(file):
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and inside(node.module, "headwise"):
            assert not [a.name for a in node.names if a.name.startswith("_") and a.name != "__main__"]


@pytest.mark.parametrize(
    "file", [f for f in FILES if not inside(dotted(f), "interp.attention", "interp.run.tap")], ids=dotted
)
def test_nobody_asks_how_a_call_was_seen(file):
    """A call answers for its scores, whichever class they are of."""
    names = {node.attr for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
    assert "form" not in names
    if dotted(file) != "interp.run.edits":  # which takes what a model hides for hidden, as scores do
        assert not [name for name in imports(file) if inside(name, "headwise.interp.attention.scores")]


def test_no_file_imports_itself_round_about():
    """Circles of imports at the heads of files; those inside a function do not run when the file is read."""
    heads = {}
    for file in FILES:
        tree = ast.parse(file.read_text("utf-8"))
        froms = [n for n in tree.body if isinstance(n, ast.ImportFrom) and inside(n.module, "headwise")]
        found = {f"{n.module}.{a.name}" for n in froms for a in n.names} | {n.module for n in froms}
        heads[f"headwise.{dotted(file)}"] = found
    graph = {name: {m for m in found if m in heads and not inside(name, m)} for name, found in heads.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


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
