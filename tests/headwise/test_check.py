"""The command on models that are broken in every way a file can be, and the assertions for other people's tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from headwise import testing
from headwise.__main__ import main
from headwise.interp.zoo import find
from headwise.interp.zoo.shapes import in_documents

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
        ("mine.py:channels", 0, "was read as time on axis 2"),
        ("mine.py:encoder", 0, "Model: clean, promise Bidirectional()"),
    ],
)
def test_reports(folder, capsys, name, code, words):
    assert main(["check", str(folder / name)]) == code
    out = capsys.readouterr().out
    assert words in out and "thinking" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["broken.py:f"], "broken.py, line 1: syntax error"),
        (["fails.py:f"], "could not be imported: ModuleNotFoundError"),
        (["none.py:f"], "there is no file"),
        (["mine.py:missing"], "has no missing; it has"),
        (["mine.py:raises"], "raised ValueError: the weights are gone"),
        (["mine.py:number"], "returned int; it must return an nn.Module"),
        (["mine.py:graph"], "Graph.forward wants edges, weights besides its input: give inputs="),
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


# -- assertions for other people's tests
# --------------------------------------------------------------------------------
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
