"""Exports say what the weights were, look like the app, and never run what a token says."""

import csv
import io
import json
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from headwise import capture
from headwise.__main__ import main
from headwise.interp.attention.axes import Axis
from headwise.interp.drawing import bertviz
from headwise.interp.drawing import files as export
from headwise.interp.drawing.matrix import FORBIDDEN, LEAKED, Matrix, Span, head_view
from headwise.interp.drawing.paper import colour, heatmap
from headwise.interp.drawing.quantities import QUANTITIES
from headwise.interp.subject import Inputs
from headwise.models import wrap

ROOT = Path(__file__).parents[3]
HOSTILE = (
    "</script><script>window.ran=1</script>",
    "<img src=x onerror=window.ran=1>",
    "a&b",
    "\x00\n\ud800",
    " the",
    "12:30",
)


def bert(labels, layers=1):
    return run(bert_of(layers), labels, "encoder")


def bert_of(layers):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=256,
    )
    return BertModel(config).eval()


def llama(labels):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=16,
        max_position_embeddings=256,
    )
    return run(LlamaForCausalLM(config).eval(), labels, "decoder")


def run(module, labels, kind, samples=1):
    text = "x" * len(labels)
    axis = Axis(tuple(labels), tuple((i, i + 1) for i in range(len(labels))), text=text)

    def encode(ids):
        return Inputs({"input_ids": ids}, {"input": axis}, ("a <note>",))

    ids = torch.arange(samples * len(labels)).reshape(samples, -1) % 32
    return capture(wrap(module, encode, kind, "tiny"), ids)


def words(count):
    return [f"w{i}" for i in range(count)]


def leaked(view, row, column):
    values = view.values.clone()
    values[row, column] = 0.25
    return replace(view, values=values)


# -- numbers -------------------------------------------------------------------------------------------------
def test_csv_holds_the_weights_and_names_every_position():
    cap = llama(HOSTILE)
    call = cap.find(1)
    data = export.to_csv(head_view(cap, call, 3))
    table = pd.read_csv(io.BytesIO(data), index_col=0)
    assert np.array_equal(table.to_numpy(np.float32), call.weights(3)[0].numpy())
    assert list(table.columns[2:]) == ["2:'a&b'", "3:'\\x00\\n\\ud800'", "4:' the'", "5:'12:30'"]
    assert table.index.equals(table.columns.rename("query / key"))
    assert data.startswith(b"\xef\xbb\xbf")


def test_csv_leaves_a_score_that_is_not_there_empty_and_names_the_positions_of_a_pooled_cell():
    cap = llama(words(5))
    rows = list(csv.reader(io.StringIO(export.to_csv(head_view(cap, cap.calls[0], 0, "scores")).decode("utf-8-sig"))))
    assert rows[1][2:] == [""] * 4 and rows[5][5] != ""
    pooled = export.to_csv(head_view(cap, cap.calls[0], 0, size=3)).decode("utf-8-sig")
    assert pooled.splitlines()[0] == "query / key,0–1:'w0',2–3:'w2',4–4:'w4'"


def test_npz_of_one_call_and_of_all():
    cap = llama(HOSTILE)
    one = np.load(io.BytesIO(export.to_npz(cap, cap.find(1))))
    assert one["weights"].dtype == np.float32 and one["weights"].shape == (1, 4, 6, 6)
    for head in range(4):
        assert np.array_equal(one["weights"][:, head], cap.find(1).weights(head).numpy())
    assert tuple(one["keys"]) == HOSTILE and one["query_offsets"].tolist()[2] == [2, 3]
    every = np.load(io.BytesIO(export.to_npz(cap)))
    assert np.array_equal(every["decoder.1.weights"], one["weights"])
    metadata = json.loads(str(every["metadata"]))
    assert [c["array"] for c in metadata["calls"]] == ["decoder.0.weights", "decoder.1.weights"]
    assert metadata["calls"][1]["module"] == cap.find(1).name


def test_npz_refuses_what_would_not_fit(monkeypatch):
    cap = llama(words(6))
    monkeypatch.setattr(export, "NPZ_BYTES", 4 * 4 * 36)
    assert export.to_npz(cap, cap.find(0))
    with pytest.raises(ValueError, match=r"All 2 calls of this run would take .* Export one layer."):
        export.to_npz(cap)


def test_stamp_says_what_ran():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"] == export.VERSION
    cap = bert(words(4))
    stamp = export.stamp(cap)
    assert stamp["model"] == "tiny" and stamp["tokens"] == {"input": 4} and stamp["dtype"] == "float32"
    assert stamp["parameters"] == sum(p.numel() for p in cap.subject.module.parameters())
    assert stamp["torch"] == torch.__version__ and stamp["attention"] == "sdpa" and stamp["notes"] == ["a <note>"]
    private = replace(cap, subject=replace(cap.subject, origin="/home/somebody/models/mine"))
    assert export.stamp(private)["origin"] == "mine"


# -- figures -------------------------------------------------------------------------------------------------
def opened(png):
    return Image.open(io.BytesIO(png))


def cell(image, view, row, column):
    """The colour near a cell's corner, where no number stands."""
    place = heatmap.Layout.of(view)
    return image.getpixel((round(2 * place.x(column)) + 3, round(2 * place.y(row)) + 3))


@pytest.mark.parametrize(("theme", "brightest", "darkest"), [("light", 0, 255), ("dark", 255, 0)])
def test_png_cells_have_the_colour_of_their_value(theme, brightest, darkest):
    cap = bert(words(20))
    matrix = torch.full((20, 20), 0.5)
    matrix[3, 7], matrix[4, 2] = 1.0, 0.0
    view = replace(head_view(cap, cap.calls[0], 0), values=matrix, title="a title")
    image = opened(export.to_png(view, theme=theme))
    table = colour.sequential(theme)
    assert cell(image, view, 3, 7) == tuple(table[255])
    assert cell(image, view, 4, 2) == tuple(table[0])
    assert cell(image, view, 9, 9) == tuple(table[128])
    assert table[brightest].sum() > table[darkest].sum()
    log = opened(export.to_png(replace(view, values=matrix * 0.01 + 1e-9), theme=theme, scale="log"))
    assert cell(log, view, 4, 2) == tuple(table[0]) and cell(log, view, 3, 7) == tuple(table[255])


def test_the_alarm_is_there_only_when_weight_leaked():
    cap = llama(words(20))
    view = head_view(cap, cap.calls[0], 0)
    for theme in colour.THEMES:
        alarm = colour.Palette.of(theme).alarm
        clean, bad = (
            opened(export.to_png(view, theme=theme)),
            opened(export.to_png(leaked(view, 2, 9), theme=theme)),
        )
        assert alarm not in {colour for _, colour in clean.getcolors(2**20)}
        assert cell(bad, view, 2, 9) == alarm
        svg = export.to_svg(view, theme=theme).decode()
        assert "forbidden by the mask" in svg and "weight on forbidden" not in svg and colour.css(alarm) not in svg
        svg = export.to_svg(leaked(view, 2, 9), theme=theme).decode()
        assert (
            "weight on forbidden positions (1)" in svg and svg.count(colour.css(alarm)) == 2
        )  # the cell and its swatch
    assert (
        "forbidden"
        not in export.to_svg(head_view(bert(words(4)), bert(words(4)).calls[0], 0)).decode().split("</defs>")[1]
    )


def test_a_pooled_cell_that_hides_a_leak_raises_the_alarm_and_a_score_does_not():
    cap = bert(words(20))
    view = head_view(cap, cap.calls[0], 0, size=10)
    codes = view.forbidden.clone()
    codes[2, 3] = LEAKED
    hiding = replace(view, forbidden=codes)
    assert cell(opened(export.to_png(hiding)), view, 2, 3) == colour.Palette.of("light").alarm
    assert "weight on forbidden positions (1)" in export.to_svg(hiding).decode()
    scores = replace(hiding, quantity=QUANTITIES["scores"])
    assert "weight on forbidden" not in export.to_svg(scores).decode()


@pytest.mark.parametrize("theme", colour.THEMES)
def test_a_difference_is_coloured_from_its_middle(theme):
    """The ends are as far from zero as the largest difference; a future that differs is no alarm."""
    cap = llama(words(20))
    matrix = torch.zeros(20, 20)
    matrix[9, 3], matrix[8, 2], matrix[7, 1], matrix[2, 9] = 0.4, -0.4, -0.2, 0.1
    change = QUANTITIES["weights"].difference
    view = replace(head_view(cap, cap.calls[0], 0), values=matrix, quantity=change)
    image, table = opened(export.to_png(view, theme=theme)), colour.diverging(theme)
    assert cell(image, view, 9, 3) == tuple(table[255]) and cell(image, view, 8, 2) == tuple(table[0])
    assert cell(image, view, 7, 1) == tuple(table[64]) and cell(image, view, 6, 1) in {
        tuple(table[i]) for i in (127, 128)
    }
    svg = export.to_svg(view, theme=theme, stamp=export.stamp(cap, llama(words(20)))).decode()
    assert "weight on forbidden" not in svg and "weight difference<" in svg and "difference: tiny minus tiny" in svg
    assert ">−0.4<" in svg and ">0.4<" in svg and ">0<" in svg


def test_a_signed_logarithmic_scale_keeps_zero_in_the_middle():
    """Equal factors, equal steps, away from zero: 1 and 0.1 lie as far apart as 0.1 and 0.01, nearly."""
    scale = colour.Scale.of(np.array([-1.0, 0.25]), "log", "signed")
    places = scale.place(np.array([-1, -0.1, -0.01, 0, 0.01, 0.1, 1]))
    np.testing.assert_allclose(places + places[::-1], 1, atol=1e-12)
    assert places[3] == 0.5 and places[6] == 1
    assert places[6] - places[5] == pytest.approx(places[5] - places[4], rel=0.05)
    assert [text for _, text in scale.ticks()] == ["−1", "−0.1", "−0.01", "0", "0.01", "0.1", "1"]


def test_svg_is_xml_with_its_text_escaped_and_its_cells_as_rectangles():
    cap = llama(HOSTILE)
    view = replace(head_view(cap, cap.calls[0], 0), title="<b>title</b> & \x07", of="")
    data = export.to_svg(view, stamp=export.stamp(cap))
    root = ElementTree.fromstring(data)
    space = "{http://www.w3.org/2000/svg}"
    texts = ["".join(t.itertext()) for t in root.iter(space + "text")]
    assert "<b>title</b> & ◌" in texts and "·the" in texts and "◌⏎◌" in texts
    assert (
        not list(root.iter(space + "script"))
        and not list(root.iter(space + "img"))
        and not list(root.iter(space + "image"))
    )
    assert json.loads(root.find(space + "metadata").text)["model"] == "tiny"
    cells = root.find(f"{space}g[@shape-rendering]")
    assert len(cells) == 21  # of 36; the future is hatched, not painted


def test_a_large_matrix_is_one_picture_in_the_svg():
    view = head_view(cap := llama(words(100)), cap.calls[0], 0)
    root = ElementTree.fromstring(data := export.to_svg(view))
    (image,) = root.iter("{http://www.w3.org/2000/svg}image")
    assert image.get("{http://www.w3.org/1999/xlink}href").startswith("data:image/png;base64,") and b"pixelated" in data
    assert len(data) < 200_000


def test_png_carries_the_stamp():
    cap = bert(words(4))
    view = replace(head_view(cap, cap.calls[0], 1), of="Überschrift")
    image = opened(export.to_png(view, stamp=export.stamp(cap)))
    assert json.loads(image.text["headwise"])["model"] == "tiny"
    assert image.text["Title"] == "Überschrift · layer 0 · head 1"


def test_odd_shapes_are_drawn():
    for rows, columns, quantity in [
        (1, 1, "weights"),
        (1, 300, "weights"),
        (300, 2, "scores"),
        (512, 512, "value_weighted"),
    ]:
        odd = Matrix(
            torch.full((rows, columns), torch.nan),
            Span(("x" * 300,) * rows, "queries"),
            Span(("中" * 300,) * columns, "keys"),
            QUANTITIES[quantity],
            torch.ones(rows, columns, dtype=torch.uint8),
        )
        assert opened(export.to_png(odd)).width < 3000
        ElementTree.fromstring(export.to_svg(odd, scale="log"))


@pytest.mark.parametrize("wrong", [{"scale": "square"}, {"theme": "pink"}])
def test_unknown_options_are_named(wrong):
    cap = bert(words(3))
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} expects one of .*{next(iter(wrong.values()))}"):
        export.to_png(head_view(cap, cap.calls[0], 0), **wrong)
    with pytest.raises(ValueError, match="quantity expects one of weights, scores, value_weighted; got 'gold'"):
        head_view(cap, cap.calls[0], 0, "gold")


def test_the_border_is_the_edge_of_the_mask_and_nothing_else():
    forbidden = np.triu(np.ones((3, 3), bool), 1)
    assert sorted(heatmap.border(forbidden)) == [(1, 0, 1, 1), (1, 1, 2, 1), (2, 1, 2, 2), (2, 2, 3, 2)]
    assert FORBIDDEN == 1 and not list(heatmap.border(np.ones((3, 3), bool)))


def test_colours_are_those_of_the_canvas(browser):
    source = (ROOT / "assets/canvas/colour.js").read_text("utf-8").replace("export ", "")
    page = browser.new_page()
    theirs = page.evaluate(
        "source => new Function(source)()",
        source
        + """; return ["light", "dark"].map((mode) => [
            table(SCALES[mode].sequential, 0).css, table(SCALES[mode].diverging, -1).css])""",
    )
    page.close()
    for mode, tables in zip(colour.THEMES, theirs, strict=True):
        for ours, colours in zip((colour.sequential(mode), colour.diverging(mode)), tables, strict=True):
            there = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours])
            change = np.abs(ours.astype(int) - there)
            assert change.max() <= 1 and (change == 0).mean() > 0.99  # the last bit of a power may differ
        assert colour.css(colour.Palette.of(mode).alarm) in source


# -- BertViz -------------------------------------------------------------------------------------------------
def test_html_draws_offline_and_runs_nothing_of_a_token(browser, tmp_path):
    cap = bert(HOSTILE)
    text = export.to_html(cap)
    assert "<img" not in text and "window.ran=1</script>" not in text and "cdnjs" not in text
    unguarded = text.replace("Content-Security-Policy", "x-nothing")  # escaping alone must hold, too
    for name, page_text in (("guarded", text), ("unguarded", unguarded)):
        file = tmp_path / f"{name}.html"
        file.write_text(page_text, "utf-8")
        page = browser.new_page()
        requests, errors = [], []
        page.on("request", lambda request, seen=requests: seen.append(request.url))
        page.on("pageerror", lambda error, seen=errors: seen.append(str(error)))
        page.goto(file.as_uri())
        assert requests == [file.as_uri()] and errors == []
        assert page.evaluate("window.ran") is None and page.locator("img").count() == 0
        assert page.locator("#head-view line").count() == 2 * 36 and page.locator("#model-view line").count() == 2 * 36
        shown = page.locator("#head-view #left text").all_text_contents()
        assert shown[:3] == ["</script><sc…", "<img·src=x·o…", "a&b"] and shown[4] == "·the"
        drawn = page.locator("#model-view g[source-index='2'] line").nth(1).get_attribute("stroke-opacity")
        assert float(drawn) == pytest.approx(float(cap.calls[0].weights(0)[0, 2, 1]), abs=1e-5)
        page.locator("#model-view .attn_background + g").first.wait_for(state="attached")
        page.mouse.click(*middle(page.locator("#model-view .attn_background").nth(1)))
        assert page.locator("#model-view .detail").filter(has_text="Layer 0, Head 1").count() == 1
        page.close()


def middle(locator):
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_html_of_cross_attention(browser, tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    axes = {"source": Axis(("s0", "s1", "s2")), "target": Axis(("t0", "t1"))}

    def encode(raw):
        return Inputs({"input_ids": torch.tensor([[1, 2, 3]]), "decoder_input_ids": torch.tensor([[0, 4]])}, axes)

    cap = capture(wrap(T5ForConditionalGeneration(config).eval(), encode, "encoder-decoder"), None)
    file = tmp_path / "cross.html"
    file.write_text(export.to_html(cap, "cross"), "utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    assert page.locator("#head-view #left text").all_text_contents() == ["t0", "t1"]
    assert page.locator("#head-view #right text").all_text_contents() == ["s0", "s1", "s2"]
    page.close()


def test_html_of_another_sample():
    cap = two_samples()
    shown = [json.loads(html_data(export.to_html(cap, batch=batch)))["attention"][0]["attn"] for batch in (0, 1)]
    for batch in (0, 1):
        weights = torch.stack([cap.calls[0].weights(head)[batch] for head in range(2)])
        np.testing.assert_allclose(np.array(shown[batch][0]), weights.numpy(), atol=1e-5)
    page = export.to_html(cap, batch=1)
    assert "sample 1 is shown, one of 2" in page and f"drawn by BertViz {version('bertviz')} (" in page
    with pytest.raises(IndexError, match="batch expects a sample 0 … 1; got 2"):
        export.to_html(cap, batch=2)


def html_data(page):
    return page.split("const HEADWISE = ")[1].split(";\n")[0]


def test_html_refuses_a_long_text():
    cap = bert(words(65))
    with pytest.raises(ValueError, match="BertViz draws up to 64 tokens; this input has 65"):
        export.to_html(cap)


def test_vendored_scripts_are_those_of_the_readme():
    import hashlib

    readme = (bertviz.SCRIPTS / "README.md").read_text("utf-8")
    for file in bertviz.SCRIPTS.glob("*.js"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in readme


# -- command -------------------------------------------------------------------------------------------------
@pytest.fixture
def tiny(monkeypatch):
    cap = llama(words(6))
    subject = replace(cap.subject, encode=lambda raw: cap.inputs)
    monkeypatch.setattr("headwise.models.load", lambda name: subject)
    return cap


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.png", b"\x89PNG"),
        ("a.svg", b"<?xml"),
        ("a.csv", b"\xef\xbb\xbf"),
        ("a.NPZ", b"PK"),
        ("a.html", b"<!doctype"),
    ],
)
def test_the_ending_decides_the_format(tiny, tmp_path, name, start):
    assert main(["export", "tiny", "text", "--out", str(tmp_path / name), "--layer", "1"]) == 0
    assert (tmp_path / name).read_bytes().startswith(start)


def test_options_reach_the_file(tiny, tmp_path):
    out = tmp_path / "a.csv"
    assert (
        main(
            [
                "export",
                "tiny",
                "text",
                "--out",
                str(out),
                "--layer",
                "1",
                "--head",
                "2",
                "--quantity",
                "value_weighted",
            ]
        )
        == 0
    )
    table = pd.read_csv(out, index_col=0).to_numpy(np.float32)
    assert np.array_equal(table, tiny.find(1).value_weighted(2)[0].numpy())
    out = tmp_path / "a.svg"
    assert main(["export", "tiny", "text", "--out", str(out), "--scale", "log", "--theme", "dark"]) == 0
    assert "weight, log" in out.read_text("utf-8") and "#12171d" in out.read_text("utf-8")


def two_samples():
    return run(bert_of(1), words(4), "encoder", samples=2)


def test_another_sample_reaches_the_file(monkeypatch, tmp_path, capsys):
    cap = two_samples()
    monkeypatch.setattr("headwise.models.load", lambda name: replace(cap.subject, encode=lambda raw: cap.inputs))
    out = tmp_path / "a.csv"
    assert main(["export", "tiny", "text", "--out", str(out), "--batch", "1"]) == 0
    table = pd.read_csv(out, index_col=0).to_numpy(np.float32)
    assert np.array_equal(table, cap.calls[0].weights(0)[1].numpy())
    assert main(["export", "tiny", "text", "--out", str(tmp_path / "a.svg"), "--batch", "1"]) == 0
    assert "sample 1 is shown, one of 2" in (tmp_path / "a.svg").read_text("utf-8")
    assert main(["export", "tiny", "text", "--out", str(out), "--batch", "2"]) == 2
    assert "batch expects a sample 0 … 1; got 2." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--out", "run.npz", "--batch", "1"],
            "--batch does not apply to .npz; it is for .html, .png, .svg, .pdf, .csv.",
        ),
        (
            ["--out", "run.tiff"],
            "--out expects a file that ends in .html, .png, .svg, .pdf, .csv, .npz; got 'run.tiff'.",
        ),
        (["--out", "run.html", "--words"], "--words does not apply to .html; it is for .png, .svg, .pdf, .csv."),
        (["--out", "no/such/run.png"], "does not exist; make it first."),
        (["--out", "run.png", "--layer", "7"], "has layers [0, 1]."),
        (["--out", "run.png", "--head", "4"], "Layer 0 has heads 0 … 3, got 4."),
        (["--out", "run.png", "--stack", "cross"], "--stack expects one of decoder; got 'cross'."),
        (["--out", "run.png", "--words", "--quantity", "scores"], "cannot be added up into words"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(tiny, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "tiny", "text", *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_model_is_exit_2(tmp_path, capsys):
    assert main(["export", str(tmp_path / "nothing"), "text", "--out", str(tmp_path / "a.png")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "nothing" in told and told.count("\n") == 1


def test_it_runs_from_the_shell(tmp_path):
    command = [sys.executable, "-m", "interp", "export", "tiny", "text", "--out", str(tmp_path / "run.tiff")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: --out expects") and done.stdout == ""
