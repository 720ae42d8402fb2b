"""Join two programs by a map: one knows the file's name, and the other knows the result."""

import errno
import os

import pytest

pytestmark = pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_openat", "ringbuf")


def test_only_failures_are_reported_with_their_reason(bpf, tmp_path):
    tracer = bpf.load("failed_opens.bpf.c", globals={"target_pid": os.getpid()})
    missing = str(tmp_path / "missing")

    with tracer.attach(), tracer.maps.events.capture() as events:
        os.close(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(FileNotFoundError):
            os.open(missing, os.O_RDONLY)
        with pytest.raises(IsADirectoryError):
            os.open(tmp_path, os.O_WRONLY)

        events.expect(path=missing, error=errno.ENOENT, count=1)
        events.expect(path=str(tmp_path), error=errno.EISDIR, count=1)
        events.expect_none(path="/dev/null")
    assert tracer.maps.asked == {}
