"""Every bug of the zoo as a script: in an interpreter without us it fails with the bug, and not with the twin."""

import ast
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from headwise import check
from headwise.interp.check import CheckError
from headwise.interp.check.reproducing.building import Builder
from headwise.interp.check.reproducing.sources import Sources
from headwise.interp.check.reproducing.spelling import Unspelled, index, literal, spoken, tensor
from headwise.interp.masks import Causal
from headwise.interp.zoo import CASES, find

RUN_ALL = """
import contextlib, io, json, runpy, sys
sys.modules["headwise"] = None  # may not be imported
ends = {}
for file in sys.argv[1:]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(file, run_name="__main__")
        ends[file] = "0"
    except BaseException as error:
        ends[file] = f"{type(error).__name__}: {error}"
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """(name, "bug" | "twin") → how its script ended, all in one interpreter without us."""
    folder, files, told = tmp_path_factory.mktemp("scripts"), {}, {}
    for i, case in enumerate(CASES):
        report = check(case.bug(), **case.options)
        for kind, model in (("bug", None), ("twin", case.twin())):
            file = files[case.name, kind] = str(folder / f"{i}_{kind}.py")
            try:
                Path(file).write_text(report.reproduce(model=model), encoding="utf-8")
            except CheckError as error:
                told[file] = f"no script: {error}"
    written = [file for file in files.values() if file not in told]
    command = [sys.executable, "-I", "-W", "ignore", "-c", RUN_ALL, *written]
    told |= json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout)
    return {key: told[file] for key, file in files.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_script_fails_with_the_bug_and_not_without(case, ends):
    assert ends[case.name, "bug"].startswith("AssertionError"), ends[case.name, "bug"]
    assert ends[case.name, "twin"] == "0", ends[case.name, "twin"]


class Ahead(nn.Module):
    """Reads one frame ahead."""

    def __init__(self, shift=-1):
        super().__init__()
        self.enter, self.leave, self.shift = nn.Linear(6, 8), nn.Linear(8, 6), shift

    def forward(self, x):
        return self.leave(self.enter(x).roll(self.shift, 1))


def test_it_exits_with_one_and_needs_no_package_of_ours(tmp_path):
    text = check(Ahead(), Causal()).reproduce()
    assert "headwise" not in text
    file = tmp_path / "bug.py"
    file.write_text(text, encoding="utf-8")
    ran = subprocess.run([sys.executable, "-I", str(file)], capture_output=True, text=True)
    assert ran.returncode == 1 and "AssertionError" in ran.stderr, ran.stderr
    assert "moved by" in ran.stdout


def test_the_script_names_the_promise_the_place_and_the_cause():
    report = check(find("zeros and ones added").bug(), Causal())
    told = ast.get_docstring(ast.parse(report.reproduce()))
    assert "Causal()" in told and "blocks.1.attention" in told and report.findings[0].cause in told.replace("\n", " ")


def test_functions_of_the_caller_go_along():
    report = check(Ahead(), Causal(), forward=lambda model, x: model(x) * 2, output=first)
    text = report.reproduce()
    assert "lambda model, x: model(x) * 2" in text and "def first(" in text


def first(out):
    return out[..., :1]


def test_trained_weights_are_packed_where_others_do_not_show_the_bug():
    class Switched(Ahead):
        def forward(self, x):
            return super().forward(x) if float(self.enter.weight.detach().mean()) == 0.5 else self.leave(self.enter(x))

    model = Switched()
    nn.init.constant_(model.enter.weight, 0.5)
    text = check(model, Causal()).reproduce()
    assert "load_state_dict" in text and text.count("torch.full((8, 6), 0.5") == 1


def test_a_clean_report_has_nothing_to_reproduce():
    with pytest.raises(CheckError, match="no finding"):
        check(nn.Linear(6, 6), Causal()).reproduce()
    with pytest.raises(CheckError, match="there is no finding 7"):
        check(Ahead(), Causal()).reproduce(7)


def test_what_cannot_be_written_down_is_refused_in_one_sentence():
    model = Ahead()
    model.register_forward_hook(lambda module, given, out: out)
    with pytest.raises(CheckError, match=r"there is no script for .*hooks"):
        check(model, Causal()).reproduce()


# -- the parts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "t",
    [
        torch.ones(2, 3, dtype=torch.long),
        torch.ones(4, 4, dtype=torch.bool).tril(),
        torch.arange(7),
        torch.tensor([[0.5, -torch.inf], [torch.nan, 1e-8]]),
        torch.randn(40, 30, dtype=torch.float64),
        torch.randn(3, 2).to(torch.bfloat16),
        torch.zeros(3),
        torch.tensor(3),
    ],
    ids=lambda t: f"{tuple(t.shape)} {t.dtype}",
)
def test_a_tensor_as_text_is_the_tensor(t):
    from headwise.interp.check.reproducing.spelling import UNPACKED

    space = {"torch": torch, "base64": __import__("base64"), "zlib": __import__("zlib")}
    exec(UNPACKED, space)
    made = eval(tensor(t), space)
    assert made.dtype == t.dtype and made.shape == t.shape
    assert torch.equal(made.nan_to_num(-7.0), t.nan_to_num(-7.0))


def test_places_are_said_and_indexed_as_a_person_would():
    assert (index(range(4), 4), index([0, 1], 4), index([1, 3], 4)) == (":", ":2", "[1, 3]")
    assert (spoken([2], "input"), spoken([2, 3], "input"), spoken([1, 4], "input")) == (
        "input 2",
        "inputs 2…3",
        "inputs 1 and 4",
    )
    with pytest.raises(Unspelled):
        literal(object())


OFFSET = 3


def uses(x, OFFSET=1):  # an argument of that name is its own
    return x + OFFSET


def calls(x):
    return uses(x) + OFFSET


def test_sources_bring_what_they_use_and_keep_names_apart():
    def made(offset):
        def calls(x):  # another function of the same name, with a closure
            return x * offset

        return calls

    sources = Sources()
    names = [sources.name(f) for f in (calls, made(5), calls, partial(uses, OFFSET=7))]
    assert names[0] == names[2] == "calls" and names[1] == "calls_2"
    space = {}
    exec("\n".join([*sources.imports, *sources.texts]), space)
    assert space["calls"](1) == 5 and space["calls_2"](2) == 10
    assert eval(names[3], space)(1) == 8


def test_a_module_is_built_again_with_its_ties():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight
            self.rnn = nn.GRU(4, 4, batch_first=True, num_layers=2)
            self.register_buffer("mask", torch.ones(3, 3).tril(), persistent=False)
            self.scale = nn.Parameter(torch.randn(5))

    sources = Sources()
    builder = Builder(sources)
    text = builder.of(Tied())
    assert "nn.GRU(4, 4, num_layers=2, batch_first=True)" in text and "nn.Embedding(7, 4)" in text
    assert "torch.ones(3, 3).tril(), persistent=False" in text and "nn.Parameter(torch.randn(5)" in text
    assert builder.after == ["{model}.head.weight = {model}.embed.weight"]
