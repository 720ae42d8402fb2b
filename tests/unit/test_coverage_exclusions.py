"""Tests which lines ``// bpfmaps: no cover`` leaves out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_bpfmaps.coverage.exclusions import excluded_lines

CASES = {
    "one line": ("a();\nb(); // bpfmaps: no cover\nc();", {2}),
    "a comment of the other kind": ("a(); /* bpfmaps: no cover */\nb();", {1}),
    "with a reason": ("a(); // bpfmaps: no cover: never on CI", {1}),
    "an if": ("if (x) { // bpfmaps: no cover\n\ta();\n}\nb();", {1, 2, 3}),
    "a function with blocks": (
        "int f(void) { // bpfmaps: no cover\nif (x) {\na();\n}\n}\nb();",
        {1, 2, 3, 4, 5},
    ),
    "an else": ("if (x) {\na();\n} else { // bpfmaps: no cover\nb();\n}\nc();", {3, 4, 5}),
    "a closed block": ("if (x) { a(); } // bpfmaps: no cover\nb();", {1}),
    "braces in text": ("if (x) { // bpfmaps: no cover\nf(\"}\");\ng('}');\n}\nh();", {1, 2, 3, 4}),
    "braces in comments": ("if (x) { // bpfmaps: no cover\n// }\n/* }\n} */ a();\n}\nh();", {1, 2, 3, 4, 5}),
    "no end": ("if (x) { // bpfmaps: no cover\na();", {1, 2}),
    "another comment": ("a(); // no cover\nb(); // bpfmaps: no covering", set()),
    "nothing": ("", set()),
}


@pytest.mark.parametrize("name", CASES)
def test_lines(name: str) -> None:
    text, lines = CASES[name]
    assert excluded_lines(text.split("\n")) == lines


def test_the_block_that_the_manual_shows_is_left_out() -> None:
    page = (Path(__file__).parents[2] / "docs/coverage.md").read_text()
    (text,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert excluded_lines([*text.splitlines(), "after();"]) == {1, 2, 3, 4}
