"""The Embeddings page: what it shows is computed, bad texts and models get a sentence, and it works by hand."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from playwright.sync_api import expect
from sklearn.metrics import adjusted_rand_score, silhouette_score
from streamlit.testing.v1 import AppTest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from headwise.pages._embeddings import scatter as _scatter
from headwise.pages._embeddings.choices import NO_MODEL
from tests.browser.opening import downloaded
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.embeddings import embeddings
embeddings()
"""
TEXTS = (
    ("The bank raised its interest rates.", "money"),
    ("Someone plays the guitar.", "music"),
    ("Interest rates were put up by the bank.", "money"),
    ("A man is playing a guitar.", "music"),
    ("Rates at the bank are higher now.", "money"),
    ("A woman practises on her guitar.", "music"),
)
SOURCE = "\n".join(f"{text}\t{label}" for text, label in TEXTS)


def page(before="minilm-l6", after=NO_MODEL, texts=SOURCE, **state) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)), default_timeout=300)
    for key, value in {"before": before, "after": after, "embedding_texts": texts, **state}.items():
        test.session_state[key] = value
    test.run()
    assert not test.exception, test.exception
    return test


def figures(test: AppTest) -> list[tuple[str, str]]:
    return [(metric.label, metric.value) for metric in test.metric]


@pytest.fixture
def drawn(monkeypatch, minilm_folder, splade_folder):
    """What the pictures were given, in the order they were drawn."""
    pictures, draw = [], _scatter.figure

    def figure(place, hovers, colours, shapes, chosen, axes):
        pictures.append({"place": place, "hovers": hovers, "colours": colours, "shapes": shapes, "axes": axes})
        return draw(place, hovers, colours, shapes, chosen, axes)

    monkeypatch.setattr(_scatter, "figure", figure)
    return pictures


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, minilm_folder):
    """MiniLM with a head that nobody trained: a real classifier with real, poor answers."""
    folder = tmp_path_factory.mktemp("classifier")
    names = {0: "money", 1: "music"}
    torch.manual_seed(1)
    module = AutoModelForSequenceClassification.from_pretrained(minilm_folder, num_labels=2, id2label=names)
    module.save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm_folder).save_pretrained(folder)
    return folder, module.eval()


def test_two_subjects_make_two_clusters(drawn):
    test = page(after="splade-tiny")
    assert [label for label, _ in figures(test)] == 2 * ["Silhouette", "… of labels", "Rand, labels"]
    assert figures(test)[2] == ("Rand, labels", "1.00")  # MiniLM tells money from music
    table = test.dataframe[0].value
    assert sorted(table.values.tolist()) == [[0, 3], [3, 0]] and list(table.columns) == ["money", "music"]
    first, second = drawn
    assert first["place"].shape == second["place"].shape == (6, 2)
    assert first["shapes"] == second["shapes"] == ["circle", "diamond"] * 3
    assert len(set(first["colours"][::2])) == len(set(first["colours"][1::2])) == 1 and len(set(first["colours"])) == 2
    assert test.segmented_control(key="colour").options == ["Cluster", "Label"]  # neither model gives answers


def test_figures_of_a_classifier_are_those_of_its_own_answers(drawn, classifier):
    folder, module = classifier
    test = page(before=str(folder), colour="answer")
    assert test.segmented_control(key="colour").value == "answer"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts, labels = zip(*TEXTS, strict=True)
    batch = tokenizer(list(texts), return_tensors="pt", padding=True)
    with torch.no_grad():
        output = module(**batch, output_hidden_states=True)
    weight = batch["attention_mask"][..., None]
    vectors = (output.hidden_states[-1] * weight).sum(1) / weight.sum(1)
    said = [module.config.id2label[i] for i in output.logits.argmax(1).tolist()]
    clusters = [{"money": 0, "music": 1}[label] for label in labels]  # as the test above shows
    shown = dict(figures(test))
    assert shown["Accuracy"] == f"{np.mean([a == b for a, b in zip(said, labels, strict=True)]):.2f}"
    assert shown["Rand, answers"].replace("−", "-") == f"{adjusted_rand_score(said, clusters):.2f}"
    assert shown["… of labels"] == f"{silhouette_score(vectors, labels, metric='cosine'):.2f}"
    by_name = dict(zip(("money", "music"), _scatter.PALETTE, strict=False))
    assert drawn[0]["colours"] == [by_name[name] for name in said]


def test_choices_change_what_is_drawn(drawn):
    test = page()
    test.slider(key="clusters").set_value(4).run()
    assert len(set(drawn[-1]["colours"])) == 4 and len(test.dataframe[0].value) == 4
    test.segmented_control(key="projection").set_value("tsne").run()
    assert drawn[-1]["axes"] == ("t-SNE 1", "t-SNE 2")
    mean = test.metric[0].value
    test.segmented_control(key="pooling").set_value("cls").run()
    assert test.metric[0].value != mean and not test.exception
    test.text_area(key="embedding_texts").set_value("\n".join(text for text, _ in TEXTS)).run()
    assert not test.dataframe and figures(test)[1] == ("… of labels", "–")
    assert set(drawn[-1]["shapes"]) == {"circle-open"}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"texts": "\n"}, "no text to look at"),
        ({"texts": "a\tb\tc"}, "Line 1 has 2 tabs"),
        ({"texts": "One.\nTwo."}, "at least 3 texts"),
        ({"texts": "Same.\nSame.\nSame."}, "the same vector"),
        ({"clusters": 8}, "Expected 2 to 6 clusters"),
        ({"texts": SOURCE + "\n" + "word " * 3_000}, "Text 7: The text has"),
        ({"before": "tiny-decoder", "pooling": "cls"}, "sees nothing but itself"),
        ({"before": "/nowhere/at/all"}, "There is no folder"),
    ],
)
def test_what_cannot_be_shown_gets_one_sentence(drawn, state, words):
    test = page(**state)
    assert len(test.error) == 1 and words in test.error[0].value and not test.metric


def test_one_model_that_fails_leaves_the_other(drawn):
    test = page(before="/nowhere/at/all", after="minilm-l6")
    assert len(test.error) == 1 and len(test.metric) == 3


def test_texts_and_labels_are_never_markup():
    shown = _scatter.hover("<a href='x'>$a$ & b</a> " * 40, ["label: <b>"])
    assert "<a" not in shown and "<b>" not in shown and shown.count("<br>") == 8 and "…" in shown
    for what in ("label", "answer"):
        assert "<script>" not in _scatter.legend(what, {"<script>": "#000000"}, {"<script>": "circle"})


def test_colours_and_shapes_run_out_into_grey():
    names = _scatter.ranked(["b", "a", "a", "", *"cdefghijk"])
    assert names[:2] == ["a", "b"] and "" not in names
    colours = list(_scatter.colours(names).values())
    assert len(set(colours[:8])) == 8 and set(colours[8:]) == {_scatter.GREY}
    assert "#D55E00" not in colours  # Okabe and Ito's vermillion is for alarms
    assert list(_scatter.shapes(names).values())[7:] == ["circle-open"] * 4


def test_a_person_uploads_texts_changes_k_and_colours_and_takes_the_table_home(browser, app_url, tmp_path):
    file = tmp_path / "texts.tsv"
    file.write_text(SOURCE.replace("Someone", "<b>Someone</b>"), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.goto(f"{app_url}/embeddings?before=minilm-l6&after=splade-tiny")
    page.get_by_text("Texts and labels").click(timeout=120_000)
    page.locator("input[type=file]").set_input_files(file)
    legend = page.get_by_test_id("embedding-legend")
    expect(legend).to_contain_text("music", timeout=120_000)
    expect(legend).to_have_text("cluster⬤ 1⬤ 2label● money◆ music")
    points = page.locator(".js-plotly-plot").first.locator(".point")
    expect(points).to_have_count(6, timeout=60_000)
    points.nth(1).click(force=True)
    expect(page.get_by_test_id("embedding-text")).to_contain_text("<b>Someone</b> plays", timeout=60_000)
    expect(page.locator(".js-plotly-plot").last.locator(".point")).to_have_count(7)  # six texts and the ring
    page.get_by_role("slider", name="Clusters").press("ArrowRight")
    expect(legend).to_contain_text("⬤ 3", timeout=60_000)
    page.get_by_text("Label", exact=True).click()
    expect(legend).to_have_text("label● money◆ music", timeout=60_000)
    table = pd.read_csv(io.BytesIO(downloaded(page, "CSV")))
    assert list(table.label) == [label for _, label in TEXTS] and table.text[1] == "<b>Someone</b> plays the guitar."
    assert set(table.before_cluster) == set(table.after_cluster) == {1, 2, 3}
    page.get_by_text("t-SNE", exact=True).click()
    expect(page.locator(".js-plotly-plot").first).to_contain_text("t-SNE 1", timeout=60_000)
    page.goto(page.url)  # as a copied link does
    expect(page.locator(".js-plotly-plot").first).to_contain_text("t-SNE 1", timeout=120_000)
    expect(legend).to_contain_text("⬤ 3")
    context.close()
