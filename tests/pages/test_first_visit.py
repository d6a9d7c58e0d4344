"""The first visitor of a fresh server, at every address: its page, the app's own menu, the link's choices."""

import pytest
from playwright.sync_api import expect

from tests.browser.opening import MENU, SLOW, address, menu
from tests.browser.serving import ROOT, serve

WATCH = """
window.menus = [];
new MutationObserver(() => {
  const links = [...document.querySelectorAll("[data-testid=stTopNavSection], [data-testid=stSidebarNavLink]")];
  const shown = links.filter((link) => !link.closest(".rc-overflow-item-rest"));  // no room while measured
  const menu = shown.map((link) => link.innerText.split("\\n")[0]);
  if (menu.length && menu.join() !== (window.menus.at(-1) || []).join()) window.menus.push(menu);
}).observe(document, { childList: true, subtree: true, characterData: true });
"""


FRESH = ("/?scale=log", "/patching?answer=of")  # a server of their own; the others share one that knows their page not


@pytest.fixture(scope="module")
def shared():
    with serve(ROOT / "app.py") as url:
        yield url


@pytest.fixture
def served(where, request):
    if where not in FRESH:
        yield request.getfixturevalue("shared")
        return
    with serve(ROOT / "app.py") as url:
        yield url


@pytest.mark.parametrize(
    ("where", "shows", "kept"),
    [
        ("/?scale=log", "headline", {"scale": "log"}),
        ("/heads?scale=log", "headline", {"scale": "log"}),
        ("/stream?reading=norms", "How the stream grows and turns", {"reading": "norms"}),
        ("/attribution?answer=of", "Tested on this very input", {"answer": "of"}),
        ("/patching?answer=of", "question", {"answer": "of"}),
        ("/circuits?answer=of", "Heads in words", {"answer": "of"}),
        ("/compare?stack=decoder", "headline", {}),
        ("/masks?section=zoo", "mask bugs as tiny living models", {"section": "zoo"}),
        ("/variants?left=sparse", "What is saved, and what that costs", {"left": "sparse"}),
        ("/embeddings?clusters=3", "Each text as one vector", {"clusters": "3"}),
    ],
)
def test_the_first_visitor_of_a_page(browser, served, where, shows, kept):
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(served + where)
    expect(page.get_by_test_id(shows).or_(page.get_by_text(shows)).first).to_be_visible(timeout=SLOW)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=SLOW)
    assert page.evaluate("window.menus") == [list(MENU)]  # no other one, not for a moment
    assert menu(page) == MENU
    assert kept.items() <= address(page).items()
    assert not page.get_by_role("dialog").count() and not page.get_by_test_id("stException").count()
    context.close()
