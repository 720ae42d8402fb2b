"""Tests that a page of docs/maps has a program, a picture, and the release of its type."""

import re

import pytest
from manual_pages import MAPS, blocks

from pytest_bpfmaps.kernel.feature_releases import since

PAGES = sorted(MAPS.glob("*.md"))
_HEAD = re.compile(
    r"`BPF_MAP_TYPE_(\w+)`, since \[Linux ([\d.]+)\]\(https://git\.kernel\.org/linus/[0-9a-f]{12}\)"
)


def types_of(page):
    """Returns the types in the head of a page, and their releases."""
    return dict(_HEAD.findall(page.read_text()))


@pytest.mark.parametrize("page", [page for page in PAGES if types_of(page)], ids=lambda page: page.stem)
def test_a_page_of_a_type(page):
    text, found = page.read_text(), blocks(page)
    programs = "".join(block.text for block in found if block.language == "c")
    for name, release in types_of(page).items():
        assert since(f"map type {name.lower()}") == release
        assert name == "STRUCT_OPS" or re.search(rf"\bBPF_MAP_TYPE_{name}\b", programs)
    assert found[0].language == "text", "the page has no picture"
    assert "\n## When to take it\n" in text
    assert "\n## What goes wrong\n" in text
    assert "output" in {block.language for block in found}, "no message of the harness is shown"
