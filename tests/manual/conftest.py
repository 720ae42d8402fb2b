"""Gives the tests of a page the page's C files, and runs most pages on one kernel."""

import pytest
from manual_pages import HOWTO, write_sources

from pytest_bpfmaps.kernel.running_kernel import missing_features
from pytest_bpfmaps.matrix.compilers import in_guest
from pytest_bpfmaps.matrix.items import HOST, kernel_of


def page_of(node):
    """Returns the page that a test is of, or None."""
    page = getattr(node.cls or node.module, "PAGE", None)
    return None if page is None else HOWTO / page


@pytest.fixture
def bpf(bpf, request, tmp_path):
    page = page_of(request.node)
    if page is not None:
        write_sources(page, tmp_path)
        bpf._folders.insert(0, tmp_path)
    return bpf


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Names the page of a test that fails: a message about a C file has only the name of the file."""
    report = yield
    page = page_of(item) if isinstance(item, pytest.Function) else None
    if report.failed and page is not None:
        report.sections.append(("page", f"{page}: a line of its C files is the line of the page"))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leaves the guests those tests of pages that the host can't run: guests may be emulated, and slow.

    A run for guests only has all tests.
    """
    if in_guest():
        return
    here = {name_of(item) for item in items if kernel_of(item) == HOST and runs_here(item)}
    twice = [item for item in items if kernel_of(item) != HOST and name_of(item) in here]
    if twice:
        config.hook.pytest_deselected(items=twice)
        items[:] = [item for item in items if item not in twice]


def name_of(item):
    """Returns what the tests of one function on several kernels share."""
    return item.nodeid.replace(f"[{kernel_of(item)}]", "[]").replace(f"-{kernel_of(item)}]", "]")


def runs_here(item):
    """Returns whether a test of a page names what it needs, and the running kernel has it."""
    marks = list(item.iter_markers("bpf_requires"))
    if getattr(item, "cls", None) is None or not hasattr(item.cls, "PAGE") or not marks:
        return False
    needs = [(mark.args, {k: v for k, v in mark.kwargs.items() if k != "clang"}) for mark in marks]
    return not any(any(missing_features(*each)) for each in needs)
