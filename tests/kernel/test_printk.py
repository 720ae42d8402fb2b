"""Tests captured bpf_printk output and standard streams, in assertions and in reports."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps import CaptureTimeoutError, UnsupportedError
from pytest_bpfmaps.kernel.tracefs import tracefs

CODE = """
const volatile __u32 target_pid;
SEC("tp/syscalls/sys_enter_getpgid") int say(void *ctx)
{
    __u32 pid = bpf_get_current_pid_tgid() >> 32;
    if (pid == target_pid)
        bpf_printk("hello from %d: done", pid);
    return 0;
}
"""
OTHER = 'SEC("tp/syscalls/sys_enter_getpgid") int say(void *ctx) { bpf_printk("other %d", 1); return 0; }'

printk = pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_getpgid")


def instances():
    return [p.name for p in (tracefs() / "instances").iterdir()]


@printk
class TestPrintk:
    def test_lines_can_be_asserted(self, bpf, load_code):
        obj = load_code(CODE, globals={"target_pid": os.getpid()})
        text = f"hello from {os.getpid()}: done"
        with bpf.printk() as lines, obj.attach():
            os.getpgid(0)
            assert lines.wait() == [text]
            os.getpgid(0)
            lines.wait(count=2)
        assert lines == [text, text]
        assert (lines[0].pid, lines[0].comm) == (os.getpid(), Path("/proc/self/comm").read_text().strip())
        assert lines[0].timestamp <= lines[1].timestamp

    @pytest.mark.bpf_requires(helper="bpf_snprintf")  # the same release brought %% to bpf_printk
    def test_a_per_cent_sign(self, bpf, load_code):
        obj = load_code(OTHER.replace("other %d", "%d%%"))
        with bpf.printk() as lines, obj.attach():
            os.getpgid(0)
            assert "1%" in lines.wait()

    def test_expect_takes_text_and_patterns(self, bpf, load_code):
        obj = load_code(CODE, globals={"target_pid": os.getpid()})
        with bpf.printk() as lines, obj.attach():
            os.getpgid(0)
            assert len(lines.expect("hello from")) == 1
            assert len(lines.expect(re.compile(r"from \d+"))) == 1
            with pytest.raises(
                CaptureTimeoutError, match=r"to print 'goodbye': none of 1 lines(.*\n)*.*hello"
            ):
                lines.expect("goodbye", timeout=0.01)
            with pytest.raises(CaptureTimeoutError, match=r"for 2 lines of bpf_printk: 1 came"):
                lines.wait(count=2, timeout=0.01)

    def test_lines_from_before_are_not_part_of_it(self, bpf, load_code):
        obj = load_code(CODE, globals={"target_pid": os.getpid()})
        with obj.attach():
            os.getpgid(0)
            with bpf.printk() as lines:
                os.getpgid(0)
                lines.wait()
        assert len(lines) == 1

    def test_other_programs_are_not_heard(self, bpf, load_code):
        from pytest_bpfmaps.harness import Bpf
        from pytest_bpfmaps.matrix.compilers import compiler_for

        obj = load_code(CODE, globals={"target_pid": os.getpid()})
        head = '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nchar L[] SEC("license") = "GPL";\n'
        with Bpf(compiler_for(None)) as stranger, bpf.printk() as mine:
            other = stranger.load(code=head + OTHER)
            with stranger.printk() as theirs, obj.attach(), other.attach():
                os.getpgid(0)
                assert mine.wait() == [f"hello from {os.getpid()}: done"]
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
        with bpf.printk():
            assert not left.exists()


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


@printk
def test_a_failing_test_shows_what_was_printed(pytester, bpf):
    """`bpf` sends this test into the guest. The tests inside it run there as on a host."""
    pytester.makepyfile(REPORTED)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.re_match_lines([r"-+ Captured bpf_printk -+", r".*-\d+: size 64"])
    result.stdout.no_re_match_line(r".*size 65")
