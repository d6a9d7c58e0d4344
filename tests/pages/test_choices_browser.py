"""Choices in a real browser: they live on while other pages are looked at, and end with what they belong to."""

import re

from playwright.sync_api import Page, expect

from tests.browser.opening import address, go, head, links_to, shows


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).or_(page.get_by_role("radio", name=name)).first.click()


def test_choices_live_on_while_other_pages_are_looked_at(visit):
    page = visit(layer="2", head="3")
    shows(page, 2, 3)
    press(page, "Log")
    links_to(page, scale="log")
    go(page, "Masks")
    page.wait_for_url(re.compile("/masks"))
    press(page, "Compose")
    links_to(page, section="compose")
    page.get_by_text("Strided", exact=True).click()
    expect(page.get_by_text("Causal() & Strided(4)")).to_be_visible()
    go(page, "Embeddings")
    page.get_by_role("slider", name="Clusters").press("ArrowRight")
    links_to(page, clusters="3")
    go(page, "Heads")
    shows(page, 2, 3)
    links_to(page, scale="log", layer="2", head="3")
    assert "clusters" not in address(page) and "section" not in address(page)
    go(page, "Masks")
    expect(page.get_by_text("Causal() & Strided(4)")).to_be_visible()
    links_to(page, section="compose")
    go(page, "Embeddings")
    links_to(page, clusters="3")


def test_another_model_chosen_on_another_page_ends_the_choice_of_a_head(visit):
    page = visit(layer="2", head="3", scale="log", pin="key-3")
    shows(page, 2, 3)
    go(page, "Masks")
    expect(head(page).first).to_be_visible()
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="tiny-attention-only").click()
    links_to(page, model="tiny-attention-only")
    go(page, "Heads")
    expect(page.get_by_test_id("headline")).to_contain_text("tiny-attention-only")
    links_to(page, scale="log", model="tiny-attention-only")
    expect(head(page)).to_be_visible()
    assert "pin" not in address(page) and (address(page)["layer"], address(page)["head"]) != ("2", "3")
