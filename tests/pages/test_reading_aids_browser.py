"""Every page as axe-core sees it, light and dark: nothing that keeps somebody from reading or using it; and what one
can choose there says on hover what it is."""

from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import expect

from headwise.pages._shared.ways import ICONS
from tests.browser.opening import SLOW

AXE = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")).read_text("utf-8")
SECTIONS = tuple(f"masks?section={name}" for name in ("compose", "lint", "zoo"))
PLACES = ("", *(name for name in ICONS if name != "heads"), *SECTIONS, "variants?part=trained", "?model=tiny-vit")
CHOICES = """() => [...document.querySelectorAll("[data-testid=stButtonGroup] button, [data-testid=stCheckbox]")]
  .filter((e) => e.checkVisibility() && !e.title)
  .filter((e) => !e.closest("[data-testid=stElementContainer]").querySelector("[data-testid=stTooltipIcon]"))
  .map((e) => e.innerText)"""
AT_REST = "document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'"


@pytest.fixture(scope="module")
def contexts(browser):
    found = {
        theme: browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=theme)
        for theme in ("light", "dark")
    }
    yield found
    for context in found.values():
        context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_serious_and_a_sentence_for_every_choice(contexts, app_url, place, theme):
    page = contexts[theme].new_page()
    page.goto(f"{app_url}/{place}")
    expect(page.get_by_test_id("stMainBlockContainer").get_by_role("button").first).to_be_visible(timeout=SLOW)
    page.wait_for_function(AT_REST, timeout=SLOW)
    page.wait_for_timeout(1500)  # what a fragment began stands
    page.wait_for_function(AT_REST, timeout=SLOW)
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    serious = [
        (fault["id"], node["html"][:120], node["failureSummary"][:300])
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
    unexplained = page.evaluate(CHOICES)
    page.close()
    assert not unexplained
    assert not serious, serious[:5]
