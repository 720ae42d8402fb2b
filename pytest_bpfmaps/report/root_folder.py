"""Fails a BPF test that leaves its process in another root folder, chroot(2), and puts the process back.

In another root folder neither pytest nor the tests that follow would find their files, nor /proc.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import suppress

import pytest

from pytest_bpfmaps.matrix.items import is_bpf_item

_ROOT: pytest.StashKey[int] = pytest.StashKey()  # a descriptor of the root folder, opened before the test
_LEFT = (
    "this test left its process in another root folder (chroot), where pytest has none of its files; "
    "the process was put back\n"
    "  -> do it in a separate process: subprocess.run(..., preexec_fn=lambda: os.chroot(path))"
)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keeps a descriptor of the root folder during the test."""
    if not is_bpf_item(item):
        return (yield)
    root = item.stash[_ROOT] = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        return (yield)
    finally:
        with suppress(OSError):  # the test has closed it
            os.close(root)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fails a test that stays in another root folder. A fixture may have entered one, and leave it later."""
    before, result, failure = _identity("/"), None, None
    try:
        result = yield
    except BaseException as error:
        failure = error
    if _identity("/") != before and _put_back(item):
        if failure is None or isinstance(failure, pytest.skip.Exception):
            pytest.fail(_LEFT, pytrace=False)
        item.add_report_section("call", "root folder", _LEFT)
    if failure is not None:
        raise failure
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fails the teardown if the process is in another root folder when everything is torn down."""
    result, failure = None, None
    try:
        result = yield
    except BaseException as error:
        failure = error
    if _put_back(item):
        pytest.fail(_LEFT, pytrace=False)
    if failure is not None:
        raise failure
    return result


def _put_back(item: pytest.Item) -> bool:
    """Puts the process back into the root folder of before the test. Returns whether it was in another."""
    root = item.stash.get(_ROOT, -1)
    try:
        if root < 0 or _identity(root) == _identity("/"):
            return False
        os.fchdir(root)
        os.chroot(".")
        os.chdir(item.config.invocation_params.dir)
    except OSError:  # the test closed the descriptor, or dropped CAP_SYS_CHROOT
        return False
    return True


def _identity(path: str | int) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
