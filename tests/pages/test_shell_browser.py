"""What stands around every page, in a real Chromium: the bar, the address, waiting and errors, large type, a first
visit."""

import re

from playwright.sync_api import Page, expect

from headwise import load
from headwise.interp.analysis.in_words import ROLES
from headwise.models.catalogue import CATALOGUE
from headwise.pages._heads.welcome import TOUR
from headwise.pages._shared.input import default_text
from tests.browser.opening import address, links_to, shows

TEXT = "The people of the United States."


def choose_model(page: Page, name: str) -> None:
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name=re.compile(f"^{name}\\b")).click()


def fill(page: Page, text: str) -> None:
    box = page.get_by_label("Text", exact=True)
    box.fill(text)
    box.press("Control+Enter")


def is_at(page: Page, model: str, tokens: int) -> None:
    """The model and the length of its text, as the page shows them."""
    headline = page.get_by_test_id("headline")
    expect(headline).to_contain_text(model)
    expect(headline).to_contain_text(f"{tokens:,} tokens")
    expect(page.get_by_role("combobox", name="Model")).to_have_value(re.compile(f"^{model}\\b"))


def count(model: str, text: str) -> int:
    return len(load(model).encode(text).axes["input"])


def test_back_and_forward_move_the_view_over_model_and_text(visit):
    page = visit(layer="1", head="6")
    first = default_text("decoder")
    fill(page, TEXT)
    links_to(page, text=TEXT)
    is_at(page, "tiny-decoder", count("tiny-decoder", TEXT))
    choose_model(page, "tiny-attention-only")
    links_to(page, model="tiny-attention-only")
    is_at(page, "tiny-attention-only", count("tiny-attention-only", TEXT))
    page.wait_for_timeout(1000)  # the browser knows its address

    page.go_back()
    is_at(page, "tiny-decoder", count("tiny-decoder", TEXT))
    shows(page, 1, 6)
    page.go_back()
    is_at(page, "tiny-decoder", count("tiny-decoder", first))
    expect(page.get_by_label("Text", exact=True)).to_have_value(first)
    page.go_forward()
    is_at(page, "tiny-decoder", count("tiny-decoder", TEXT))
    assert address(page)["text"] == TEXT


def test_after_an_error_the_address_is_that_of_what_is_shown_and_back_leads_out(visit):
    page = visit(layer="1", head="6")
    page.wait_for_timeout(1000)
    fill(page, " ")
    alert = page.get_by_test_id("stAlert")
    expect(alert).to_contain_text("The text is empty")
    bar, said = page.locator(".st-key-bar").bounding_box(), alert.bounding_box()
    assert 0 <= said["y"] - (bar["y"] + bar["height"]) < 60 and said["width"] > 1200  # beside what failed, not aside
    page.wait_for_url(re.compile("text=(%20|\\+)"))
    page.wait_for_timeout(1000)
    page.go_back()
    expect(alert).to_have_count(0)
    shows(page, 1, 6)


WATCH = """() => {
  window.waits = [];
  const look = () => {
    const place = document.querySelector(".st-key-waiting");
    const spinner = place?.querySelector("[data-testid=stSpinner]");
    if (!spinner) return;
    const height = parseFloat(getComputedStyle(place, "::after").height);
    const head = document.querySelector("[data-testid=headwise-head]");
    window.waits.push([spinner.innerText, height, head?.checkVisibility() ?? false]);
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
}"""  # what is said while something is made, how high the grey blocks are, and is the last head still there?


def test_a_page_that_waits_says_so_and_is_not_white(visit, smollm2_folder):
    page = visit(model="smollm2-135m")
    page.evaluate(WATCH)
    text = "The Congress of the United States met. " * 60  # runs for longer than a spinner needs to come
    fill(page, text)
    is_at(page, "smollm2-135m", count("smollm2-135m", text))
    said = [wait for wait in page.evaluate("window.waits") if "Running the model" in wait[0]]
    assert said and all(height > 300 and not stale for _, height, stale in said)


def test_what_cannot_be_loaded_is_said_in_the_page_and_the_text_stays(visit):
    page = visit(text=TEXT)
    page.get_by_role("combobox", name="Model").fill("nobody/no-such-model")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("stAlert")).to_contain_text("nobody/no-such-model")
    expect(page.get_by_label("Text", exact=True)).to_have_value(TEXT)
    links_to(page, model="nobody/no-such-model", text=TEXT)


def test_the_menu_says_of_each_model_what_it_is(visit):
    page = visit()
    page.get_by_role("combobox", name="Model").click()
    option = page.get_by_role("option", name=re.compile("^tiny-vit\\b"))
    expect(option).to_have_text(f"tiny-vit – {CATALOGUE['tiny-vit'].about}")
    assert option.evaluate("e => e.scrollWidth <= e.clientWidth")  # all of it can be read


def test_copy_link_copies_the_address_of_the_view(visit):
    page = visit(layer="2", head="3", scale="log")
    shows(page, 2, 3)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_presentation_is_large_travels_in_the_address_and_is_left_by_the_same_key(visit):
    page = visit(layer="1", head="6")
    root = "parseFloat(getComputedStyle(document.documentElement).fontSize)"
    small = page.evaluate(root)
    page.locator("body").press("p")
    links_to(page, present="1")
    expect(page.get_by_role("button", name="Leave")).to_be_visible()
    page.wait_for_function(f"{root} >= 1.3 * {small}")
    assert page.locator(".st-key-part-grid").bounding_box()["y"] < 400
    page.locator("body").press("p")
    page.wait_for_url(lambda url: "present" not in url)
    page.wait_for_function(f"{root} === {small}")


def test_a_stranger_sees_an_induction_head_and_why_it_is_called_that_in_one_click(visit):
    page = visit()
    page.get_by_role("button", name="An induction head").click()
    links_to(page, role="induction", pin="query-28")
    shows(page, 1, 6)
    expect(page.get_by_test_id("does")).to_contain_text("induction: on random tokens said twice it gives 78%")
    expect(page.get_by_test_id("chip-says")).to_contain_text(ROLES["induction"].sentence.split("{")[0].strip())
    expect(page.locator(".st-key-welcome")).to_have_count(0)


def test_the_other_two_things_worth_seeing(visit):
    page = visit()
    page.get_by_role("button", name="A cross-attention that spells").click()
    expect(page.get_by_test_id("does")).to_contain_text("follows the source")
    links_to(page, model="tiny-encoder-decoder")
    other = visit()
    other.get_by_role("button", name="A leak").click()
    expect(other.get_by_test_id("headwise-legend").first).to_contain_text("forbidden positions")


def test_the_tour_walks_through_the_page_and_can_be_skipped(visit):
    page = visit()
    page.get_by_role("button", name="Take the tour").click()
    for number, (place, _) in enumerate(TOUR, 1):
        expect(page.locator(".st-key-tour")).to_contain_text(f"{number} of {len(TOUR)}")
        expect(page.locator(f".st-key-{place}")).to_have_css("outline-style", "solid")
        if number < len(TOUR):
            page.get_by_role("button", name="Next", exact=True).click()
    page.get_by_role("button", name="Done").click()
    expect(page.locator(".st-key-tour")).to_have_count(0)
    again = visit()
    again.get_by_role("button", name="Take the tour").click()
    again.get_by_role("button", name="Skip").click()
    expect(again.locator(".st-key-tour")).to_have_count(0)
    expect(again.locator(".st-key-welcome")).to_have_count(0)


def test_a_next_token_is_a_way_to_go_on(visit):
    page = visit(temperature="1")
    likely = page.locator(".st-key-next").get_by_role("button").or_(page.locator(".st-key-next").get_by_role("radio"))
    tokens = count("tiny-decoder", default_text("decoder"))
    expect(likely).not_to_have_count(0)
    assert not [text for text in likely.all_inner_texts() if text.endswith(" 0%")]
    likely.nth(1).click()
    is_at(page, "tiny-decoder", tokens + 1)
    page.wait_for_url(re.compile(r"written=\d+"))
