"""The Compare page in a real Chromium: two prompts, another head, follow one to the Heads page, models, edits, share,
come back."""

import io
import re

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from headwise import capture
from headwise.interp.analysis.comparing.answer import answers_of
from headwise.interp.analysis.comparing.compare import compare
from headwise.models import load
from tests.browser.opening import SLOW, address, at_rest, downloaded, go, links_to, shows

TEXT = "The people of the United States"
OTHER = "The people of the old States"


def part(page: Page, name: str):
    return page.locator(f".st-key-part-{name}")


def ranked(page: Page):
    return part(page, "heads").get_by_test_id("stream-bars")


def other_text(page: Page):
    return page.get_by_label("The other text")


def compared(one=TEXT, other=OTHER):
    subject = load("tiny-decoder")
    return compare(capture(subject, one), capture(subject, other))


@pytest.fixture
def page(visit):
    found = visit(text=TEXT)
    go(found, "Compare")
    expect(ranked(found)).to_be_visible()
    other_text(found).fill(OTHER)
    other_text(found).press("Control+Enter")
    links_to(found, beside=OTHER)
    at_rest(found)
    return found


def test_two_prompts_aligned_with_their_difference_and_signed_answers(page):
    found = compared()
    words = page.get_by_test_id("beside")
    differ = sum(found.alignments["input"].differs) + sum(map(len, found.alignments["input"].alone))
    expect(words.locator(".differs")).to_have_count(differ)
    first = found.table.iloc[0]
    expect(ranked(page).locator("a.line").first).to_contain_text(f"head {first['layer']}·{first['head']}")
    bars = part(page, "answer").get_by_test_id("stream-bars")
    expect(bars.locator(".line").first).to_contain_text(answers_of(found).table["answer"][0].strip())
    expect(page.get_by_test_id("groups").locator("div span:first-child").first).to_be_visible()
    table = pd.read_csv(io.BytesIO(downloaded(page, "CSV", 3)))  # of the map: both runs have all their heads
    assert table["side"].value_counts().to_dict() == {"one": 32, "other": 32}
    answers = pd.read_csv(io.BytesIO(downloaded(page, "CSV", 2)))
    assert answers["change"].tolist() == pytest.approx(answers_of(found).table["change"].tolist(), abs=1e-5)
    assert "against" not in address(page)  # nobody chose one


def test_another_head_both_its_patterns_and_to_the_heads_page(page):
    place = compared().table.iloc[2]
    layer, head = int(place["layer"]), int(place["head"])
    drawn = page.get_by_test_id("headwise-numbers").first
    left, top, width, height = map(float, drawn.locator(".hw-base").get_attribute("data-plot").split(","))
    box = drawn.locator(".hw-over").bounding_box()
    page.mouse.click(box["x"] + left + (head + 0.5) * width, box["y"] + top + (layer + 0.5) * height)
    links_to(page, layer=str(layer), head=str(head))
    expect(part(page, "head")).to_contain_text(f"Head {layer}·{head}")
    at_rest(page)
    part(page, "head").get_by_text("Second", exact=True).click()
    links_to(page, drawn="other", layer=str(layer))
    at_rest(page)
    page.wait_for_timeout(1000)  # an address is young for a moment
    page.go_back()
    expect(part(page, "head").get_by_role("radio", name="Change")).to_be_checked()
    at_rest(page)
    ranked(page).locator("a.line").first.click()
    first = compared().table.iloc[0]
    shows(page, int(first["layer"]), int(first["head"]))


def test_a_copied_address_opens_the_same_view(page, browser):
    told = part(page, "heads").get_by_test_id("note").first.inner_text()
    other = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark").new_page()
    other.goto(page.url)
    expect(part(other, "heads").get_by_test_id("note").first).to_have_text(told, timeout=SLOW)
    expect(other_text(other)).to_have_value(OTHER)
    other.context.close()


def test_before_and_after_fine_tuning_and_back(page):
    page.get_by_text("Another model", exact=True).click()
    links_to(page, by="model", compare="tiny-attention-only")
    expect(part(page, "heads")).to_contain_text(" → ")
    at_rest(page)
    page.wait_for_timeout(1000)
    page.go_back()
    expect(other_text(page)).to_have_value(OTHER)


def test_before_and_after_an_edit(page):
    page.get_by_text("After an edit", exact=True).click()
    expect(page.get_by_text("Nothing is changed yet")).to_be_visible()
    at_rest(page)
    box = page.get_by_role("combobox", name=re.compile("Remove a head"))
    box.click()
    box.fill("0·3")
    box.press("Enter")
    links_to(page, by="edit", edits="mean-0-3")
    expect(page.get_by_test_id("edited")).to_contain_text("0·3")
    expect(ranked(page)).to_be_visible()


def test_texts_that_have_nothing_in_common_are_one_sentence(page):
    other_text(page).fill("Q")
    other_text(page).press("Control+Enter")
    expect(page.get_by_test_id("stAlert")).to_have_count(1)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    other_text(page).fill(OTHER)
    other_text(page).press("Control+Enter")
    expect(ranked(page)).to_be_visible()


@pytest.mark.parametrize(("width", "columns"), [(1500, 3), (1280, 2), (1024, 2)])
def test_nothing_is_cut_off(page, width, columns):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(400)
    main = page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth - e.clientWidth") <= 0
    boxes = {name: part(page, name).bounding_box() for name in ("heads", "head", "answer")}
    assert boxes["head"]["x"] > boxes["heads"]["x"] + boxes["heads"]["width"] - 1
    assert (boxes["answer"]["x"] > boxes["head"]["x"] + boxes["head"]["width"] - 1) is (columns == 3)
    for bars in page.get_by_test_id("stream-bars").all():
        assert bars.evaluate("e => [...e.querySelectorAll('em')].every(t => t.scrollWidth <= t.clientWidth + 1)")
        box = bars.bounding_box()
        assert box["x"] + box["width"] <= width
