"""The Patching page in a real Chromium: ask, corrupt, look into a cell, follow a head, trace a path, cancel, share,
come back."""

import io
import re

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from headwise import capture
from headwise.interp.analysis.patching import corrupted, patch, path_patch
from headwise.interp.analysis.targets import target
from headwise.interp.run.sites import HeadOutput
from headwise.models import load
from tests.browser.opening import SLOW, at_rest, downloaded, go, links_to, shows

TEXT = "The President of the United States met the Congress and the President said to the"
OTHER = "The President of the United States met the Congress and the Congress said to the"
LONG = " ".join(["The people of the United States met in the city, and the Congress spoke."] * 9)
MAPS = ("Residual stream", "Attention", "MLP", "Head outputs", "Attention patterns", "Paths")


def grid(page: Page, title: str):
    """One map, by what it is called."""
    return page.get_by_test_id("stream-cells").filter(has=page.get_by_role("grid", name=title, exact=True))


def cell(page: Page, title: str, row: int, column: int):
    """Of a map's rows and columns as drawn."""
    return grid(page, title).locator(f"td[data-r='{row}'][data-c='{column}']")


def prompts(page: Page):
    return page.get_by_test_id("prompts")


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).or_(
        page.get_by_role("radio", name=name, exact=True)
    ).first.click()


def choose(page: Page, field: str, word: str) -> None:
    box = page.get_by_role("combobox", name=re.compile(field))
    box.click()
    box.fill(word)
    box.press("Enter")


@pytest.fixture
def page(visit):
    found = visit(text=TEXT)
    go(found, "Patching")
    for title in MAPS:
        expect(grid(found, title)).to_be_visible()
    at_rest(found)
    press(found, "Name again")
    links_to(found, corruption="name again")
    expect(prompts(found).locator(".differs")).to_have_text(["·President", "·Congress"])
    at_rest(found)
    return found


@pytest.fixture(scope="module")
def two():
    """Both runs, and the question the page asks of them."""
    cap = capture(load("tiny-decoder"), TEXT)
    return cap, corrupted(cap, OTHER), target(cap, *cap.logits[0, -1].topk(2).indices.tolist())


def share(text: str) -> float:
    """Of a cell's own words, such as "layer 3 · 5 · share restored −0.042"."""
    return float(text.split()[-1].replace("−", "-"))


def test_ask_corrupt_and_turn_round(page, two):
    table = patch(*two[:2], "heads", two[2])
    best = table.loc[table.effect.abs().idxmax()]
    words = cell(page, "Head outputs", 3 - int(best.layer), int(best["head"])).get_attribute("title")
    assert share(words) == pytest.approx(best.restored, rel=0.02) and words.startswith(f"layer {best.layer}")

    choose(page, "Answer", "people")
    links_to(page, answer="people")
    at_rest(page)
    choose(page, "Rather than", "United")
    expect(page.get_by_test_id("question")).to_have_text("Why ·people rather than ·United?")
    at_rest(page)
    press(page, "Names")
    links_to(page, corruption="names")
    expect(prompts(page).locator(".differs")).to_have_count(6)
    at_rest(page)
    field = page.get_by_label("Corrupted text", exact=True)
    field.fill(TEXT.replace("Congress", "people"))
    field.press("Enter")
    expect(prompts(page).locator(".differs")).to_have_text(["·Congress", "·people"])
    links_to(page, instead=TEXT.replace("Congress", "people"))
    at_rest(page)
    press(page, "Noising")
    links_to(page, direction="noising")
    expect(grid(page, "Head outputs").locator(".legend")).to_contain_text("share broken")
    at_rest(page)
    press(page, "Estimated")
    links_to(page, shown="estimated")
    at_rest(page)
    press(page, "Error")
    links_to(page, shown="error")


def test_a_cell_of_the_stream_is_said_in_figures(page, two):
    table = patch(*two[:2], "residual", two[2])
    row = table[(table.block == 2) & (table.token == " President")].iloc[-1]
    place = grid(page, "Residual stream").locator("td[title*='block 2'][title*='President']").last
    place.click()
    links_to(page, spot=f"patching-residual:1:{row.position}")
    said = f"{row.effect:+.2f}, {row.restored:.0%}".replace("-", "−")
    expect(page.get_by_text(f"The stream before block 2 at ·President ({row.position}): {said}")).to_be_visible()
    expect(place).to_have_attribute("aria-selected", "true")


def test_follow_a_head_and_come_back(page):
    choose(page, "Answer", "people")
    links_to(page, answer="people")
    at_rest(page)
    cell(page, "Head outputs", 1, 6).locator("a").click()
    shows(page, 2, 6)
    links_to(page, layer="2", head="6", text=TEXT, answer="people")
    assert "/patching" not in page.url
    at_rest(page)
    page.go_back()
    expect(page.get_by_test_id("question")).to_contain_text("Why ·people rather than")
    expect(grid(page, "Head outputs").locator("td a")).to_have_count(32)
    at_rest(page)
    cell(page, "Attention patterns", 3, 2).locator("a").click()
    shows(page, 0, 2)


def test_trace_paths_into_one_head(page, two):
    heads = [HeadOutput(layer, head, "decoder") for layer in range(4) for head in range(8)]
    direct = path_patch(*two[:2], heads, ["answer"], two[2], how="denoising")
    best = direct.loc[direct.effect.abs().idxmax()]
    words = cell(page, "Paths", 3 - int(best.from_layer), int(best.from_head)).get_attribute("title")
    assert share(words) == pytest.approx(best.restored, rel=0.02)
    table = patch(*two[:2], "heads", two[2])
    late = table[table.layer > 0]
    strong = late.loc[late.effect.abs().idxmax()]
    name = f"{strong.layer}.{strong['head']}"
    choose(page, "Receiver", name)
    links_to(page, receiver=f"decoder:{strong.layer}:{strong['head']}")
    expect(page.get_by_text(re.compile(rf"the query of head {re.escape(name)}")).first).to_be_visible()
    press(page, "Value")
    links_to(page, receives="value")
    expect(page.get_by_text(re.compile(rf"the value of head {re.escape(name)}")).first).to_be_visible()


def test_a_copied_address_opens_the_same_view_and_back_undoes(page, browser):
    press(page, "Names")
    links_to(page, corruption="names")
    at_rest(page)
    page.wait_for_timeout(1000)  # an address is young for a moment
    press(page, "Noising")
    links_to(page, corruption="names", direction="noising")
    at_rest(page)
    words = cell(page, "Head outputs", 0, 5).get_attribute("title")
    other = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark").new_page()
    other.goto(page.url)
    expect(cell(other, "Head outputs", 0, 5)).to_have_attribute("title", words, timeout=SLOW)
    expect(prompts(other).locator(".differs")).to_have_count(6)
    other.context.close()
    page.wait_for_timeout(1000)
    page.go_back()
    expect(grid(page, "Head outputs").locator(".legend")).to_contain_text("share restored")
    expect(prompts(page).locator(".differs")).to_have_count(6)


def test_inputs_of_different_length(page):
    field = page.get_by_label("Corrupted text", exact=True)
    field.fill(f"{TEXT.replace('Congress', 'whole Congress')}")
    field.press("Enter")
    expect(prompts(page).locator(".none").first).to_be_attached()
    expect(page.get_by_text(re.compile("without a partner"))).to_be_visible()
    expect(grid(page, "Attention patterns")).to_have_count(0)
    expect(page.get_by_text(re.compile("inputs of one length"))).to_be_visible()
    expect(grid(page, "Residual stream")).to_be_visible()
    expect(page.get_by_test_id("stAlert")).to_have_count(0)


def test_the_same_text_or_answer_twice_is_one_sentence(page):
    field = page.get_by_label("Corrupted text", exact=True)
    field.fill(TEXT)
    field.press("Enter")
    expect(page.get_by_text(re.compile("no difference to trace"))).to_be_visible()
    expect(page.get_by_test_id("stAlert")).to_have_count(1)
    at_rest(page)
    press(page, "Name again")  # nothing is lost
    expect(grid(page, "Head outputs")).to_be_visible()
    choose(page, "Answer", "people")
    links_to(page, answer="people")
    at_rest(page)
    choose(page, "Rather than", "people")
    expect(page.get_by_text("alternative are the same")).to_be_visible()
    expect(page.get_by_test_id("stAlert")).to_have_count(1)


def test_cancel_in_the_middle_loses_nothing(page):
    page.get_by_label("Text", exact=True).fill(LONG)
    page.get_by_label("Text", exact=True).press("Control+Enter")
    expect(prompts(page).locator(".differs")).to_have_text(["·Congress", "·Constitution"])
    at_rest(page)
    field = page.get_by_label("Corrupted text", exact=True)
    field.fill(LONG.replace("people", "Congress", 1))  # early, so that there is much to measure
    field.press("Enter")
    measure = page.get_by_role("button", name=re.compile("^Measure exactly"))
    cancel = page.get_by_role("button", name="Cancel").first
    expect(measure.or_(cancel).first).to_be_visible()
    if not cancel.is_visible():
        measure.click()
    cancel.click()
    again = page.get_by_role("button", name=re.compile("^Go on with"))
    expect(again.first).to_be_visible()
    at_rest(page)
    expect(page.get_by_test_id("stAlert")).to_have_count(0)
    expect(grid(page, "Head outputs")).to_be_visible()  # the estimates stay
    expect(page.get_by_label("Text", exact=True)).to_have_value(LONG)
    again.first.click()
    expect(page.get_by_text(re.compile("^Patching …"))).to_be_visible()  # it was heard before all was done
    expect(page.get_by_text(re.compile("^Estimates:")).first).to_be_visible()


@pytest.mark.parametrize("width", [1500, 1280, 1024])
def test_nothing_is_cut_off(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(500)
    main = page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth - e.clientWidth") <= 0
    right = main.bounding_box()["x"] + main.bounding_box()["width"]
    for title in MAPS:
        box = grid(page, title).bounding_box()
        assert box["x"] + box["width"] <= right and box["width"] > 200
        assert grid(page, title).locator(".legend").evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    inside = prompts(page).bounding_box()
    for marked in prompts(page).locator(".differs").all():
        box = marked.bounding_box()
        assert inside["x"] <= box["x"] and box["x"] + box["width"] <= inside["x"] + inside["width"] + 1
    clean, other = (spot.bounding_box() for spot in prompts(page).locator(".differs").all())
    assert clean["x"] == other["x"] and clean["y"] + clean["height"] <= other["y"]  # above each other


def test_downloads(page, two):
    page.locator(".st-key-patching-heads-files").get_by_role("button").first.click()
    table = pd.read_csv(io.BytesIO(downloaded(page, "CSV")))
    wanted = patch(*two[:2], "heads", two[2])
    assert table.restored.tolist() == pytest.approx(wanted.restored.tolist(), rel=1e-3, abs=1e-4)
    assert downloaded(page, "SVG").startswith(b"<?xml") and downloaded(page, "PNG")[1:4] == b"PNG"


def test_a_picture_is_patched(visit):
    page = visit(model="tiny-vit")
    go(page, "Patching")
    expect(grid(page, "Head outputs").locator("td a")).to_have_count(16)
    expect(page.get_by_test_id("stImage")).to_have_count(2)
    at_rest(page)
    first = cell(page, "Head outputs", 0, 0).get_attribute("title")
    press(page, "Blurred")
    expect(page.get_by_text("The picture loses its fine detail.")).to_be_visible()
    expect(cell(page, "Head outputs", 0, 0)).not_to_have_attribute("title", first)
