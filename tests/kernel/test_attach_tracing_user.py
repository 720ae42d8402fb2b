"""Tests attaching to functions of programs and libraries, to USDT, and to perf events."""

import errno
import mmap
import os
import subprocess
import sys

import pytest

from pytest_bpfmaps import AttachError
from pytest_bpfmaps.elf.binaries import find_binary
from pytest_bpfmaps.elf.functions_by_name import elf_functions

PID = """
const volatile __u32 target_pid;
__u64 runs, cookie;
static __always_inline __attribute__((unused)) int mine(void)
{ return bpf_get_current_pid_tgid() >> 32 == target_pid; }
"""
COUNT = "{ if (mine()) __sync_fetch_and_add(&runs, 1); return 0; }"

pytestmark = pytest.mark.bpf_requires("uprobe/x")


@pytest.fixture
def counter(load_code):
    """Returns the C code of a program for a section. It counts its runs in this process."""

    def load(section, body=COUNT):
        return load_code(
            PID + f'SEC("{section}") int count(void *ctx) {body}', globals={"target_pid": os.getpid()}
        )

    return load


def runs_while_attached(obj, act=os.getloadavg, **target):
    before = obj.globals.runs
    with obj.programs.count.attach(**target):
        act()
    ran = obj.globals.runs - before
    act()
    assert obj.globals.runs - before == ran, "it ran after it was detached"
    return ran


class TestUprobes:
    def test_a_function_of_a_loaded_library(self, counter):
        obj = counter("uprobe")
        assert runs_while_attached(obj, binary="libc", function="getloadavg") == 1
        assert runs_while_attached(obj, binary="libc.so.6", function="getloadavg") == 1

    def test_a_path_in_the_section(self, counter):
        obj = counter(f"uprobe/{find_binary('libc')}:getloadavg")
        assert runs_while_attached(obj) == 1
        assert runs_while_attached(obj, pid=os.getpid()) == 1

    def test_one_process_only(self, counter):
        obj = counter("uprobe", "{ runs++; return 0; }")
        script = "import os; os.getloadavg()"
        with obj.programs.count.attach(binary="libc", function="getloadavg", pid=os.getpid()):
            subprocess.run([sys.executable, "-S", "-c", script], check=True)
            assert obj.globals.runs == 0
            os.getloadavg()
            assert obj.globals.runs == 1

    def test_python_itself(self, counter):
        limit = sys.getrecursionlimit()
        act = lambda: sys.setrecursionlimit(limit)  # noqa: E731
        assert runs_while_attached(
            counter("uprobe"), act, binary="libpython", function="Py_SetRecursionLimit"
        )

    def test_by_offset_in_the_file(self, counter):
        libc = find_binary("libc")
        functions = elf_functions(libc)
        offset = functions.offset(functions.find("getloadavg").address)
        assert runs_while_attached(counter("uprobe"), binary=libc, offset=offset) == 1

    def test_a_return(self, counter):
        assert runs_while_attached(counter("uretprobe"), binary="libc", function="getloadavg") == 1
        obj = counter("uprobe")
        assert runs_while_attached(obj, binary="libc", function="getloadavg", retprobe=True) == 1

    @pytest.mark.bpf_requires("bpf_get_attach_cookie")
    def test_the_cookie_arrives(self, counter):
        obj = counter("uprobe", "{ cookie = bpf_get_attach_cookie(ctx); return 0; }")
        with obj.programs.count.attach(binary="libc", function="getloadavg", pid=os.getpid(), cookie=46):
            os.getloadavg()
        assert obj.globals.cookie == 46

    def test_what_is_not_there(self, counter, tmp_path):
        attach = counter("uprobe").programs.count.attach
        with pytest.raises(AttachError, match=r"has no function 'getloadavgg'\n(.*\n)*.*'getloadavg'") as e:
            attach(binary="libc", function="getloadavgg")
        assert e.value.errno == errno.ENOENT
        with pytest.raises(AttachError, match=r"no library of that name is loaded"):
            attach(binary="libnothing", function="x")
        with pytest.raises(AttachError, match="there is no such file"):
            attach(binary=tmp_path / "nothing", function="x")
        (tmp_path / "text").write_text("no binary")
        with pytest.raises(AttachError, match="text is no ELF file"):
            attach(binary=tmp_path / "text", function="x")

    def test_a_file_alone_is_no_target(self, counter):
        with pytest.raises(AttachError, match="it names no function of the file\n  -> name one: attach"):
            counter("uprobe").programs.count.attach(binary="libc")


@pytest.mark.bpf_requires("uprobe.multi/x")
class TestManyUprobes:
    TARGET = {"binary": "libc", "functions": ["getloadavg", "sched_yield"]}  # noqa: RUF012

    @staticmethod
    def act():
        os.getloadavg()
        os.sched_yield()

    def test_names_and_a_pattern(self, counter):
        assert runs_while_attached(counter("uprobe.multi"), self.act, **self.TARGET) == 2
        target = {"binary": "libc", "functions": "getload*"}
        assert runs_while_attached(counter("uretprobe.multi"), self.act, **target) == 1
        obj = counter(f"uprobe.multi/{find_binary('libc')}:getload*")
        assert runs_while_attached(obj, self.act) == 1

    def test_cookies_and_a_process(self, counter):
        obj = counter(
            "uprobe.multi", "{ __sync_fetch_and_add(&cookie, bpf_get_attach_cookie(ctx)); return 0; }"
        )
        with obj.programs.count.attach(**self.TARGET, cookies=[1, 16], pid=os.getpid()) as link:
            self.act()
            assert link.info.target["count"] == 2
        assert obj.globals.cookie == 17

    def test_nothing_fits(self, counter):
        with pytest.raises(AttachError, match="has no function 'getloadavgg'"):
            counter("uprobe.multi").programs.count.attach(binary="libc", functions="getloadavgg")
        with pytest.raises(AttachError, match="it has no such function"):
            counter("uprobe.multi").programs.count.attach(binary="libc", functions="getloadavgg*")
        with pytest.raises(AttachError, match="the list of functions is empty\n  -> name one"):
            counter("uprobe.multi").programs.count.attach(binary="libc", functions=[])


@pytest.mark.bpf_requires("perf_event")
class TestPerfEvents:
    @staticmethod
    def burn():
        sum(range(100_000))

    @pytest.mark.parametrize(
        "target",
        [
            {"perf_event": "cpu_clock", "frequency": 1000},
            {"perf_event": "cpu-clock", "period": 1_000_000, "pid": os.getpid()},
            {"perf_event": {"type": "software", "config": 0, "frequency": 1000}},
        ],
        ids=["by name, on all CPUs", "of a process", "by numbers"],
    )
    def test_samples_this_process(self, bpf, counter, target):
        if target.get("pid"):
            target = {**target, "pid": os.getpid()}  # another process of the matrix made the parameters
        obj = counter("perf_event")
        with obj.programs.count.attach(**target):
            bpf.wait_until(lambda: self.burn() or obj.globals.runs > 0, timeout=60)
        ran = obj.globals.runs
        self.burn()
        assert obj.globals.runs == ran

    def test_each_page_fault_of_this_process(self, counter):
        obj = counter("perf_event")
        with mmap.mmap(-1, 100 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as fresh:
            fresh.madvise(mmap.MADV_NOHUGEPAGE)
            with obj.programs.count.attach(perf_event="page_faults", period=1, pid=os.getpid()):
                for page in range(100):
                    fresh[page * mmap.PAGESIZE] = 1
        assert obj.globals.runs >= 100

    def test_what_is_not_there(self, counter):
        attach = counter("perf_event").programs.count.attach
        with pytest.raises(AttachError, match=r"no perf event 'cpu_clok'\n(.*\n)*.*'cpu_clock'"):
            attach(perf_event="cpu_clok", frequency=1)
        with pytest.raises(AttachError, match=r"no field 'freq'\n(.*\n)*.*'frequency'"):
            attach(perf_event={"config": "cpu_clock", "freq": 1})
        with pytest.raises(
            AttachError, match=r"it is NoneType\n  -> give a name, a mapping, or a descriptor"
        ):
            attach(perf_event=None)
        with pytest.raises(AttachError, match=r"there is no process 4194305"):
            attach(perf_event="cpu_clock", frequency=1, pid=4194305)
