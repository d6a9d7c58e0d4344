"""The Heads page without a browser: what it says for good and for bad input, and that sessions do not mix."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

from headwise import capture
from headwise.interp.drawing.matrix import head_view
from headwise.interp.drawing.survey import survey
from headwise.interp.run.cost import estimate
from headwise.models import load
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.shelf import Server

ROOT = Path(__file__).parents[2]


def app(**state) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for name, value in state.items():
        test.query_params[name] = value
    return test.run()


def again(test: AppTest) -> AppTest:
    """Run once more. AppTest takes an app with a pages/ folder for one of Streamlit's old kind unless it forgets
    the page it was on."""
    test._finished_page_script_hash = ""
    return test.run()


def headline(test: AppTest) -> str:
    return next(h.proto.body for h in test.get("html") if "headline" in h.proto.body and "<b>" in h.proto.body)


def notes(test: AppTest) -> str:
    """What was done to the input."""
    return " ".join(h.proto.body for h in test.get("html") if "'notes'" in h.proto.body)


def sentences(test: AppTest) -> str:
    assert not test.exception, test.exception
    return " ".join(e.value for e in test.error)


def test_first_run_shows_the_bundled_model():
    test = app()
    assert not test.exception and not test.error
    line = headline(test)
    assert "<b>tiny-decoder</b>" in line and "4 layers × 8 heads" in line and "nothing unseen" in line
    test.segmented_control(key="metrics").set_value("table")
    again(test)
    assert len(test.dataframe[0].value) == 32
    assert {"previous", "entropy", "induction", "forbidden"} <= set(test.dataframe[0].value.columns)


def test_header_counts_the_tokens_of_the_text_typed():
    test = app()
    test.text_area(key="text").set_value("The people of the United States.")
    again(test)
    tokens = capture(load("tiny-decoder"), "The people of the United States.").calls[0].queries
    assert f"{tokens} tokens" in headline(test)


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_empty_text_is_one_sentence(text):
    test = app()
    test.text_area(key="text").set_value(text)
    again(test)
    assert "The text is empty" in sentences(test)


def test_a_megabyte_of_text_is_refused_then_cut_on_request():
    test = app()
    test.text_area(key="text").set_value("The state of the Union. " * 45_000)
    again(test)
    assert "200,000" in sentences(test)
    test.toggle(key="cut").set_value(True)
    again(test)
    assert not test.error and not test.exception
    assert "2,048 tokens" in headline(test)
    assert "cut from" in notes(test)


def test_unknown_model_keeps_the_text(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    test = app(model="nobody/no-such-model", text="Keep me.")
    assert "nobody/no-such-model is not in the local cache" in sentences(test)
    assert test.text_area(key="text").value == "Keep me."


def test_folders_that_are_no_models(tmp_path):
    assert "has no config.json" in sentences(app(model=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert "pickle" in sentences(app(model=str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    assert "could not be loaded" in sentences(app(model=str(tmp_path)))


def test_nan_weights_name_the_tensor(tmp_path, minilm_folder):
    for file in minilm_folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(minilm_folder / "model.safetensors")
    name = next(k for k in weights if k.endswith("encoder.layer.2.attention.self.query.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    said = sentences(app(model=str(tmp_path)))
    assert "encoder.layer.2.attention.self.query.weight" in said and "NaN" in said


def test_hostile_text_and_model_names_are_escaped():
    test = app(model="<img src=x onerror=alert(1)>/b", text="x")
    assert not test.exception and test.error
    test = app(text="<script>alert(1)</script> $x$ :red[y] 🙂 नमस्ते")
    assert not test.exception and not test.error
    assert "<script>" not in headline(test)


@pytest.mark.parametrize(
    "options",
    [
        {"quantity": "scores"},
        {"quantity": "value_weighted"},
        {"words": "1"},
        {"view": "bipartite"},
        {"order": "induction"},
        {"metrics": "scatter"},
        {"zoom": "3-9-0-8"},
    ],
)
def test_every_view_draws(options):
    test = app(**options)
    assert not test.exception and not test.error


@pytest.mark.parametrize(
    "address",
    [
        {"layer": "99", "head": "99"},
        {"layer": "x"},
        {"zoom": "9-1"},
        {"zoom": "500-600-1-2"},
        {"view": "nonsense"},
        {"dtype": "int8"},
        {"pin": "key-x"},
        {"order": "nothing"},
        {"temperature": "nan", "top_k": "-3", "top_p": "7", "seed": "99999999999"},
        {"written": "5-x-2"},
    ],
)
def test_an_address_that_means_nothing_still_opens(address):
    test = app(**address)
    assert not test.exception


def test_drawn_matrix_is_the_capture(monkeypatch):
    drawn = {}
    monkeypatch.setattr(_canvas, "large", lambda explorer, matrix, **how: drawn.update(how, matrix=matrix))
    text = "The Congress of the United States."
    app(text=text, layer="2", head="3")
    cap = capture(load("tiny-decoder"), text)
    matrix = drawn["matrix"]
    torch.testing.assert_close(matrix.values, cap.find(2).weights(3)[0], atol=1e-7, rtol=0)
    assert matrix.queries == cap.axes["input"].labels
    assert torch.equal(matrix.forbidden, torch.ones_like(matrix.forbidden).triu(1))


def test_twenty_sessions_with_their_own_texts_and_models(minilm_folder):
    """What the page asks of the server, from 20 threads at once on shared models: everybody gets their own numbers."""
    texts = [f"Session number {i} speaks of {'peace ' * (i + 1)}" for i in range(20)]
    models = ["tiny-decoder" if i % 2 else str(minilm_folder) for i in range(20)]
    alone = [capture(load(m), t).find(1).weights(2) for m, t in zip(models, texts, strict=True)]
    server = Server()
    start = threading.Barrier(20)

    def session(i: int) -> float:
        start.wait()
        subject = server.subject(models[i], "cpu", "float32")
        inputs = subject.encode(texts[i])
        key = (models[i], texts[i])
        assert server.made("cost", key, lambda: estimate(subject, inputs)).tokens == alone[i].shape[1]
        cap = server.made("capture", key, lambda: capture(subject, inputs))
        found = server.made("survey", key, lambda: survey(cap))
        assert len(found.table) == sum(c.heads for c in cap.calls)
        view = head_view(cap, cap.find(1), 2)
        return float((view.values - alone[i][0]).abs().max())

    with ThreadPoolExecutor(20) as pool:
        gaps = list(pool.map(session, range(20)))
    assert max(gaps) < 1e-6
    assert len(server.models.kept) == 2 and 0 < server.results.bytes <= server.results.room


def test_a_long_text_says_what_it_is_from_and_looks_at_every_query_on_demand():
    test = app()
    test.text_area(key="text").set_value("The state of the Union. " * 240)
    again(test)
    assert not test.exception and not test.error
    caption = next(c.value for c in test.caption if c.value.startswith("Figures"))
    assert re.fullmatch(r"Figures from \d+ of 1,\d+ queries, spread over the text; ± is two standard errors\.", caption)
    test.toggle(key="exact").set_value(True)
    again(test)
    assert not test.exception
    assert "Figures from every query." in [c.value for c in test.caption]
    test.text_area(key="text").set_value("A short one.")
    again(test)
    assert not [c.value for c in test.caption if c.value.startswith("Figures")]


def test_a_figure_too_narrow_for_its_labels_is_one_sentence():
    test = app(model="tiny-decoder")
    test.session_state["figure_width"], test.session_state["figure_font"] = 2.0, 30.0
    test.run()
    assert not test.exception
    assert sum("make it wider or its font smaller" in h.proto.body for h in test.get("html")) == 1
    off = {button.proto.label for button in test.get("download_button") if button.proto.disabled}
    assert {"PNG", "SVG", "PDF"} <= off
    assert "CSV" not in off
