"""Tests that docs/maps has a page for each type of map, with a program, a picture, and its release."""

import re

import pytest
from manual_pages import MAPS, blocks

from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.feature_releases import since

PAGES = sorted(MAPS.glob("*.md"))
NOT_TAUGHT = {MapType.UNSPEC, MapType.INSN_ARRAY}  # no program uses the latter itself
_SINCE = re.compile(
    r"`BPF_MAP_TYPE_(\w+)`, since \[Linux ([\d.]+)\]\(https://git\.kernel\.org/linus/[0-9a-f]{12}\)"
)
_IS_IN = re.compile(r"`BPF_MAP_TYPE_(\w+)` is in Linux [\d.]+")  # its first release is not known


def types_of(page):
    """Returns the types that a page teaches, with their first releases."""
    text = page.read_text()
    return dict(_SINCE.findall(text)) | dict.fromkeys(_IS_IN.findall(text))


def test_each_type_has_one_page():
    taught = [name for page in PAGES for name in types_of(page)]
    assert sorted(taught) == sorted(type.name for type in MapType if type not in NOT_TAUGHT)


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


def test_each_page_is_in_the_list():
    (listed,) = (MAPS / name for name in ["choose.md"])
    links = set(re.findall(r"\]\(([\w-]+\.md)\)", listed.read_text()))
    assert links == {page.name for page in PAGES} - {"choose.md"}
