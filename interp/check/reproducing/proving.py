"""Which experiment shows a finding: tried on the model as the script builds it, and the script is run before it is
given away."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import CheckError, DoesNotApply, OutOfTime, Refused
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.options import Options
from headwise.interp.check.report import Finding
from headwise.interp.check.reproducing import contents, decoding, inside, padded, states
from headwise.interp.check.reproducing.building import PUT, Builder, configured
from headwise.interp.check.reproducing.scene import GAP, Scene, Script
from headwise.interp.check.reproducing.sources import Sources
from headwise.interp.check.reproducing.spelling import UNPACKED, Unspelled, tensor
from headwise.interp.check.state import random_streams_kept
from headwise.interp.check.target import BASE, Mode, Target, other_modes
from headwise.interp.check.target.modes import batch_statistics
from headwise.interp.subject import Subject

Experiment = Callable[[Scene], Iterator[Script]]
BY_LETTER: dict[str, tuple[Experiment, ...]] = {  # the probe that found it → experiments that may show it
    "A": (contents.amplified,),
    "W": (contents.content, contents.missing, inside.inside, contents.amplified),
    "N": (states.finite, padded.padded_finite, padded.under_padding, padded.padded_alone, inside.inside),
    "R": (states.twice, states.sizes_in_turn),
    "S": (states.sizes,),
    "G": (states.growth,),
    "T": (states.modes, padded.padded_shape, padded.padded_modes),
    "B": (contents.samples, states.alone, padded.under_padding, padded.padded_alone, padded.padded_finite),
    "C": (decoding.decoding, decoding.second, decoding.padded),
    "K": (padded.documents,),
    "L": (states.loss,),
    "D": (contents.halves,),
}
SMALL = 50_000_000  # parameters up to which the model is built again to try the script


@dataclass(frozen=True, eq=False)
class Checked:
    """What was checked: enough to do it again."""

    model: nn.Module | Subject
    promise: Expectation
    options: Options

    @property
    def module(self) -> nn.Module:
        return self.model.module if isinstance(self.model, Subject) else self.model


@dataclass(frozen=True)
class Origin:
    """How a script gets its model: ``lines`` of ``make``, which leave it in ``model``."""

    says: str
    lines: list[str]
    sources: Sources
    puts: bool = False
    needs: str = ""  # a file beside torch


def reproduced(checked: Checked, finding: Finding, *, model: nn.Module | None = None, factory: str = "") -> str:
    """The script. ``model``: another one to put in its place, such as the repaired one; ``factory``: FILE.py:function
    that makes it. Raises CheckError, one sentence, where there is no script."""
    refused: list[str] = []
    with random_streams_kept():
        for origin in _origins(checked.module, factory, refused):
            try:
                made = _made(origin)
                script = _shown(checked, finding, made, origin)
            except (Unspelled, Refused, DoesNotApply, OutOfTime) as why:
                refused.append(str(why))
                continue
            if script is None:
                refused += origin.sources.missing or ["no experiment of two runs shows it"]
                continue
            if model is None:
                return _text(checked, finding, script, origin)
            try:
                other = next(_origins(model, "", refused))
            except StopIteration:
                break
            for function in (f for f in _functions(checked.options) if f is not None):
                other.sources.name(function)
            return _text(checked, finding, script, other)
    raise CheckError(f"there is no script for {finding.cls!r}: {'; '.join(dict.fromkeys(refused))}.")


def _functions(options: Options) -> tuple:
    """What of the caller's own a script may call."""
    reset = options.reset if callable(options.reset) else None
    return options.forward, options.step, options.packed, options.output, reset


def _origins(module: nn.Module, factory: str, refused: list[str]) -> Iterator[Origin]:
    """Ways to get the model, the plainest first: its factory, its parts with weights drawn anew, its own weights."""
    if factory:
        yield _by_factory(factory)
        return
    for weights in (False, True):
        try:
            yield _built(module, weights)
        except Unspelled as why:
            refused.append(str(why))


def _by_factory(text: str) -> Origin:
    path, _, name = text.rpartition(":")
    sources = Sources()
    sources.imports["import importlib.util"] = None
    sources.imports["import sys"] = None
    file = Path(path).resolve()
    lines = [
        f"file = {str(file)!r}",
        f"sys.path.insert(0, {str(file.parent)!r})",
        'spec = importlib.util.spec_from_file_location("checked", file)',
        "module = importlib.util.module_from_spec(spec)",
        'sys.modules["checked"] = module',
        "spec.loader.exec_module(module)",
        f"model = module.{name}",
        "model = model if isinstance(model, torch.nn.Module) else model()",
        "model = model[0] if isinstance(model, tuple) else model",
    ]
    return Origin(f"The model that {file.name}:{name} makes.", lines, sources, needs=file.name)


def _built(module: nn.Module, weights: bool) -> Origin:
    sources = Sources()
    hugging = hasattr(module, "config") and hasattr(module, "get_input_embeddings")
    if hugging and type(module).__module__.startswith("transformers."):
        lines, puts = configured(module, sources), False
    else:
        builder = Builder(sources)
        lines = [
            f"model = {builder.of(module, indent=0)}",
            *(line.replace("{model}", "model") for line in builder.after),
        ]
        puts = builder.puts
    if weights:
        loaded = ",\n    ".join(f"{name!r}: {tensor(t)}" for name, t in module.state_dict().items())
        lines.append(f"model.load_state_dict({{\n    {loaded},\n}})")
    says = "The model as it was checked" + ("." if weights else ", its weights drawn anew.")
    return Origin(says, lines, sources, puts)


# -- trying ------------------------------------------------------------------------------------------------------------
def _made(origin: Origin) -> nn.Module:
    """The model as the script gets it."""
    space: dict[str, Any] = {"__name__": "reproduced"}
    exec(compile(_model_text(origin), "<script>", "exec"), space)  # the user's own code, and ours
    return space["make"]()


def _shown(checked: Checked, finding: Finding, module: nn.Module, origin: Origin) -> Script | None:
    """The first experiment whose script fails on the model."""
    options = replace(checked.options, progress=None)
    target = Target(module, options)
    target.module.eval()
    bench = Bench(target, checked.promise)
    scene = Scene(bench, finding)
    scene.sources = origin.sources
    experiments = list(_experiments(finding, _mode(finding, target)))

    def first() -> Script | None:
        for experiment in experiments:
            with contextlib.suppress(Unspelled, Refused, DoesNotApply):
                for script in experiment(scene):
                    if _fails(_text(checked, finding, script, origin)):
                        return script
        return None

    if (script := first()) is not None or target.inner is None:
        return script
    with bench.answering():  # of one output a sequence: the model's own answer
        return first()


def _mode(finding: Finding, target: Target) -> Mode:
    """The mode that a finding happens in."""
    said = finding.mode.split("; ")
    return next((m for m in (BASE, *other_modes(target), *batch_statistics(target)) if str(m) in said), BASE)


def _experiments(finding: Finding, mode: Mode) -> Iterator[Experiment]:
    def in_mode(scene: Scene) -> Iterator[Script]:
        return contents.content(scene, mode)

    def padded_in_mode(scene: Scene) -> Iterator[Script]:
        return padded.under_padding(scene, mode)

    known = BY_LETTER.get(finding.probe, ())
    yield from [in_mode] if finding.probe in "PJ" else []
    yield from [padded_in_mode] if finding.probe == "B" and mode != BASE else []
    yield from known
    yield from [in_mode, padded_in_mode]


def _fails(text: str) -> bool:
    """Does the script show the bug, rather than break down?"""
    space: dict[str, Any] = {"__name__": "reproduced"}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(text, "<script>", "exec"), space)
            space["main"](space["make"]())
    except AssertionError:
        return True
    except Exception:  # it shows nothing
        return False
    return False


# -- writing -----------------------------------------------------------------------------------------------------------
def _text(checked: Checked, finding: Finding, script: Script, origin: Origin) -> str:
    name = type(checked.module).__name__
    head = [f"{name} does not keep {checked.promise}.", "", *textwrap.wrap(finding.sentence, 110)]
    head += [""] if finding.cause or finding.fix else []
    head += textwrap.wrap(f"Cause: {finding.cause} ({finding.sure}).", 110) if finding.cause else []
    head += textwrap.wrap(f"Fix: {finding.fix}.", 110) if finding.fix else []
    needs = f"torch and {origin.needs}" if origin.needs else _packages(origin)
    head += ["", f"Exit status 1 with the bug, 0 without it. Needs {needs}; written with torch {torch.__version__}."]
    docstring = "\n".join(head).replace("\\", "\\\\").replace('"""', "'''")
    body = "\n".join(f"    {line}" if line else "" for line in script.body)
    parts = [
        f'"""{docstring}\n"""\n\nfrom __future__ import annotations',
        _model_text(origin, GAP.strip(), script.functions, f"def main(model):\n{body}"),
        'if __name__ == "__main__":\n    main(make())',
    ]
    return "\n\n\n".join(parts).replace("annotations\n\n\n", "annotations\n\n", 1) + "\n"


def _model_text(origin: Origin, *more: str) -> str:
    """Imports, the classes of the model, and ``make``."""
    sources = origin.sources
    made = "\n".join(f"    {line}" for text in origin.lines for line in text.splitlines())
    make = f'def make():\n    """{origin.says}"""\n    torch.manual_seed(0)\n{made}\n    return model'
    texts = [*([PUT.strip()] if origin.puts else []), *sources.texts, make, *more]
    if any("unpacked(" in text for text in texts):
        sources.imports |= {"import base64": None, "import zlib": None}
        texts.insert(0, UNPACKED.strip())
    if any("copy.deepcopy(" in text for text in texts):
        sources.imports["import copy"] = None
    if any(re.search(r"(?<![\w.])nn\.", text) for text in texts):
        sources.imports["from torch import nn"] = None
    groups: tuple[list[str], list[str]] = ([], [])
    for line in sorted(sources.imports):
        groups[line.split()[1].split(".")[0] not in sys.stdlib_module_names].append(line)
    imports = "\n\n".join("\n".join(group) for group in groups if group)
    return imports + "\n\n\n" + "\n\n\n".join(texts)


def _packages(origin: Origin) -> str:
    """What a script imports beside Python's own."""
    names = {line.split()[1].split(".")[0] for line in origin.sources.imports}
    others = sorted(names - {"torch", *sys.stdlib_module_names})
    return f"torch and {', '.join(others)}" if others else "torch only"
