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


def test_a_second_close_closes_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmsg, "PATH", "/dev/null")  # a device that everybody may open
    log = kmsg.KernelLog()
    log.close()
    with (tmp_path / "other").open("w") as other:  # it gets the number that is free now
        log.close()
        other.write("x")
    assert (tmp_path / "other").read_text() == "x"
