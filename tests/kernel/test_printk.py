"""Tests captured bpf_printk output and standard streams, in assertions and in reports."""

import errno
import os
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_bpfmaps import CaptureTimeoutError, UnsupportedError
from pytest_bpfmaps.events.printk import PrintkLog
from pytest_bpfmaps.kernel.tracefs import no_tracefs, tracefs

CODE = """
SEC("xdp") int say(struct xdp_md *ctx)
{
    bpf_printk("hello from %d: done", (int)(ctx->data_end - ctx->data));
    return XDP_PASS;
}
"""
OTHER = 'SEC("xdp") int say(struct xdp_md *ctx) { bpf_printk("other %d", 1); return XDP_PASS; }'
TEXT = "hello from 64: done"
OWN = f"bpfmaps-{os.getpid()}-"


@pytest.fixture
def say(load_code):
    """Runs a program that prints, once for each length of a packet."""
    program = load_code(CODE).programs.say

    def run(*lengths):
        for length in lengths:
            program.run(bytes(length))

    return run


@pytest.fixture
def printk():
    """Skips a test where nothing that was printed can be read."""
    if tracefs() is None:
        pytest.skip(no_tracefs().why)


def instances():
    return [p.name for p in (tracefs() / "instances").iterdir()]


def own_name():
    return Path("/proc/self/comm").read_text().strip()


@pytest.mark.usefixtures("printk")
class TestPrintk:
    def test_lines_can_be_asserted(self, bpf, say):
        with bpf.printk() as lines:
            say(64)
            assert lines.wait() == [TEXT]
            say(65)
            lines.wait(count=2)
            assert lines == [TEXT, "hello from 65: done"]
            assert not lines == [TEXT]  # noqa: SIM201
            assert not lines == (TEXT, "hello from 65: done")  # noqa: SIM201
            assert lines == lines  # noqa: PLR0124
        assert lines[1:] == list(lines)[1:] == ["hello from 65: done"]
        assert repr(lines) == f"['{TEXT}', 'hello from 65: done']"
        assert (lines[0].pid, lines[0].comm) == (os.getpid(), own_name())
        assert 0 < lines[0].timestamp <= lines[1].timestamp
        assert lines[0].cpu in os.sched_getaffinity(0)

    def test_lines_stay_as_they_were_at_the_end(self, bpf, say):
        with bpf.printk() as lines:
            say(64)
        say(65)
        with bpf.printk() as later:
            say(66)
        assert lines == [TEXT]
        assert lines.wait(timeout=0) == lines.expect("64", timeout=0) == [TEXT]
        assert later == ["hello from 66: done"]
        lines.close()
        assert lines == [TEXT]

    @pytest.mark.bpf_requires(helper="bpf_snprintf")  # the same release brought %% to bpf_printk
    def test_a_per_cent_sign(self, bpf, load_code):
        obj = load_code(OTHER.replace("other %d", "%d%%"))
        with bpf.printk() as lines:
            obj.programs.say.run(bytes(64))
            assert "1%" in lines.wait()

    def test_expect_takes_text_and_patterns(self, bpf, say):
        with bpf.printk() as lines:
            say(64, 165)
            assert lines.expect("hello from 6") == [TEXT]
            assert lines.expect(re.compile(r"from \d+")) == [TEXT, "hello from 165: done"]
            with pytest.raises(
                CaptureTimeoutError, match=r"to print 'goodbye': none of 2 lines did in 0.01 s\b"
            ) as told:
                lines.expect("goodbye", timeout=0.01)
            with pytest.raises(CaptureTimeoutError, match=r"to print 'good': none of 2 lines"):
                lines.expect(re.compile("good"), timeout=0.01)
        assert f"  {own_name()}-{os.getpid()}: {TEXT}\n" in str(told.value)

    def test_too_few_lines(self, bpf, say):
        with bpf.printk() as lines:
            with pytest.raises(CaptureTimeoutError, match=r"waited 0.01 s .*for 1 line of .*: 0 came\n"):
                lines.wait(timeout=0.01)
            say(*range(64, 76))
            with pytest.raises(CaptureTimeoutError, match="for 13 lines of bpf_printk: 12 came") as told:
                lines.wait(count=13, timeout=0.01)
        shown = [f"hello from {n}: done" for n in range(66, 76)]
        assert [line.partition(": ")[2] for line in str(told.value).split("\n")[1:11]] == shown

    def test_a_wait_sleeps(self, bpf):
        def sleeps():
            return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

        with bpf.printk() as lines:
            before = sleeps()
            with pytest.raises(CaptureTimeoutError):
                lines.wait(timeout=0.5)
            assert sleeps() - before >= 3

    def test_an_instance_that_can_not_be_made(self, bpf):
        with bpf.printk():
            number = max(int(name.split("-")[2]) for name in instances() if name.startswith(OWN))
        for taken in range(number + 1, number + 9):
            (tracefs() / "instances" / f"{OWN}{taken}").mkdir()
        try:
            with pytest.raises(UnsupportedError, match=f"cannot capture bpf_printk in .*/{OWN}") as refused:
                PrintkLog()
            assert refused.value.errno == errno.EEXIST
        finally:
            for taken in instances():
                if taken.startswith(OWN) and int(taken.split("-")[2]) > number:
                    (tracefs() / "instances" / taken).rmdir()

    def test_a_line_that_comes_later(self, bpf, say):
        with bpf.printk() as lines:
            thread = threading.Timer(0.1, say, [64])
            thread.start()
            try:
                assert lines.wait(timeout=10) == [TEXT]
            finally:
                thread.join()
        assert lines[0].pid == thread.native_id

    def test_lines_from_before_are_not_part_of_it(self, bpf, say):
        say(63)
        with bpf.printk() as early:
            say(64)
            with bpf.printk() as lines:
                say(65)
                assert lines.wait() == ["hello from 65: done"]
        assert early == [TEXT, "hello from 65: done"]

    def test_other_programs_are_not_heard(self, bpf, say):
        from pytest_bpfmaps.harness import Bpf
        from pytest_bpfmaps.matrix.compilers import compiler_for

        head = '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nchar L[] SEC("license") = "GPL";\n'
        with Bpf(compiler_for(None)) as stranger, bpf.printk() as mine:
            other = stranger.load(code=head + OTHER)
            with stranger.printk() as theirs:
                say(64)
                other.programs.say.run(bytes(64))
                assert mine.wait() == [TEXT]
                assert theirs.wait() == ["other 1"]
        assert len(mine) == 1

    def test_nothing_is_left(self, load_code):
        from pytest_bpfmaps.harness import Bpf
        from pytest_bpfmaps.matrix.compilers import compiler_for

        before = instances()
        with Bpf(compiler_for(None)) as own, own.printk():
            assert len(instances()) == len(before) + 1
        assert instances() == before

    def test_what_a_killed_process_left_is_taken_away(self, bpf):
        child = subprocess.Popen([sys.executable, "-S", "-c", ""])
        child.wait()
        left = tracefs() / "instances" / f"bpfmaps-{child.pid}-0"
        left.mkdir()
        used = tracefs() / "instances" / f"bpfmaps-{os.getpid()}-other"
        used.mkdir()
        try:
            with bpf.printk():
                assert not left.exists()
                assert used.exists()
        finally:
            used.rmdir()


def test_without_tracefs_it_says_so(bpf, load_code, monkeypatch):
    from pytest_bpfmaps.kernel import tracefs as module

    monkeypatch.setattr(module, "_PLACES", ())
    with pytest.raises(UnsupportedError, match=r"tracefs is not mounted(.*\n)*.*mount -t tracefs"):
        bpf.printk()
    load_code('SEC("xdp") int f(struct xdp_md *ctx) { bpf_printk("x"); return 0; }')  # and works all the same


@pytest.mark.bpf_requires(kfunc="bpf_stream_vprintk")
def test_standard_streams(bpf):
    code = """
    #include "vmlinux.h"
    #include <bpf/bpf_helpers.h>
    char LICENSE[] SEC("license") = "GPL";
    extern int bpf_stream_vprintk(int stream, const char *fmt, const void *args, __u32 size) __ksym;
    static const char text[] = "hello %d\\n";
    SEC("syscall") int hello(void *ctx)
    {
        __u64 args[] = {42};
        bpf_stream_vprintk(1, text, args, sizeof(args));
        return bpf_stream_vprintk(2, text, args, sizeof(args));
    }
    """
    obj = bpf.load(code=code)
    for _ in range(2):
        assert obj.programs.hello.run().retval == 0
    assert obj.programs.hello.stdout == obj.programs.hello.stderr == "hello 42\n" * 2
    assert obj.programs.hello.stdout == "hello 42\n" * 2, "the kernel gives it once, we keep it"


@pytest.mark.bpf_requires("xdp")
def test_a_kernel_without_streams(load_code):
    program = load_code('SEC("xdp") int f(struct xdp_md *ctx) { return 0; }').programs.f
    try:
        assert program.stdout == ""
    except UnsupportedError as e:
        assert "has no streams" in str(e)  # noqa: PT017


REPORTED = """
import pytest

CODE = '''
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("xdp") int say(struct xdp_md *ctx) { bpf_printk("size %d", (int)(ctx->data_end - ctx->data)); return 2; }
'''

def test_passes(bpf_module):
    bpf_module.load(code=CODE).programs.say.run(bytes(65))

def test_fails(bpf_module):
    bpf_module.load(code=CODE).programs.say.run(bytes(64))
    assert 0
"""


@pytest.mark.usefixtures("printk")
def test_a_failing_test_shows_what_was_printed(pytester, bpf):
    """`bpf` sends this test into the guest. The tests inside it run there as on a host."""
    pytester.makepyfile(REPORTED)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.re_match_lines([r"-+ Captured bpf_printk -+", r".*-\d+: size 64"])
    result.stdout.no_re_match_line(r".*size 65")
