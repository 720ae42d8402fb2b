"""Makes an error of a test's teardown out of BPF objects that outlive the test."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpfmaps.matrix.items import is_bpf_item

if TYPE_CHECKING:
    from pytest_bpfmaps.kernel.open_resources import Leak, OpenResources

_BEFORE: pytest.StashKey[OpenResources] = pytest.StashKey()
_RAISED: pytest.StashKey[bool] = pytest.StashKey()
_REMEDY = (
    "close it, best by 'with', or have a fixture make it: bpf, bpf_netns, bpf_cgroup; what tests share comes "
    "from bpf_module, bpf_session or a fixture of your own with such a scope"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers the key of the configuration file that switches this off."""
    parser.addini("bpf_leaks", "fail tests that leave BPF objects open", type="bool", default=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Notes what is open before the test."""
    if "pytest_bpfmaps.libbpf" not in sys.modules and not is_bpf_item(item):
        return
    if item.config.getini("bpf_leaks"):
        from pytest_bpfmaps.kernel.open_resources import snapshot

        item.config.stash[_BEFORE] = snapshot()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Excludes what a fixture of wider scope makes: it outlives the test that uses it first."""
    stash = request.config.stash
    if fixturedef.scope == "function" or _BEFORE not in stash:
        return (yield)
    from pytest_bpfmaps.kernel.open_resources import OpenResources, snapshot

    before = snapshot()
    try:
        return (yield)
    finally:
        now, old = snapshot(), stash[_BEFORE]
        fresh = {fd: kind for fd, kind in now.descriptors.items() if before.descriptors.get(fd) != kind}
        netns = old.netns if now.netns == before.netns else now.netns
        stash[_BEFORE] = OpenResources(old.descriptors | fresh, old.pins | (now.pins - before.pins), netns)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes whether the test raised an error: its traceback keeps the test's objects alive."""
    if call.excinfo is not None:
        item.stash[_RAISED] = True
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Compares when everything that belongs to the test is torn down."""
    result = yield
    before = item.config.stash.get(_BEFORE, None)
    if before is None:
        return result
    del item.config.stash[_BEFORE]
    if item.stash.get(_RAISED, False):
        return result
    from pytest_bpfmaps.kernel.open_resources import since

    found = since(before, getattr(item, "funcargs", None))
    if found:
        pytest.fail(_message(item, found), pytrace=False)
    return result


def _message(item: pytest.Item, found: list[Leak]) -> str:
    lines = [f"{leak.what}{_where(item, leak)}" for leak in found]
    if len(lines) == 1:  # pytest's summary has the first line only
        return f"1 thing outlives the test: {lines[0]}\n  -> {_REMEDY}"
    head = f"{len(lines)} things outlive the test, such as {found[0].what.removesuffix(', opened')}:"
    return "\n".join([head, *(f"  {line}" for line in lines), f"  -> {_REMEDY}"])


def _where(item: pytest.Item, leak: Leak) -> str:
    if not leak.places:
        file, line, _ = item.location
        return f" while {file}:{(line or 0) + 1} ran"
    innermost = leak.places[0]
    own = next((p for p in leak.places if Path(p[0]) == item.path), innermost)
    made = f", made at {_shown(item, own)}"
    return made if own == innermost else f"{made}, in {_shown(item, innermost)}"


def _shown(item: pytest.Item, place: tuple[str, int]) -> str:
    file = os.path.relpath(place[0], item.config.rootpath)
    return f"{place[0] if file.startswith('..') else file}:{place[1]}"
