"""Opens the page of a large run in a real browser: at two widths, light and dark, and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from generated_run import KERNELS, write_page
from installed import installed

LEAST = 4.5  # the contrast of texts that WCAG 2.1 asks for, level AA

# The texts whose contrast is too low: each with its colour, and the colour behind it.
LOW_CONTRAST = """
(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const share = byte => {
    const value = byte / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const bright = ([r, g, b]) => 0.2126 * share(r) + 0.7152 * share(g) + 0.0722 * share(b);
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const found = parse(getComputedStyle(each).backgroundColor);
      if (found.length === 3) return found;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const wrong = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || element.closest("script,style,title")) continue;
    const style = getComputedStyle(element), svg = element.closest("svg") !== null;
    const both = [bright(parse(svg ? style.fill : style.color)), bright(behind(element))];
    const [low, high] = both.sort((a, b) => a - b);
    seen++;
    if ((high + 0.05) / (low + 0.05) < LEAST) wrong.add(`${element.tagName} ${text.slice(0, 30)}`);
  }
  return {seen, wrong: [...wrong].slice(0, 9)};
})()
""".replace("LEAST", str(LEAST))
# Parts that scroll, and that the keyboard does not reach.
OUT_OF_REACH = """
[...document.querySelectorAll("main *")]
  .filter(each => each.scrollWidth > each.clientWidth + 1 && each.tabIndex < 0)
  .filter(each => ["auto", "scroll"].includes(getComputedStyle(each).overflowX))
  .map(each => each.outerHTML.slice(0, 80))
"""
PACKAGE = "chromium; Ubuntu has only a snap of it, so install Google's google-chrome-stable there"
OPEN_ALL = "document.querySelectorAll('details').forEach(each => each.open = true)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(
        installed("chromium", PACKAGE, "google-chrome-stable"), tmp_path_factory.mktemp("chromium")
    ) as made:
        yield made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("run"), 200, KERNELS)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_can_be_read(browser: Browser, page: Path, dark: bool) -> None:
    browser.look(1280, dark=dark)
    browser.open(page)
    browser.run(OPEN_ALL)
    found = browser.run(LOW_CONTRAST)
    assert found["wrong"] == []
    assert found["seen"] > 2000


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits(browser: Browser, page: Path, width: int) -> None:
    """Only tables scroll to the side, and each of them can be reached by keyboard."""
    browser.look(width)
    browser.open(page)
    browser.run(OPEN_ALL)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(OUT_OF_REACH) == []


def test_it_needs_nothing_else(browser: Browser, page: Path) -> None:
    browser.look(1280)
    browser.open(page)
    asked = [each for each in browser.events if each["method"] == "Network.requestWillBeSent"]
    assert [each["params"]["request"]["url"] for each in asked] == [page.as_uri()]
    assert browser.run("document.querySelectorAll('h2').length") >= 7


def test_by_keyboard(browser: Browser, page: Path) -> None:
    browser.look(1280)
    browser.open(page)
    browser.press("Tab", 9)
    assert browser.run("document.activeElement.textContent") == "Go to the failures"
    assert browser.run("document.activeElement.getBoundingClientRect().left") >= 0
    browser.run("document.querySelectorAll('details.failure > summary')[1].focus()")
    opened = "document.querySelectorAll('details.failure')[1].open"
    assert browser.run(opened) is False
    browser.press("Enter", 13, "\r")
    assert browser.run(opened) is True
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_tests_are_found(browser: Browser, page: Path) -> None:
    browser.look(400)
    browser.open(page)
    browser.run("document.querySelector('#find').focus()")
    browser.command("Input.insertText", text="number_12_")
    shown = (
        "new Promise(done => { const look = () => document.querySelector('#found').textContent "
        "? done(document.querySelector('#found').textContent) : setTimeout(look, 20); look() })"
    )
    assert browser.run(shown) == "1 test"
    visible = "[...document.querySelectorAll('[data-test]')].filter(each => each.checkVisibility()).length"
    assert browser.run(visible) == 1


def test_a_link_opens_what_it_leads_to(browser: Browser, page: Path) -> None:
    browser.look(1280)
    browser.open(page)
    browser.run("document.querySelector('a[href=\"#file-3\"]').click()")
    assert browser.run("document.querySelector('#file-3').checkVisibility()")


def test_without_scripts(browser: Browser, page: Path) -> None:
    """The field that finds tests is hidden. All else is there."""
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.querySelector('.find').hidden")
    assert browser.run("document.querySelectorAll('[data-test]').length") == 200


def test_a_large_run_is_little_to_draw(browser: Browser, tmp_path: Path) -> None:
    """What is folded is not laid out. So 5,000 tests on 8 kernels are no more to draw than a few."""
    large = write_page(tmp_path, 5000, KERNELS)
    browser.look(1280)
    browser.open(large)
    assert browser.run("document.querySelectorAll('[data-test]').length") == 5000
    shown = "[...document.querySelectorAll('*')].filter(each => each.checkVisibility()).length"
    assert browser.run(shown) < 5_000
    assert large.stat().st_size < 4 << 20
