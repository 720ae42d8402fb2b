"""Tests the reader of the kernel's log where the log is none."""

from pathlib import Path

import pytest

from pytest_bpfmaps.kernel import kmsg


def test_a_file_in_the_place_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container without the device, a program that writes into the log makes a file."""
    (tmp_path / "kmsg").write_text("<12>a line\n")
    monkeypatch.setattr(kmsg, "PATH", str(tmp_path / "kmsg"))
    with pytest.raises(OSError, match="it is no device"):
        kmsg.KernelLog()
