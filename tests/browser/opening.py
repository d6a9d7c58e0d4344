"""Opening the app in a real browser, and finding one's way in it."""

import re
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlparse

from playwright.sync_api import Page, expect

from headwise.pages._shared.ways import GROUPS

SLOW = 90_000  # ms; a first run on a busy machine
MENU = {group: [name.capitalize() for name in names] for group, names in GROUPS.items()}
expect.set_options(timeout=SLOW)


@contextmanager
def opened(browser, url: str, **options):
    """A page of the app at ``url``, its head drawn. Fails for any error of the browser's console, and for any request
    that leaves this machine."""
    context = browser.new_context(viewport={"width": 1500, "height": 1000}, accept_downloads=True, **options)
    page = context.new_page()
    page.set_default_timeout(SLOW)
    problems = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda r: problems.append(r.url) if urlparse(r.url).hostname not in ("127.0.0.1", None, "") else None,
    )
    page.goto(url)
    expect(head(page).first).to_be_visible(timeout=SLOW)
    yield page
    assert not problems, problems
    context.close()


def link(url: str, **view: str) -> str:
    return f"{url}/?{urlencode(view)}" if view else url


def go(page: Page, name: str) -> None:
    """Turn to a page of the app, by the menu on top."""
    group = next(group for group, names in GROUPS.items() if name.lower() in names)
    page.get_by_test_id("stTopNavSection").filter(has_text=group).click()
    page.get_by_test_id("stTopNavDropdownLink").filter(has_text=name).click()


def menu(page: Page) -> dict[str, list[str]]:
    """What the menu on top offers."""
    found = {}
    for group in page.locator(".rc-overflow-item:not(.rc-overflow-item-rest)").get_by_test_id("stTopNavSection").all():
        group.click()
        names = page.get_by_test_id("stTopNavDropdownLink")
        expect(names.first).to_be_visible()
        found[group.inner_text().split("\n")[0].strip()] = [text.split("\n")[-1] for text in names.all_inner_texts()]
        page.keyboard.press("Escape")
        expect(names).to_have_count(0)
    return found


def grid(page: Page):
    return page.get_by_test_id("headwise-grid")


def head(page: Page):
    return page.get_by_test_id("headwise-head")


def shows(page: Page, layer: int, number: int):
    expect(head(page)).to_have_attribute("data-head", re.compile(rf"^layer {layer} · head {number}\b"))


def links_to(page: Page, **view: str) -> None:
    """Wait until the address says so."""
    page.wait_for_url(lambda url: view.items() <= {k: v[0] for k, v in parse_qs(urlparse(url).query).items()}.items())


def address(page: Page) -> dict[str, str]:
    return {k: v[0] for k, v in parse_qs(urlparse(page.url).query).items()}


def at_rest(page: Page) -> None:
    """Wait until what was asked of the server is drawn. The browser sends with a little delay, so it is waited for at
    both ends."""
    page.wait_for_timeout(250)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    page.wait_for_timeout(250)


def downloaded(page: Page, label: str, place: int = -1) -> bytes:
    """What the button of that name gives, once the page is at rest: a run that goes on takes the old button's file
    away."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    with page.expect_download() as found:
        page.get_by_test_id("stDownloadButton").filter(has_text=label).nth(place).get_by_role("button").click()
    return Path(found.value.path()).read_bytes()
