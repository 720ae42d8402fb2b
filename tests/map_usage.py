"""Notes which types of map each test has; by JUnit's XML it gets to ci/map-types and docs/map-types.md."""

from __future__ import annotations

from functools import cache, wraps

import pytest

PROPERTY = "map_types"
_seen: set[str] = set()


@cache
def _watch() -> None:
    """Has each map that a program declares, or a test makes, leave its type here."""
    from pytest_bpfmaps.maps import Map

    plain = Map.__init__

    @wraps(plain)
    def noting(self, *args, **options):
        plain(self, *args, **options)
        if "." not in self.name:  # .rodata and the like are arrays that nobody asked for
            _seen.add(str(self.type))

    Map.__init__ = noting


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Starts with none."""
    if "bpf" in getattr(item, "fixturenames", ()):
        _watch()
        _seen.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Adds the types to the report of the test's own part."""
    if call.when == "call" and _seen:
        item.user_properties.append((PROPERTY, " ".join(sorted(_seen))))
        _seen.clear()
