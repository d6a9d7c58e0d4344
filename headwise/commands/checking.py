"""What ``headwise check`` does: load the user's model, check it, write the report."""

from __future__ import annotations

import argparse
import importlib.util
import re
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from headwise._bridge import withdraw
from headwise.commands.tiny import tiny
from headwise.interp.check import CheckError, Report, check
from headwise.interp.errors import LoadError
from headwise.interp.subject import Subject
from headwise.models import load

BUDGET = 120.0  # seconds
FLAGS = ("expect", "layout", "known_ahead", "padding_mask", "padding", "reset", "length", "budget")  # options of check
RETURNED = ("inputs", "forward", "step", "packed", "output", "positions", "pad_id", "modes", "dtypes")  # those without
OWN_NAME = "headwise_checked_"  # + the file's stem: random.py and types.py must not replace the real ones


def run(arguments: argparse.Namespace) -> int:
    given = [a for a in (arguments.factory, arguments.hf, arguments.hf_config) if a]
    if len(given) != 1:
        return _fail("check expects one of FILE.py:factory, --hf or --hf-config.")
    paths = list(sys.path)
    try:
        with redirect_stdout(sys.stderr):  # what the model prints must not end up in the JSON
            with _limit(arguments.budget or BUDGET):
                model, options = _model(arguments)
            options = _options(options, arguments)
            with _limit(options["budget"]):
                report = _checked(model, options, quiet=arguments.json)
        for path, text in ((arguments.html, report.to_html), (arguments.markdown, report.to_markdown)):
            if path is not None:
                path.write_text(text(), encoding="utf-8")
        if arguments.reproduce is not None:
            _reproduce(report, arguments)
    except (CheckError, OSError) as error:
        return _fail(as_flags(str(error)))
    finally:
        sys.path[:] = paths
    print(report.to_json() if arguments.json else report)
    return _status(report, arguments.allow_untested)


def _status(report: Report, allow_untested: bool) -> int:
    """0 clean, 1 findings, 2 where the promise was not tested to the end, with a sentence why."""
    for probed in report.errors:
        _fail(f"{probed.name}: {probed.detail}.")
    if report.errors:
        return 2
    if not report.tested and not allow_untested:
        untested = "; ".join(f"{p.name}: {p.detail}" for p in report.untested)
        told = as_flags(f"the promise {report.expect} was not tested: {untested}; give inputs= that the model takes.")
        return _fail(f"{told} --allow-untested makes this exit 0.")
    return 1 if report.findings else 0


def _reproduce(report: Report, arguments: argparse.Namespace) -> None:
    """Write the first finding as a script, self-contained where it can be, else by the factory. The report's verdict
    stands also where there is none."""
    for factory in dict.fromkeys(("", arguments.factory or "")):
        try:
            script = report.reproduce(factory=factory)
        except CheckError as error:
            told = error
            continue
        arguments.reproduce.write_text(script, encoding="utf-8")
        return
    print(f"{arguments.reproduce} was not written: {told}", file=sys.stderr)


def _fail(error: object) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def as_flags(text: str) -> str:
    """A sentence for users of the library as one for those of the command: options by their flags, and those that have
    none by what a factory returns.

    >>> as_flags("Net did not finish: raise budget=.")
    'Net did not finish: raise --budget.'
    >>> as_flags("Net raised ValueError: give inputs= that it takes.")
    "Net raised ValueError: give inputs that it takes. The factory gives that: return module, {'inputs': …}."
    """

    def flag(match: re.Match) -> str:
        name, value = match[1], match[2]
        return f"--{name.replace('_', '-')}{'=' if value else ''}" if name in FLAGS else f"{name}{'=' if value else ''}"

    returned = [name for name in RETURNED if re.search(rf"\b{name}=(?!\w)", text)]
    text = re.sub(rf"(?<![\w-])({'|'.join((*FLAGS, *RETURNED))})=(?!\w)(?=(['\"(]?))", flag, text)
    if not returned:
        return text
    them = ", ".join(f"{name!r}: …" for name in returned)
    return f"{text} The factory gives {'them' if len(returned) > 1 else 'that'}: return module, {{{them}}}."


def _options(returned: dict, arguments: argparse.Namespace) -> dict:
    """Keyword arguments of check: those that the factory returned, and the flags, which count more."""
    given = {name: getattr(arguments, name) for name in FLAGS if getattr(arguments, name) is not None}
    if arguments.is_decoder:
        returned = {"expect": "causal", **returned}
    return {"budget": BUDGET, **returned, **given}


def _checked(model, options: dict, quiet: bool) -> Report:
    progress = _progress() if sys.stderr.isatty() and not quiet else None
    try:
        return check(model, progress=progress, **options)
    except CheckError:
        raise
    except Exception as error:  # the exit code must say that no check was made
        if isinstance(error, TypeError) and "unexpected keyword argument" in str(error) and "check()" in str(error):
            raise CheckError(f"the factory's options are no arguments of check: {error}.") from error
        raise CheckError(f"the check of {type(model).__name__} stopped: {type(error).__name__}: {error}.") from error


def _progress() -> Callable[[str, float], None]:
    return lambda name, share: print(f"\r{share:4.0%} {name:<50}", end="\n" if share == 1 else "", file=sys.stderr)


# -- the model --------------------------------------------------------------------------------------------------------
def _model(arguments) -> tuple[Any, dict]:
    """(module or Subject, keyword arguments of check)."""
    if arguments.hf_config:
        return tiny(arguments.hf_config, arguments.is_decoder), {}
    if not arguments.hf:
        return made(arguments.factory)
    try:
        return load(arguments.hf), {}
    except LoadError as error:
        raise CheckError(str(error)) from error


def made(text: str) -> tuple[Any, dict]:
    """FILE.py:factory → (module, options)."""
    path, _, name = text.rpartition(":")
    if not path or not name.isidentifier():
        raise CheckError(f"{text!r} names no factory: write FILE.py:function, such as model.py:make.")
    module = loaded(path)
    factory = getattr(module, name, None)
    if factory is None:
        own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise CheckError(f"{path} has no {name}; it has {', '.join(own) or 'no functions'}.")
    answer = _called(text, factory)
    model, options = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, {})
    if not isinstance(model, nn.Module | Subject) or not isinstance(options, dict):
        raise CheckError(
            f"{text} returned {type(answer).__name__}; it must return an nn.Module, or (module, options dict)."
        )
    return model, options


def _called(text: str, factory):
    """What the factory returns; a module stands for itself."""
    if isinstance(factory, nn.Module | Subject):
        return factory
    if not callable(factory):
        raise CheckError(f"{text} is {type(factory).__name__}, not a function that returns a module.")
    try:
        return factory()
    except CheckError:
        raise
    except TypeError as error:
        raise CheckError(f"{text} raised TypeError: {error}. A factory is called without arguments.") from error
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise CheckError(f"{text} raised {type(error).__name__}: {error}.") from error


def loaded(path: str) -> ModuleType:
    """The user's file as a module under a name of ours. Its folder comes first on the path, as for a script, so that
    ``import models`` in it means the user's own.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckError(f"there is no file {path}.")
    name = OWN_NAME + file.stem
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None:
        raise CheckError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    folder = file.resolve().parent
    sys.path.insert(0, str(folder))
    for room in ("interp", "models"):  # known by that name in a checkout
        if (folder / room).is_dir() or (folder / f"{room}.py").is_file():
            withdraw(room)
    sys.modules[name] = module  # dataclasses and pickles of the file look themselves up here
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, SyntaxError):
            raise CheckError(f"{path}, line {error.lineno}: syntax error: {error.msg}.") from error
        if isinstance(error, CheckError) or not isinstance(error, Exception | SystemExit):
            raise
        raise CheckError(f"{path} could not be imported: {type(error).__name__}: {error}.") from error
    return module


@contextmanager
def _limit(budget: float):
    """Ends a run that hangs: the budget stops the check between runs, an alarm stops one that does not return."""
    if not hasattr(signal, "SIGALRM"):  # Windows: between runs only
        yield
        return
    allowed = 1.5 * budget + 60

    def ring(number, frame):
        raise CheckError(f"the model did not return within {allowed:.0f} s: give a smaller input, or raise --budget.")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, allowed)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
