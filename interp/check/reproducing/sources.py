"""The source of classes and functions with all that it uses, in an order in which it can be run."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import sysconfig
import textwrap
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.check.reproducing.spelling import Unspelled, literal, tensor

OURS = "headwise"  # never imported by a script: it must run without us
STANDARD = Path(sysconfig.get_paths()["stdlib"])
NAMESPACES = {"torch": torch, "F": F, "nn": nn, "torch.nn.init": nn.init}


class Sources:
    """Texts and import lines of a script, gathered by asking for the name of one object after another."""

    def __init__(self):
        self.imports: dict[str, None] = {"import torch": None}
        self.texts: list[str] = []
        self.missing: list[str] = []  # why a name that a source uses is not there
        self._names: dict[int, tuple[str, Any]] = {}  # id → (its name in the script, the object itself)
        self._taken: dict[str, int] = {}

    def name(self, thing: Any) -> str:
        """An expression that is ``thing`` in the script. Raises Unspelled."""
        if id(thing) in self._names:
            return self._names[id(thing)][0]
        if isinstance(thing, partial):
            given = [self.value(a) for a in thing.args] + [f"{k}={self.value(v)}" for k, v in thing.keywords.items()]
            self.imports["from functools import partial"] = None
            return f"partial({', '.join([self.name(thing.func), *given])})"
        if isinstance(thing, BuiltinFunctionType) or not is_theirs(thing):
            return self._installed(thing)
        if not isinstance(thing, type | FunctionType):
            raise Unspelled(f"{type(thing).__name__} is no class and no function")
        return self._embedded(thing)

    def value(self, value: Any) -> str:
        """An expression for any value that is no module."""
        if isinstance(value, Tensor):
            return tensor(value)
        if isinstance(value, type | FunctionType | BuiltinFunctionType | partial):
            return self.name(value)
        if type(value) in (list, tuple):
            inner = ", ".join(map(self.value, value))
            return f"[{inner}]" if type(value) is list else f"({inner}{',' if len(value) == 1 else ''})"
        if type(value) is dict:
            return "{" + ", ".join(f"{self.value(k)}: {self.value(v)}" for k, v in value.items()) + "}"
        return literal(value)

    # -- what is installed --------------------------------------------------------------------------------------------
    def _installed(self, thing) -> str:
        name = getattr(thing, "__name__", "")
        if getattr(builtins, name, None) is thing:
            return name
        for alias, space in NAMESPACES.items():
            if getattr(space, name, None) is thing:
                self.imports[_import(space, alias)] = None
                return f"{alias}.{name}"
        module = sys.modules.get(getattr(thing, "__module__", None) or "")
        if module is None or getattr(module, name, None) is not thing:
            raise Unspelled(f"{name or thing!r} cannot be imported by name")
        self.imports[f"from {module.__name__} import {name}"] = None
        return name

    # -- what is not --------------------------------------------------------------------------------------------------
    def _embedded(self, thing: type | FunctionType) -> str:
        name = self._free(thing)
        self._names[id(thing)] = (name, thing)
        source, tree = _source(thing)
        renamed: list[tuple[ast.Name, str]] = []
        known: dict[str, str | None] = {}
        for node in _names(tree):
            if node.id not in known:
                try:
                    known[node.id] = self._resolved(thing, node.id)
                except Unspelled as why:  # it may not be needed: a module is not made by its __init__
                    known[node.id] = None
                    self.missing.append(str(why))
            if known[node.id] not in (None, node.id):
                renamed.append((node, known[node.id]))
        text = _replaced(source, renamed)
        if isinstance(tree, ast.Lambda):
            text = f"{name} = {text}"
        elif name != thing.__name__:
            word = "class" if isinstance(thing, type) else "def"
            text = text.replace(f"{word} {thing.__name__}", f"{word} {name}", 1)
        self.texts.append(text)
        return name

    def _resolved(self, user, name: str) -> str | None:
        """What a name in the source of ``user`` is called in the script; None where it is its own or a builtin."""
        found, value = _looked_up(user, name)
        if not found:
            return None
        if isinstance(value, ModuleType):
            if value.__name__.split(".")[0] == OURS:
                raise Unspelled(f"{name} is a module of {OURS}")
            self.imports[_import(value, name)] = None
            return name
        if isinstance(value, type | FunctionType | BuiltinFunctionType | partial):
            return self._imported_as(value, name) or self.name(value)
        if getattr(value, "__module__", None) == "typing" or type(value).__module__ == "typing":
            self.imports[f"from typing import {name}"] = None
            return name
        return self._constant(name, value)

    def _imported_as(self, value, name: str) -> str | None:
        """``from package import name``, where that is what the source says."""
        module = sys.modules.get(getattr(value, "__module__", None) or "")
        if is_theirs(value) or module is None or getattr(builtins, name, None) is value:
            return None
        if getattr(module, getattr(value, "__name__", ""), None) is not value:
            return None
        own = value.__name__
        self.imports[f"from {module.__name__} import {own}" + (f" as {name}" if own != name else "")] = None
        return name

    def _constant(self, name: str, value) -> str:
        if id(value) in self._names and self._names[id(value)][0] == name:
            return name
        text = self.value(value)
        free = self._free(value, name)
        self._names[id(value)] = (free, value)
        self.texts.append(f"{free} = {text}")
        return free

    def _free(self, thing, name: str | None = None) -> str:
        """Its own name, numbered where another thing has it."""
        name = name or thing.__name__
        name = "function" if name == "<lambda>" else name
        free, n = name, 2
        while self._taken.get(free, id(thing)) != id(thing):
            free, n = f"{name}_{n}", n + 1
        self._taken[free] = id(thing)
        return free


def is_theirs(thing: Any) -> bool:
    """Is it written in a file or a notebook of the user's, or in ours, rather than installed?"""
    module = getattr(thing, "__module__", None) or ""
    if module.split(".")[0] == OURS:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or (file is None and module not in sys.builtin_module_names):
        return module not in ("builtins", "")
    path = Path(file) if file else STANDARD
    return not ({"site-packages", "dist-packages"} & set(path.parts) or path.is_relative_to(STANDARD))


def _source(thing) -> tuple[str, ast.AST]:
    """(text, its tree). Raises Unspelled where there is none, as for what was typed into an interpreter."""
    try:
        text = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError) as error:
        raise Unspelled(f"the source of {thing.__name__} was not found") from error
    if getattr(thing, "__name__", "") == "<lambda>":
        return _lambda(thing)
    return text, ast.parse(text).body[0]


def _lambda(thing: FunctionType) -> tuple[str, ast.Lambda]:
    """The one lambda of its line with the same code."""
    lines, _ = inspect.findsource(thing)
    whole = "".join(lines)
    for node in ast.walk(ast.parse(whole)):
        if isinstance(node, ast.Lambda) and node.lineno == thing.__code__.co_firstlineno:
            text = ast.get_source_segment(whole, node)
            made = compile(f"({text})", "", "eval").co_consts
            if any(getattr(c, "co_code", None) == thing.__code__.co_code for c in made):
                return text, ast.parse(text, mode="eval").body
    raise Unspelled("the source of a lambda was not found")


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SCOPES = (*FUNCTIONS, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _names(tree: ast.AST, bound: frozenset[str] = frozenset()) -> list[ast.Name]:
    """Names that a source reads and does not make itself; those in annotations aside, which are not evaluated."""
    if isinstance(tree, ast.Name):
        return [] if tree.id in bound or not isinstance(tree.ctx, ast.Load) else [tree]
    inner = bound | _made(tree) if isinstance(tree, SCOPES) else bound
    found = []
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns"):
            continue
        outside = field in ("decorator_list", "args") and isinstance(tree, FUNCTIONS)  # defaults are outside, too
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                found += _names(child, bound if outside else inner)
    return found


def _made(scope: ast.AST) -> frozenset[str]:
    """Names that a function or a comprehension binds: its arguments, and what it stores."""
    nodes = list(ast.walk(scope))
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    stored |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    stored |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef) and n is not scope}
    return frozenset(stored)


def _looked_up(user, name: str) -> tuple[bool, Any]:
    """(is it known outside the source?, its value): by a closure, or as a global of the module."""
    functions = [user] if isinstance(user, FunctionType) else [_bare(v) for v in vars(user).values()]
    for function in (f for f in functions if isinstance(f, FunctionType)):
        free = function.__code__.co_freevars
        if name in free and name != "__class__":
            try:
                return True, function.__closure__[free.index(name)].cell_contents
            except ValueError:  # not filled yet
                return False, None
    space = user.__globals__ if isinstance(user, FunctionType) else vars(sys.modules[user.__module__])
    if name in space:
        return True, space[name]
    return _enclosing(user, name)


def _enclosing(user, name: str) -> tuple[bool, Any]:
    """A base of a class made inside a function is known by the class alone."""
    for base in getattr(user, "__mro__", ())[1:]:
        if base.__name__ == name:
            return True, base
    return False, None


def _bare(value):
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return value.fget if isinstance(value, property) else value


def _replaced(text: str, renamed: list[tuple[ast.Name, str]]) -> str:
    """The text with some names at their places replaced, from the last to the first."""
    lines = text.splitlines()
    for node, name in sorted(renamed, key=lambda r: (r[0].lineno, r[0].col_offset), reverse=True):
        line = lines[node.lineno - 1].encode()
        end = node.col_offset + len(node.id.encode())
        lines[node.lineno - 1] = (line[: node.col_offset] + name.encode() + line[end:]).decode()
    return "\n".join(lines)


def _import(module: ModuleType, name: str) -> str:
    path, _, last = module.__name__.rpartition(".")
    if module.__name__ == name:
        return f"import {name}"
    return f"from {path} import {last}" if last == name and path else f"import {module.__name__} as {name}"
