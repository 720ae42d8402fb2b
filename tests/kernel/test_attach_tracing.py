"""Tests attaching to the kernel's events and functions, and the messages when that fails."""

import errno
import os

import pytest

from pytest_bpfmaps import AttachError, LoadError

PID = """
const volatile __u32 target_pid;
__u64 runs, cookie;
static __always_inline __attribute__((unused)) int mine(void)
{ return bpf_get_current_pid_tgid() >> 32 == target_pid; }
"""
COUNT = "{ if (mine()) __sync_fetch_and_add(&runs, 1); return 0; }"
TRACING = '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n#include <bpf/bpf_tracing.h>\n'
LICENSE = 'char LICENSE[] SEC("license") = "GPL";\n'

tracefs_tracepoints = pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_getpgid")
kprobes = pytest.mark.bpf_requires("kprobe/do_sys_openat2")
cookies = pytest.mark.bpf_requires("bpf_get_attach_cookie")


@pytest.fixture
def counter(load_code):
    """Returns the C code of a program for a section. It counts its runs in this process."""

    def load(section, body=COUNT, includes=""):
        code = f'{includes}{PID} SEC("{section}") int count(void *ctx) {body}'
        return load_code(code, globals={"target_pid": os.getpid()})

    return load


def trigger():
    os.getpgid(0)


def open_files():
    os.close(os.open("/dev/null", os.O_RDONLY))


def runs_while_attached(obj, act=trigger, **target):
    before = obj.globals.runs
    with obj.programs.count.attach(**target):
        act()
    ran = obj.globals.runs - before
    act()
    assert obj.globals.runs - before == ran, "it ran after it was detached"
    return ran


@tracefs_tracepoints
class TestTracepoints:
    def test_by_section_and_by_keywords(self, counter):
        assert runs_while_attached(counter("tp/syscalls/sys_enter_getpgid")) == 1
        assert runs_while_attached(counter("tp"), category="syscalls", event="sys_enter_getpgid") == 1

    @cookies
    def test_the_cookie_arrives(self, counter):
        obj = counter("tp/syscalls/sys_enter_getpgid", "{ cookie = bpf_get_attach_cookie(ctx); return 0; }")
        with obj.programs.count.attach(cookie=42):
            trigger()
        assert obj.globals.cookie == 42

    def test_a_wrong_event_names_the_closest(self, counter):
        with pytest.raises(
            AttachError, match=r"has no tracepoint 'sys_enter_getpgidd'\n(.*\n)*.*'sys_enter_getpgid'"
        ) as e:
            counter("tp").programs.count.attach(category="syscalls", event="sys_enter_getpgidd")
        assert e.value.errno == errno.ENOENT
        with pytest.raises(AttachError, match=r"no tracepoints of 'syscals'(.*\n)*.*'syscalls'"):
            counter("tp").programs.count.attach(category="syscals", event="sys_enter_getpgid")


@pytest.mark.bpf_requires("raw_tp/sys_enter")
class TestRawTracepoints:
    def test_by_section_and_by_keyword(self, counter):
        assert runs_while_attached(counter("raw_tp/sys_enter")) >= 1
        assert runs_while_attached(counter("raw_tp"), tracepoint="sys_enter") >= 1

    def test_a_wrong_name_names_the_closest(self, counter):
        with pytest.raises(AttachError, match=r"no tracepoint 'sched_swich'\n(.*\n)*.*'sched_switch'"):
            counter("raw_tp").programs.count.attach(tracepoint="sched_swich")

    @cookies
    def test_the_cookie_arrives(self, counter):
        try:
            obj = counter("raw_tp/sys_enter", "{ cookie = bpf_get_attach_cookie(ctx); return 0; }")
        except LoadError:
            pytest.skip("cookies of raw tracepoints came with Linux 6.10")
        with obj.programs.count.attach(cookie=43):
            trigger()
        assert obj.globals.cookie == 43

    def test_no_kernel_takes_a_cookie_and_loses_it(self, counter):
        obj = counter("raw_tp/sys_enter")
        try:
            obj.programs.count.attach(cookie=1).close()
        except AttachError as e:
            assert "attach it without cookie=" in str(e)  # noqa: PT017 - newer kernels take it


@kprobes
class TestKprobes:
    def test_by_section_and_by_keyword(self, counter):
        assert runs_while_attached(counter("kprobe/do_sys_openat2"), open_files) == 1
        assert runs_while_attached(counter("kprobe"), open_files, function="do_sys_openat2") == 1
        assert runs_while_attached(counter("kprobe"), open_files, function="do_sys_openat2", offset=0) == 1

    def test_a_kretprobe_section_attaches_to_the_return(self, counter):
        body = "{ if (mine()) cookie = PT_REGS_RC((struct pt_regs *)ctx); return 0; }"
        for target in ({}, {"function": "do_sys_openat2"}):
            section = "kretprobe" if target else "kretprobe/do_sys_openat2"
            obj = counter(section, body, "#include <linux/ptrace.h>\n#include <bpf/bpf_tracing.h>\n")
            with obj.programs.count.attach(**target):
                fd = os.open("/dev/null", os.O_RDONLY)
                os.close(fd)
            assert obj.globals.cookie == fd

    def test_a_system_call(self, counter):
        assert runs_while_attached(counter("ksyscall/getpgid")) == 1
        assert runs_while_attached(counter("ksyscall"), syscall="getpgid") == 1
        with pytest.raises(AttachError, match=r"no system call 'getpgidd'\n(.*\n)*.*'getpgid'"):
            counter("ksyscall").programs.count.attach(syscall="getpgidd")

    @cookies
    def test_the_cookie_arrives(self, counter):
        obj = counter("kprobe", "{ if (mine()) cookie = bpf_get_attach_cookie(ctx); return 0; }")
        with obj.programs.count.attach(function="do_sys_openat2", cookie=44):
            open_files()
        assert obj.globals.cookie == 44

    def test_an_unknown_function_names_the_closest(self, counter):
        with pytest.raises(AttachError, match=r"no function 'do_sys_openat3'.*\n(.*\n)*.*'do_sys_openat2'"):
            counter("kprobe").programs.count.attach(function="do_sys_openat3")
        with pytest.raises(
            AttachError, match=r"where its section says: this kernel has no function 'no_such'"
        ):
            counter("kprobe/no_such").programs.count.attach()

    def test_a_function_that_must_not_be_traced(self, counter):
        with pytest.raises(AttachError, match=r"must not be traced|allows no kprobe on .kprobe_dispatcher."):
            counter("kprobe").programs.count.attach(function="kprobe_dispatcher")


@pytest.mark.bpf_requires("kprobe.multi/do_sys_openat2")
class TestManyKprobes:
    def test_a_pattern_names_and_a_section(self, counter):
        for section, target in (
            ("kprobe.multi/do_sys_openat*", {}),
            ("kprobe.multi", {"functions": "do_sys_openat2"}),
            ("kprobe.multi", {"functions": ["do_sys_openat2", "security_file_open"]}),
        ):
            ran = runs_while_attached(counter(section), open_files, **target)
            assert ran == (2 if isinstance(target.get("functions"), list) else 1)

    def test_each_function_has_its_cookie(self, counter):
        body = "{ if (mine()) __sync_fetch_and_add(&cookie, bpf_get_attach_cookie(ctx)); return 0; }"
        obj = counter("kprobe.multi", body)
        target = {"functions": ["do_sys_openat2", "security_file_open"], "cookies": [1, 16]}
        with obj.programs.count.attach(**target):
            open_files()
        assert obj.globals.cookie == 17
        with pytest.raises(AttachError, match="1 cookies for 2 functions"):
            obj.programs.count.attach(functions=["do_sys_openat2", "security_file_open"], cookies=[1])

    def test_nothing_fits(self, counter):
        with pytest.raises(AttachError, match="no kernel function that can be traced fits"):
            counter("kprobe.multi").programs.count.attach(functions="no_such_function*")
        with pytest.raises(AttachError, match="no function 'do_sys_openat3'"):
            counter("kprobe.multi").programs.count.attach(functions=["do_sys_openat3"])
        with pytest.raises(AttachError, match="the list of functions is empty\n  -> name one"):
            counter("kprobe.multi").programs.count.attach(functions=[])


@pytest.mark.bpf_requires("kprobe.session/do_sys_openat2")
def test_a_session_runs_at_both_ends(counter):
    assert runs_while_attached(counter("kprobe.session/do_sys_openat2"), open_files) == 2


class TestTrampolines:
    @pytest.mark.bpf_requires("fentry/do_sys_openat2")
    def test_entry_and_exit(self, bpf):
        code = """
        long result;
        SEC("fentry/do_sys_openat2") int BPF_PROG(count, int dfd) { if (mine()) runs++; return 0; }
        SEC("fexit/do_sys_openat2")
        int BPF_PROG(leave, int dfd, const char *name, struct open_how *how, long ret)
        { if (mine()) result = ret; return 0; }
        """
        obj = bpf.load(code=TRACING + LICENSE + PID + code, globals={"target_pid": os.getpid()})
        with obj.attach():
            fd = os.open("/dev/null", os.O_RDONLY)
            os.close(fd)
        assert (obj.globals.runs, obj.globals.result) == (1, fd)

    @pytest.mark.bpf_requires("fentry/do_sys_openat2")
    def test_the_function_can_be_chosen_before_the_load(self, bpf):
        code = 'SEC("fentry") int BPF_PROG(count) { if (mine()) runs++; return 0; }'
        opened = bpf.open(code=TRACING + LICENSE + PID + code)
        opened.programs.count.set_attach_target("do_sys_openat2")
        opened.globals.target_pid = os.getpid()
        obj = opened.load()
        with obj, obj.programs.count.attach():
            open_files()
            assert obj.globals.runs == 1

    @pytest.mark.bpf_requires("fmod_ret/security_file_open", "lsm/file_open")
    def test_a_return_value_is_changed(self, bpf):
        code = """
        SEC("fmod_ret/security_file_open") int BPF_PROG(count, struct file *file, int ret)
        { return mine() ? -13 : ret; }
        """
        obj = bpf.load(code=TRACING + LICENSE + PID + code, globals={"target_pid": os.getpid()})
        with obj.programs.count.attach(), pytest.raises(PermissionError):
            open_files()
        open_files()

    @pytest.mark.bpf_requires("tp_btf/sys_enter")
    def test_a_typed_raw_tracepoint(self, bpf):
        code = 'SEC("tp_btf/sys_enter") int BPF_PROG(count, struct pt_regs *regs, long id)' + COUNT
        obj = bpf.load(code=TRACING + LICENSE + PID + code, globals={"target_pid": os.getpid()})
        assert runs_while_attached(obj) >= 1

    @pytest.mark.bpf_requires("fentry/do_sys_openat2", "bpf_get_attach_cookie")
    def test_a_cookie_arrives_or_is_refused(self, bpf):
        code = """
        SEC("fentry/do_sys_openat2") int BPF_PROG(count)
        { if (mine()) cookie = bpf_get_attach_cookie(ctx); return 0; }
        """
        try:
            obj = bpf.load(code=TRACING + LICENSE + PID + code, globals={"target_pid": os.getpid()})
        except LoadError:
            pytest.skip("cookies of fentry came with Linux 6.0")
        with obj.programs.count.attach(cookie=45):
            open_files()
        assert obj.globals.cookie == 45


@pytest.mark.bpf_requires("lsm/file_open")
class TestLsm:
    CODE = 'SEC("lsm/file_open") int BPF_PROG(count, struct file *file)' + COUNT

    def test_runs(self, bpf):
        obj = bpf.load(code=TRACING + LICENSE + PID + self.CODE, globals={"target_pid": os.getpid()})
        assert runs_while_attached(obj, open_files) == 1

    def test_what_could_never_run_is_refused(self, bpf, tmp_path, monkeypatch):
        """The test uses the list of a machine that was booted without bpf in lsm=."""
        from pytest_bpfmaps.kernel import attach_names

        (tmp_path / "lsm").write_text("lockdown,capability,yama")
        monkeypatch.setattr(attach_names, "_LSM_LIST", tmp_path / "lsm")
        obj = bpf.load(code=TRACING + LICENSE + PID + self.CODE)
        with pytest.raises(AttachError, match=r"attach and never run: 'bpf' is not among(.*\n)*.*lsm="):
            obj.attach()


class TestFreplace:
    @pytest.mark.bpf_requires("xdp", "ext")
    def test_a_function_of_another_program_is_replaced(self, bpf):
        base = """
        __attribute__((noinline)) int verdict(struct xdp_md *ctx)
        { volatile int ret = 2; return ret; }
        SEC("xdp") int base(struct xdp_md *ctx) { return verdict(ctx); }
        """
        patch = 'SEC("freplace") int drop_all(struct xdp_md *ctx) { return 1; }'
        xdp = bpf.load(code=TRACING + LICENSE + base)
        opened = bpf.open(code=TRACING + LICENSE + patch)
        opened.programs.drop_all.set_attach_target("verdict", xdp.programs.base)
        obj = opened.load()
        run = xdp.programs.base.run
        assert run(bytes(64)).retval == 2
        with obj:
            with obj.programs.drop_all.attach():
                assert run(bytes(64)).retval == 1
            assert run(bytes(64)).retval == 2
            with obj.programs.drop_all.attach(target=xdp.programs.base, function="verdict"):
                assert run(bytes(64)).retval == 1

    @pytest.mark.bpf_requires("xdp", "ext")
    def test_a_function_that_the_other_program_lacks(self, bpf):
        base = """
        __attribute__((noinline)) int verdict(struct xdp_md *ctx)
        { volatile int ret = 2; return ret; }
        SEC("xdp") int base(struct xdp_md *ctx) { return verdict(ctx); }
        """
        xdp = bpf.load(code=TRACING + LICENSE + base).programs.base
        opened = bpf.open(
            code=TRACING + LICENSE + 'SEC("freplace") int patch(struct xdp_md *ctx) { return 1; }'
        )
        lacks = (
            r"'base' .*has no function 'verdikt', or clang has inlined it\n(?:.*\n)?.*did you mean 'verdict'"
        )
        with pytest.raises(LoadError, match=lacks):
            opened.programs.patch.set_attach_target("verdikt", xdp)
        opened.programs.patch.set_attach_target("verdict", xdp)
        with opened.load() as obj, pytest.raises(AttachError, match=lacks):
            obj.programs.patch.attach(target=xdp, function="verdikt")


class TestWrongTargets:
    @pytest.mark.parametrize(
        ("section", "why", "close"),
        [
            (
                "fentry/do_sys_openat3",
                "no function 'do_sys_openat3', or it is inlined everywhere",
                "do_sys_openat2",
            ),
            ("tp_btf/sched_swich", "no tracepoint 'sched_swich'", "sched_switch"),
            ("lsm/file_opn", "no LSM hook 'file_opn'", "file_open"),
            ("iter/tsk", "no iterator 'tsk'", "task"),
        ],
    )
    def test_what_the_kernel_has_no_type_for(self, bpf, section, why, close):
        code = f'SEC("{section}") int count(void *ctx) {{ return 0; }}'
        with pytest.raises(LoadError, match=rf"{why}\n(.*\n)*.*'{close}'"):
            bpf.load(code=TRACING + LICENSE + code)

    @pytest.mark.bpf_requires("raw_tp/sys_enter")
    def test_what_does_not_go_together(self, counter):
        attach = counter("raw_tp").programs.count.attach
        with pytest.raises(AttachError, match=r"no such target: functoin(.*\n)*.*'function'"):
            attach(functoin="x")
        with pytest.raises(AttachError, match="these keywords do not go together"):
            attach(tracepoint="sys_enter", function="x")
        with pytest.raises(AttachError, match="the section 'raw_tp' names no target"):
            attach()

    @pytest.mark.bpf_requires("syscall")
    def test_a_syscall_program_is_run_and_not_attached(self, counter):
        obj = counter("syscall")
        obj.programs.count.run()
        with pytest.raises(AttachError, match="names no target"):
            obj.programs.count.attach()
