"""A report that can't be written leaves the one of an earlier run as it was."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_bpfmaps.coverage.reports.report_file import put


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Has the kernel refuse larger files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_earlier_report_stays_when_there_is_no_room(tmp_path: Path) -> None:
    target = tmp_path / "report"
    put(target, "earlier")
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        put(target, "x" * 2000)
    assert target.read_text() == "earlier"
    assert [each.name for each in tmp_path.iterdir()] == ["report"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("report")
    put(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "report").read_bytes() == b"new"


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        put(pipe, "text\udc80")
        assert os.read(reading, 100) == b"text\x80"
    finally:
        os.close(reading)
    assert pipe.is_fifo()
