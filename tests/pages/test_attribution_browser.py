"""The Attribution page in a real Chromium: ask, choose two methods, follow a curve into the maps, check, cancel, share,
come back."""

import io
import re

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from headwise import capture
from headwise.interp.analysis.attribution import explain
from headwise.interp.analysis.attribution.faithfulness import faithfulness, ranked
from headwise.interp.analysis.targets import target
from headwise.models import load
from tests.browser.opening import SLOW, at_rest, downloaded, go, links_to

TEXT = "The people of the United States and the people of the"
LONG = " ".join(["The people of the United States met in the city, and the Congress spoke."] * 9)


def maps(page: Page):
    return page.get_by_test_id("attribution-maps")


def curves(page: Page):
    return page.get_by_test_id("attribution-curves").first


def verdict(page: Page):
    return page.get_by_test_id("verdict")


def side(page: Page, number: int):
    return maps(page).locator(f"[data-side='{number}']")


def pick(page: Page, field: str, word: str) -> None:
    """Choose in a field by typing."""
    box = page.get_by_role("combobox", name=re.compile(field))
    box.click()
    box.fill(word)
    box.press("Enter")


@pytest.fixture
def page(visit):
    found = visit(text=TEXT)
    go(found, "Attribution")
    expect(maps(found)).to_be_visible()
    expect(curves(found)).to_be_visible()
    at_rest(found)
    return found


def test_ask_and_set_two_methods_side_by_side(page):
    pick(page, "Answer", "people")
    expect(page.get_by_test_id("question")).to_contain_text("Why ·people rather than")
    at_rest(page)
    pick(page, "Rather than", "United")
    expect(page.get_by_test_id("question")).to_have_text("Why ·people rather than ·United?")
    at_rest(page)
    pick(page, "Method", "Integrated")
    links_to(page, method="integrated gradients")
    at_rest(page)
    pick(page, "Beside it", "Feature ablation")
    links_to(page, method="integrated gradients", compared="feature ablation", answer="people", against="United")
    at_rest(page)

    cap = capture(load("tiny-decoder"), TEXT)
    aim = target(cap, "people", "United")
    found = [explain(cap, name, aim) for name in ("integrated gradients", "feature ablation")]
    for number, one in enumerate(found):
        first = ranked(one)[0]
        chip = side(page, number).locator(f"[data-u='{first}']")
        expect(chip).to_have_attribute("title", re.compile(rf"· 1st of {one.features.count}$"))
        expect(side(page, number).locator(".said")).to_contain_text(one.features.labels[first].replace(" ", "·"))
    expect(verdict(page)).to_contain_text("rank correlation")
    expect(page.get_by_test_id("figures")).to_contain_text("feature ablation")
    chip = side(page, 0).locator("[data-u='3']")
    chip.hover()  # is outlined on both sides
    expect(side(page, 1).locator("[data-u='3']")).to_have_class(re.compile("pointed"))


def test_the_deletion_curve_strikes_out_what_it_takes_away(page):
    cap = capture(load("tiny-decoder"), TEXT)
    best = cap.logits[0, -1].topk(2).indices.tolist()
    one = explain(cap, "AttnLRP", target(cap, *best))
    tested = faithfulness(one)
    order, count = ranked(one), int(tested.own.counts[tested.own.at(0.5)])
    svg = curves(page).locator("[data-kind=deletion] svg")
    box = svg.bounding_box()
    svg.hover(position={"x": 36 + (box["width"] - 46) * count / len(order), "y": 60})
    gone = side(page, 0).locator(".chip.gone")
    expect(gone).to_have_count(count)
    assert {int(chip.get_attribute("data-u")) for chip in gone.all()} == set(order[:count])
    expect(curves(page).locator("[data-kind=deletion] .said")).to_contain_text("taken away")
    svg = curves(page).locator("[data-kind=insertion] svg")
    svg.hover(position={"x": 36 + (box["width"] - 46) * count / len(order), "y": 60})
    expect(side(page, 0).locator(".chip.gone")).to_have_count(len(order) - count)
    page.mouse.move(5, 5)
    expect(maps(page).locator(".gone")).to_have_count(0)


def test_a_copied_address_opens_the_same_view_and_back_undoes(page, browser):
    pick(page, "Beside it", "Saliency")
    links_to(page, compared="saliency")
    at_rest(page)
    page.get_by_text("Sanity check", exact=True).click()
    links_to(page, compared="saliency", checked="1")
    expect(page.get_by_text("What is left of the map")).to_be_visible()
    at_rest(page)
    told = verdict(page).inner_text()
    other = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark").new_page()
    other.goto(page.url)
    expect(verdict(other)).to_have_text(told, timeout=SLOW)
    expect(side(other, 1).locator(".map")).to_have_attribute("aria-label", re.compile("saliency"))
    expect(other.get_by_text("What is left of the map")).to_be_visible(timeout=SLOW)
    other.context.close()
    page.wait_for_timeout(1000)  # an address is young for a moment
    page.go_back()
    expect(page.get_by_text("What is left of the map")).to_have_count(0)
    expect(side(page, 1).locator(".map")).to_have_attribute("aria-label", re.compile("saliency"))


def test_cancel_in_the_middle_loses_nothing(page):
    page.get_by_label("Text", exact=True).fill(LONG)
    page.get_by_label("Text", exact=True).press("Control+Enter")
    expect(maps(page).locator(".chip")).not_to_have_count(0)
    page.get_by_role("button", name="Cancel").first.click()
    again = page.get_by_role("button", name=re.compile("^Go on with"))
    expect(again.first).to_be_visible()
    at_rest(page)
    expect(page.get_by_test_id("stAlert")).to_have_count(0)
    expect(page.get_by_label("Text", exact=True)).to_have_value(LONG)
    again.first.click()
    expect(curves(page)).to_be_visible()
    expect(again).to_have_count(0)


@pytest.mark.parametrize("width, beside", [(1500, True), (1280, True), (1024, False)])
def test_nothing_is_cut_off(page, width, beside):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(400)
    main = page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth - e.clientWidth") <= 0
    one, other = side(page, 0).bounding_box(), side(page, 1).bounding_box()
    assert other["x"] > one["x"] + one["width"] - 1 and one["y"] == other["y"]
    table, drawn = page.get_by_test_id("figures").bounding_box(), curves(page).bounding_box()
    assert (drawn["x"] > table["x"] + table["width"] - 1) is beside
    inside = page.get_by_test_id("figures").evaluate("e => e.scrollWidth <= e.parentElement.clientWidth + 1")
    assert inside
    for chart in curves(page).locator(".chart").all():
        box = chart.bounding_box()
        assert box["x"] + box["width"] <= drawn["x"] + drawn["width"] + 1
        assert chart.locator("svg text").evaluate_all(
            "all => all.every(e => { const [a, b] = [e.getBBox(), e.ownerSVGElement.getBoundingClientRect()];"
            " return a.x >= -1 && a.x + a.width <= b.width + 1 })"
        )
    assert verdict(page).bounding_box()["y"] < 260  # what to believe is said first


def test_downloads(page):
    table = pd.read_csv(io.BytesIO(downloaded(page, "CSV", 0)))  # of the page's left side
    cap = capture(load("tiny-decoder"), TEXT)
    aim = target(cap, *cap.logits[0, -1].topk(2).indices.tolist())
    assert table["AttnLRP"].tolist() == pytest.approx(explain(cap, "AttnLRP", aim).scores.tolist(), rel=1e-3, abs=1e-5)
    curve = pd.read_csv(io.BytesIO(downloaded(page, "CSV", 1)))
    assert set(curve["method"]) == {"AttnLRP", "attention rollout"} and curve["deletion"].between(0, 1).all()
    assert downloaded(page, "SVG").startswith(b"<?xml") and downloaded(page, "PNG")[1:4] == b"PNG"


def test_patches_lie_over_their_picture(visit):
    page = visit(model="tiny-vit")
    go(page, "Attribution")
    expect(side(page, 0).locator("rect.patch")).to_have_count(49)
    at_rest(page)
    patch = side(page, 1).locator("[data-u='24']")  # the middle one of 7 × 7
    image, box = side(page, 1).locator("svg.picture").bounding_box(), patch.bounding_box()
    assert box["x"] + box["width"] / 2 == pytest.approx(image["x"] + image["width"] / 2, abs=1.5)
    assert box["y"] + box["height"] / 2 == pytest.approx(image["y"] + image["height"] / 2, abs=1.5)
    patch.hover()
    expect(side(page, 0).locator("[data-u='24']")).to_have_class(re.compile("pointed"))
    expect(side(page, 0).locator(".said")).to_contain_text("of 49")


def test_the_same_answer_and_alternative_is_one_sentence(page):
    pick(page, "Answer", "people")
    links_to(page, answer="people")
    at_rest(page)
    pick(page, "Rather than", "people")
    expect(page.get_by_text("are the same")).to_be_visible()
    expect(page.get_by_test_id("stAlert")).to_have_count(1)
