"""The command on models that are broken in every way a file can be, and the assertions for other people's tests."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headwise import check, testing
from headwise.__main__ import main
from headwise.commands.checking import as_flags, loaded
from headwise.interp.masks import Causal
from headwise.interp.zoo import find
from headwise.interp.zoo.case import Language
from headwise.interp.zoo.padding import Both
from headwise.interp.zoo.shapes import in_documents

ROOT = Path(__file__).parents[2]
MODELS = """
import time
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, masked=True, dropout=0.0, sleep=0.0):
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=dropout, batch_first=True)
        self.masked, self.sleep = masked, sleep
    def forward(self, x):
        if self.sleep:
            print("thinking"); time.sleep(self.sleep)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1]) if self.masked else None
        return self.layer(self.embed(x), src_mask=mask)

class Graph(nn.Linear):
    def forward(self, x, edges, weights): return super().forward(x)

class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.state = nn.LSTM(8, 8, batch_first=True), None
    def forward(self, x):
        fits = self.state is not None and self.state[0].shape[1] == len(x)
        out, self.state = self.lstm(x, self.state if fits else None)
        return out

class Channels(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.conv = nn.Embedding(40, 16), nn.Conv1d(16, 8, 3)
    def forward(self, ids): return self.conv(nn.functional.pad(self.embed(ids).transpose(1, 2), (2, 0)))

class Once(Model):
    def forward(self, x):
        if not torch.equal(x, self.known[:, :x.shape[1]]): raise ValueError("only what I know")
        return super().forward(x)

def once():
    model = Once()
    model.known = torch.randint(0, 40, (3, 7))
    return model, {"inputs": model.known, "modes": "base"}

class Frames(Model):  # (T, B, C): time comes first
    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(6, 16)
    def forward(self, x, ahead=None):
        x = self.enter(x).transpose(0, 1)
        x = x if ahead is None else x + ahead.transpose(0, 1).mean(1, keepdim=True)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.layer(x, src_mask=mask).transpose(0, 1)

class Rows(nn.Module):  # places are counted over the row
    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Embedding(40, 16), nn.Embedding(99, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
    def forward(self, ids, kept=None):
        length = ids.shape[1]
        x = self.embed(ids) + self.place(torch.arange(length))
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        if kept is not None:
            own = torch.eye(length, dtype=torch.bool)
            hidden = ((hidden | ~kept.bool()[:, None]) & ~own).repeat_interleave(4, 0)
        return self.attention(x, x, x, attn_mask=hidden, need_weights=False)[0]

given = {"x": torch.randn(9, 3, 6), "ahead": torch.randn(9, 3, 16)}
frames = lambda: (Frames().eval(), {"inputs": given, "modes": "base"})
rows = lambda: (Rows().eval(), {"modes": "base", "padding": "right"})
right, wrong = lambda: Model(), lambda: Model(masked=False)
dropout, sleepy = lambda: Model(dropout=0.5).train(), lambda: Model(sleep=0.01)
graph, stateful, channels = lambda: Graph(4, 4), Stateful, Channels
encoder = lambda: (Model(masked=False), {"expect": "bidirectional"})
nonsense = lambda: (Model(), {"colour": "red"})
number = lambda: 3
def raises(): raise ValueError("the weights are gone")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "mine.py").write_text(MODELS)
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "fails.py").write_text("import no_such_package_at_all\n")
    return folder


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("mine.py:right", 0, "Model: clean"),
        ("mine.py:wrong", 1, "future-leak: Layer 0 (layer.self_attn) sees the future"),
        ("mine.py:dropout", 0, "the model came in training mode with dropout on"),
        ("mine.py:sleepy", 0, "Model: clean"),
        ("mine.py:stateful", 1, "the module keeps state between calls"),
        ("mine.py:channels", 0, "ids (B, T) → (B, C, T)"),
        ("mine.py:encoder", 0, "Model: clean, promise Bidirectional()"),
    ],
)
def test_reports(folder, capsys, name, code, words):
    assert main(["check", str(folder / name)]) == code
    out = capsys.readouterr().out
    assert words in out and "thinking" not in out


TIME_FIRST = "x: (T, B, C), ahead: (T, B, C) -> (T, B, C)"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["mine.py:frames", "--layout", TIME_FIRST], 1, "promise Causal()"),
        (["mine.py:frames", "--layout", TIME_FIRST, "--known-ahead", "ahead"], 0, ""),
        (["mine.py:rows"], 0, "Rows: clean"),
        (["mine.py:rows", "--padding", "left"], 1, "its positions are counted from the padding"),  # a flag counts more
        (["mine.py:rows", "--padding", "left", "--padding-mask", "kept"], 1, "counted from the padding"),
        (["mine.py:once", "--allow-untested"], 0, "Once: not tested"),
        (["mine.py:right", "--expect", "chunks:4"], 1, "promise Chunks(4)"),
    ],
)  # fmt: skip
def test_flags(folder, capsys, arguments, code, words):
    assert main(["check", str(folder / arguments[0]), *arguments[1:]]) == code
    assert words in capsys.readouterr().out


def test_advice_is_told_and_fails_nothing(folder, capsys):
    (folder / "advised.py").write_text("from mine import Rows\nmake = lambda: (Rows().eval(), {'modes': 'base'})\n")
    page = folder / "advised.html"
    assert main(["check", str(folder / "advised.py:make"), "--html", str(page), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] and [a["class"] for a in data["advice"]] == ["position-ids"] and not data["findings"]
    assert "kept was taken for the padding mask" in data["notes"][0]
    assert "<h2>Advice</h2>" in page.read_text() and "--padding left" in page.read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise budget=, or give a smaller input.", "raise --budget, or give a smaller input."),
        ("expect='wat' is no mask.", "--expect='wat' is no mask."),
        ("known_ahead= names 'x'.", "--known-ahead names 'x'."),
        ("the model raised f(length=3).", "the model raised f(length=3)."),
        ("give inputs=.", "give inputs. The factory gives that: return module, {'inputs': …}."),
    ],
)
def test_a_refusal_names_what_the_command_takes(text, told):
    assert as_flags(text) == told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["broken.py:f"], "broken.py, line 1: syntax error"),
        (["fails.py:f"], "could not be imported: ModuleNotFoundError"),
        (["none.py:f"], "there is no file"),
        (["mine.py:missing"], "has no missing; it has"),
        (["mine.py:raises"], "raised ValueError: the weights are gone"),
        (["mine.py:number"], "returned int; it must return an nn.Module"),
        (["mine.py:graph"], "wants edges, weights besides its input: give inputs as a dict"),
        (["mine.py:graph"], "The factory gives them: return module, {'inputs': …, 'forward': …}"),
        (["mine.py:right", "--layout", "sideways"], "--layout='sideways' is not understood"),
        (["mine.py:right", "--padding-mask", "which"], "--padding-mask names 'which', which is no argument"),
        (["mine.py:right", "--known-ahead", "covariates"], "--known-ahead names 'covariates', which is no input"),
        (["mine.py:right", "--expect", "packed:0,0,1", "--length", "7"], "fixes 3 positions, but the input has 7"),
        (["mine.py:nonsense"], "no arguments of check"),
        (["mine.py:right", "--expect", "sideways"], "is no mask: use causal"),
        (["mine.py"], "names no factory"),
        ([], "expects one of FILE.py:factory, --hf or --hf-config"),
        (["--hf-config", "nothing-like-it"], "unknown model type"),
    ],
)
def test_what_cannot_run_is_one_sentence(folder, capsys, arguments, words):
    arguments = [str(folder / a) if a.startswith(("mine", "broken", "fails", "none")) else a for a in arguments]
    assert main(["check", *arguments]) == 2
    captured = capsys.readouterr()
    assert (
        words in captured.err
        and captured.err.startswith("error: ")
        and captured.err.count("\n") == 1
        and not captured.out
    )


def test_json_is_json_whatever_the_model_prints(folder, tmp_path):
    page = tmp_path / "report.html"
    ran = subprocess.run(
        [sys.executable, "-m", "interp", "check", str(folder / "mine.py:sleepy"), "--json", "--html", str(page)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0 and json.loads(ran.stdout)["ok"] is True
    assert "Clean" in page.read_text()


def test_an_architecture_without_weights(capsys):
    state = torch.get_rng_state()
    assert main(["check", "--hf-config", "bert", "--is-decoder"]) == 0
    assert "BertLMHeadModel: clean, promise Causal()" in capsys.readouterr().out
    assert torch.equal(state, torch.get_rng_state())


def test_a_finding_is_written_as_a_script(folder, tmp_path, capsys):
    script = tmp_path / "bug.py"
    assert main(["check", str(folder / "mine.py:wrong"), "--reproduce", str(script)]) == 1
    ran = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "AssertionError" in ran.stderr, ran.stderr
    assert main(["check", str(folder / "mine.py:right"), "--reproduce", str(tmp_path / "none.py")]) == 0
    assert "none.py was not written: Model has no finding" in capsys.readouterr().err
    assert not (tmp_path / "none.py").exists()


def test_a_script_may_ask_the_factory(folder):
    report = check(loaded(str(folder / "mine.py")).wrong(), "causal")
    text = report.reproduce(factory=f"{folder / 'mine.py'}:wrong")
    assert "spec_from_file_location" in text and "Needs torch and mine.py" in text


def test_help_loads_no_torch():
    code = "import sys; from headwise.__main__ import main\ntry: main(['check', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(int('torch' in sys.modules or 'transformers' in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0 and "FILE.py:factory" in ran.stdout


# -- a verdict cannot lie -------------------------------------------------------------------------------------------
def broken(probe_id, monkeypatch):
    """The named probe crashes in our own code."""

    def crash(bench):
        raise AttributeError("no such attribute")
        yield

    checking = sys.modules["headwise.interp.check.check"]
    probes = tuple(replace(p, run=crash) if p.id == probe_id else p for p in checking.PROBES)
    monkeypatch.setattr(checking, "PROBES", probes)


@pytest.mark.parametrize("probe", ["content", "labels", "precision"])
def test_a_crash_of_ours_is_exit_2_and_named(folder, capsys, monkeypatch, probe):
    broken(probe, monkeypatch)
    assert main(["check", str(folder / "mine.py:right"), "--json"]) == 2
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert data["ok"] is False and [e["id"] for e in data["errors"]] == [probe]
    assert err.startswith("error: ") and err.count("\n") == 1 and "Please report it" in err
    assert "an error of Headwise, not of the model" in err and "AttributeError: no such attribute" in err


def test_a_crash_of_ours_is_exit_2_also_beside_findings(folder, capsys, monkeypatch):
    broken("numbers", monkeypatch)
    assert main(["check", str(folder / "mine.py:wrong")]) == 2
    out, err = capsys.readouterr()
    assert "Model: 1 finding, not all tested" in out and "future-leak" in out and "numbers are finite" in err


def test_a_promise_that_was_not_tested_is_exit_2(folder, capsys):
    assert main(["check", str(folder / "mine.py:once")]) == 2
    out, err = capsys.readouterr()
    assert "Once: not tested" in out
    assert "the promise Causal() was not tested" in err and "the model raised ValueError: only what I know" in err


@pytest.mark.parametrize(
    ("assertion", "probe", "fails"),
    [
        (testing.assert_causal, "content", True),
        (testing.assert_causal, "layers", True),
        (testing.assert_causal, "labels", False),
        (testing.assert_padding_invariant, "padding", True),
        (testing.assert_padding_invariant, "cache", False),
        (lambda m: testing.assert_mask(m, Causal()), "labels", True),
    ],
)
def test_an_assertion_fails_when_what_it_is_about_crashed(monkeypatch, assertion, probe, fails):
    broken(probe, monkeypatch)
    model = Language(Both, Both).eval() if assertion is testing.assert_padding_invariant else Language().eval()
    if not fails:
        assertion(model)
        return
    with pytest.raises(AssertionError, match="could not be checked: an error of Headwise"):
        assertion(model)


# -- hostile folders ------------------------------------------------------------------------------------------------
HOSTILE = """
import copy, pickle, sys
from dataclasses import dataclass
import random as real
import models, interp.mine, utils
from utils import WIDTH
from torch import nn

@dataclass
class Sizes:
    width: int = WIDTH

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.sizes = pickle.loads(pickle.dumps(copy.deepcopy(Sizes())))
        self.embed, self.leave = nn.Embedding(40, self.sizes.width), nn.Linear(self.sizes.width, 40)
    def forward(self, ids):
        import models.late, utils.late
        return self.leave(self.embed(ids) * models.late.SCALE)

def make():
    assert models.WHOSE == interp.mine.WHOSE == utils.WHOSE == "the user's", (models, interp, utils)
    assert isinstance(Sizes(), sys.modules[Sizes.__module__].Sizes) and real.random() < 1
    return Net()
"""


@pytest.fixture
def hostile(tmp_path):
    for package in ("models", "interp", "utils", "pages"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("WHOSE, WIDTH = 'the user\\'s', 8\n")
        (tmp_path / package / "mine.py").write_text("WHOSE = 'the user\\'s'\n")
        (tmp_path / package / "late.py").write_text("SCALE = 1.0\n")
    return tmp_path


@pytest.mark.parametrize("name", ["random.py", "types.py", "models.py", "my-net.py"])
@pytest.mark.parametrize("command", [["-m", "headwise"], ["-m", "interp"]])
def test_a_file_and_its_folder_replace_nothing_and_are_not_replaced(hostile, name, command):
    (hostile / name).write_text(HOSTILE)
    arguments = [*command, "check", str(hostile / name) + ":make", "--json", "--budget", "60"]
    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["verdict"] == "clean"


@pytest.mark.parametrize("name", ["random", "types", "token", "headwise"])
def test_the_real_module_of_that_name_stays(hostile, name):
    (hostile / f"{name}.py").write_text("from torch import nn\nclass Net(nn.Linear): pass\nmake = lambda: Net(4, 4)\n")
    real, path = importlib.import_module(name), list(sys.path)
    module = loaded(str(hostile / f"{name}.py"))
    try:
        assert sys.modules[name] is real and module.__name__ == f"headwise_checked_{name}"
        assert sys.modules[module.Net.__module__] is module and sys.path[0] == str(hostile)
    finally:
        sys.path[:] = path


def test_the_path_is_as_before_afterwards(folder, capsys):
    path = list(sys.path)
    assert main(["check", str(folder / "mine.py:number")]) == 2
    assert sys.path == path
    assert main(["check", str(folder / "fails.py:f")]) == 2
    assert "headwise_checked_fails" not in sys.modules and sys.path == path


# -- assertions for other people's tests ----------------------------------------------------------------------------
ASSERTIONS = (
    ("one token ahead", testing.assert_causal, {}),
    ("window wider by one", lambda m, **o: testing.assert_window(m, 3, **o), {}),
    ("padding mask never arrives", testing.assert_padding_invariant, {}),
    ("tril on one query", testing.assert_cache_parity, {"step": find("tril on one query").options["step"]}),
    (
        "documents not separated",
        testing.assert_packed_isolation,
        {"packed": in_documents, "inputs": find("documents not separated").options["inputs"]},
    ),
)


@pytest.mark.parametrize(("name", "assertion", "options"), ASSERTIONS, ids=[a[0] for a in ASSERTIONS])
def test_assertions_fail_with_a_picture_and_pass_on_the_twin(name, assertion, options):
    case = find(name)
    assertion(case.twin(), **options)
    with pytest.raises(AssertionError, match=case.cls) as failure:
        assertion(case.bug(), **options)
    if case.cls != "cache":
        assert "✗" in str(failure.value) and "⬚" in str(failure.value)


def test_an_assertion_that_could_not_be_checked_fails():
    with pytest.raises(AssertionError, match="no step"):
        testing.assert_cache_parity(find("one token ahead").twin())
