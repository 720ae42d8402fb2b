"""Tests that every text of the HTML report has the contrast that WCAG 2.1 asks for: level AA, 4.5 to 1."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_bpfmaps.coverage import reports

STYLE = (Path(reports.__file__).parent / "templates" / "base.html").read_text()
LEAST = 4.5
TEXTS = {
    "ink": ["paper", "band", "hit-bg", "part-bg", "miss-bg", "gone-bg"],
    "dim": ["paper", "band", "hit-bg", "part-bg", "miss-bg", "gone-bg"],
    "link": ["paper", "band"],
    "hit-ink": ["hit-bg"],
    "part-ink": ["part-bg"],
    "miss-ink": ["miss-bg"],
}


def _colours() -> list[dict[str, str]]:
    """Returns the colours of the light and the dark page."""
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    return [dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in (light, dark)]


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_measure() -> None:
    """Black on white has 21; grey #767676 is the lightest that passes on white."""
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") > LEAST > contrast("#777777", "#ffffff")


@pytest.mark.parametrize("page", [0, 1], ids=["light", "dark"])
def test_contrast(page: int) -> None:
    colours = _colours()[page]
    found = {
        (text, on): contrast(colours[text], colours[on]) for text, places in TEXTS.items() for on in places
    }
    assert {pair: round(value, 2) for pair, value in found.items() if value < LEAST} == {}


def test_no_other_colour_is_a_text() -> None:
    used = set(re.findall(r"[^-]color: var\(--([\w-]+)\)", STYLE))
    assert used == set(TEXTS)
