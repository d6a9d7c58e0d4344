"""Every kind of model in a real Chromium: load, look, switch stacks, write on, upload, download."""

import io
import re
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from headwise import capture
from headwise.models import load
from tests.browser.opening import address, downloaded, head, links_to, shows

SPEECH = Path("/usr/share/sounds/alsa/Front_Center.wav")  # Debian's alsa-utils


def headline(page: Page):
    return page.get_by_test_id("headline")


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).or_(page.get_by_role("radio", name=name)).first.click()


def fill(page: Page, label: str, text: str) -> None:
    box = page.get_by_label(label, exact=True)
    box.fill(text)
    box.press("Control+Enter")


def test_encoder_decoder_from_spelling_to_phonemes(visit):
    page = visit(model="tiny-encoder-decoder")
    expect(headline(page)).to_contain_text("source 12 tokens + target")
    shows_cross = capture(load("tiny-encoder-decoder"), "knight")
    fill(page, "Source", "knight")
    expect(headline(page)).to_contain_text("source 7 tokens")
    table = pd.read_csv(io.BytesIO(downloaded(page, "CSV")), index_col=0)
    assert [name.split(":")[1] for name in table.columns] == [f"'{c}'" for c in (*"knight", "</s>")]
    assert [name.split(":")[1] for name in table.index] == [f"'{c}'" for c in shows_cross.axes["target"].labels]

    for stack, queries in (("Encoder", 7), ("Decoder", len(shows_cross.axes["target"]))):
        press(page, stack)
        expect(head(page).locator(".hw-base")).to_have_attribute("aria-label", re.compile(f"of {queries} queries"))
    links_to(page, stack="decoder")

    page.get_by_role("combobox", name="Target").click()
    page.get_by_role("option", name="step by step").click()
    expect(headline(page)).to_contain_text("target 1 token")
    press(page, "Write one")
    expect(headline(page)).to_contain_text("target 2 tokens")
    press(page, "Write 10")
    expect(page.get_by_test_id("says")).to_contain_text("ended")
    page.wait_for_url(re.compile(r"written=\d+-\d"))  # the address follows the page
    written = address(page)["written"].split("-")
    expect(headline(page)).to_contain_text(f"target {1 + len(written)} tokens")
    press(page, "Start over")
    expect(headline(page)).to_contain_text("target 1 token")


def test_decoder_writes_on_and_temperature_needs_no_run(visit):
    page = visit(model="tiny-decoder", temperature="0")
    expect(page.get_by_label("Text", exact=True)).not_to_have_value("")
    tokens = len(load("tiny-decoder").encode(page.get_by_label("Text", exact=True).input_value()).axes["input"])
    expect(headline(page)).to_contain_text(f"{tokens} tokens")
    press(page, "Write 10")
    expect(headline(page)).to_contain_text(f"{tokens + 10} tokens")
    likely = page.locator(".st-key-next").get_by_role("button").or_(page.locator(".st-key-next").get_by_role("radio"))
    expect(likely).to_have_count(1)
    expect(likely).to_contain_text("100%")
    page.wait_for_url(re.compile("written="))
    written = address(page)["written"]
    page.get_by_role("button", name="Sampling").click()
    slider = page.get_by_role("slider", name="Temperature")
    for _ in range(30):
        slider.press("ArrowRight")
    expect(likely).not_to_have_count(1)
    expect(headline(page)).to_contain_text(f"{tokens + 10} tokens")
    assert address(page)["written"] == written


def test_encoder_fills_masks_judges_pairs_and_is_compared(visit):
    page = visit(model="tiny-encoder")
    expect(page.get_by_test_id("says")).to_contain_text("Masked token")
    fill(page, "Second text", "And God saw the light, that it was good.")
    expect(page.get_by_text("Does the second text follow the first?")).to_be_visible()
    page.get_by_role("combobox", name=re.compile("Compare with")).click()
    page.get_by_role("option", name=re.compile("tiny-classifier")).click()
    expect(head(page).get_by_test_id("headwise-legend")).to_contain_text("tiny-classifier − tiny-encoder")
    links_to(page, compare="tiny-classifier")
    assert b"tiny-classifier minus tiny-encoder" in downloaded(page, "SVG")


def test_classifier_judges_a_review(visit):
    page = visit(model="tiny-classifier", text="A moving and wonderfully acted film, full of wit and warmth.")
    expect(page.get_by_test_id("says")).to_contain_text("favourable")


def upload(page: Page, file: Path) -> None:
    """Give a file of one's own, by the button in the bar."""
    page.get_by_role("button", name="Your own").click()
    page.locator("input[type=file]").set_input_files(file)
    expect(page.locator(".st-key-bar-fields").get_by_text(file.name)).to_be_visible()
    page.keyboard.press("Escape")


def digit(tmp_path) -> Path:
    """A seven as somebody may photograph it: dark on light, wide."""
    seven = Image.open(Path(__file__).parents[2] / "assets" / "examples" / "seven.png").convert("L").resize((140, 140))
    sheet = Image.new("L", (300, 140), 255)
    sheet.paste(Image.eval(seven, lambda x: 255 - x), (80, 0))
    sheet.save(tmp_path / "seven on paper.png")
    return tmp_path / "seven on paper.png"


def test_vision_upload_choose_a_patch_and_download(visit, tmp_path):
    page = visit(model="tiny-vit")
    expect(headline(page)).to_contain_text("7 × 7 patches")
    upload(page, digit(tmp_path))
    expect(page.get_by_test_id("notes")).to_contain_text("inverted")
    expect(page.get_by_text("seven on paper.png").first).to_be_visible()
    base = head(page).locator(".hw-base")
    left, top, width, height = (float(x) for x in base.get_attribute("data-plot").split(","))
    box = head(page).locator(".hw-over").bounding_box()
    page.mouse.click(box["x"] + left + 3.5 * width, box["y"] + top + 2.5 * height)
    expect(base).to_have_attribute("data-query", str(1 + 2 * 7 + 3))
    links_to(page, pin=f"query-{1 + 2 * 7 + 3}")
    press(page, "Heatmap")
    expect(head(page).locator(".hw-base")).to_have_attribute(
        "aria-label", re.compile("of 50 queries by 50 keys, heatmap")
    )
    assert downloaded(page, "PNG").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("notes.png", b"This is a text, whatever its name says.", "is not a picture"),
        ("empty.png", b"", "0 bytes"),
    ],
)
def test_bad_pictures_are_one_sentence_and_the_next_one_works(visit, tmp_path, name, data, sentence):
    page = visit(model="tiny-vit")
    (tmp_path / name).write_bytes(data)
    upload(page, tmp_path / name)
    expect(page.get_by_test_id("stAlert")).to_contain_text(sentence)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    upload(page, digit(tmp_path))
    expect(page.get_by_test_id("notes")).to_contain_text("inverted")


def recording(tmp_path, seconds: float, rate: int) -> Path:
    """Real speech, said again and again."""
    with wave.open(str(SPEECH)) as source:
        samples = np.frombuffer(source.readframes(source.getnframes()), np.int16)[:: source.getframerate() // rate]
    with wave.open(str(tmp_path / "speech.wav"), "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(rate)
        target.writeframes(np.resize(samples, int(seconds * rate)).tobytes())
    return tmp_path / "speech.wav"


def test_speech_upload_switch_stacks_and_download(visit, whisper_folder, tmp_path):
    page = visit(model="whisper-tiny-en")
    upload(page, recording(tmp_path, 2.0, 8000))
    expect(page.get_by_test_id("notes")).to_contain_text("resampled from 8,000 to 16,000 Hz")
    expect(headline(page)).to_contain_text("2.00 s in 1,500 frames")
    for stack in ("Encoder", "Decoder", "Cross"):
        press(page, stack)
        expect(head(page)).to_be_visible()
    expect(head(page).locator(".hw-base")).to_have_attribute("aria-label", re.compile("by 1500 keys"))
    assert downloaded(page, "NPZ").startswith(b"PK")


def test_a_long_recording_is_refused_then_cut(visit, whisper_folder, tmp_path):
    page = visit(model="whisper-tiny-en")
    upload(page, recording(tmp_path, 600, 8000))
    expect(page.get_by_test_id("stAlert")).to_contain_text("The recording lasts 600 seconds")
    page.get_by_test_id("stCheckbox").get_by_text("Cut after 30 seconds").click()
    expect(page.get_by_test_id("notes")).to_contain_text("cut from 600.0 to 30 seconds")
    shows(page, int(address(page).get("layer", 0)), int(address(page).get("head", 0)))
