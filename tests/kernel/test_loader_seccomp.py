"""Tests `bpf.start(…, seccomp=…)`: the filter of a container's profile on an agent."""

import json
import os
import sys
import textwrap

import pytest

from pytest_bpfmaps.errors import LoaderError

ALLOW = {"defaultAction": "SCMP_ACT_ALLOW"}
MKDIR = ["mkdir", "mkdirat"]  # the C library takes either
CALLS = """
import os, socket
def told(name, call, *args):
    try:
        call(*args)
        print(name, 0)
    except OSError as e:
        print(name, e.errno)
"""


def refuse(*names, **more):
    return {**ALLOW, "syscalls": [{"names": [*names], "action": "SCMP_ACT_ERRNO", **more}]}


def outcome(bpf, calls, profile, **settings):
    """Returns the errnos of system calls that a process with the profile makes, by name."""
    code = CALLS + textwrap.dedent(calls)
    agent = bpf.start([sys.executable, "-c", code], seccomp=profile, **settings)
    assert agent.wait() == 0, agent.stderr
    return {name: int(number) for name, number in map(str.split, agent.stdout.splitlines())}


def test_a_call_gets_the_errno_of_its_rule(bpf, tmp_path):
    agent = bpf.start(["mkdir", str(tmp_path / "x")], seccomp=refuse(*MKDIR, errnoRet=28))
    assert agent.wait() == 1
    assert "No space left on device" in agent.stderr
    assert not (tmp_path / "x").exists()


def test_a_profile_is_a_file_too(bpf, tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(refuse(*MKDIR)))
    assert outcome(bpf, "told('mkdir', os.mkdir, '/tmp/x')", path) == {"mkdir": 1}  # EPERM is the default
    path.write_text(json.dumps({**refuse("umount2"), "defaultAction": "SCMP_ACT_LOG"}))
    assert outcome(bpf, "told('getppid', os.getppid)", str(path)) == {"getppid": 0}


def test_the_default_refuses_what_no_rule_allows(bpf):
    rule = {"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    loose = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 7, "syscalls": [rule]}
    every = {"names": ALL_CALLS, "action": "SCMP_ACT_ALLOW"}
    profile = {**loose, "syscalls": [rule, every]}
    told = "told('getsid', os.getsid, 0); told('getpgid', os.getpgid, 0)"
    assert outcome(bpf, told, profile) == {"getsid": 5, "getpgid": 7}


def test_conditions_on_one_argument_are_alternatives_and_on_several_all_must_hold(bpf):
    either = [{"index": 1, "value": signal, "op": "SCMP_CMP_EQ"} for signal in (10, 12)]
    both = [
        {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
        {"index": 1, "value": 0xFFF, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"},
    ]
    rules = [
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 33, "args": either},
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 34, "args": both},
    ]
    calls = """
        for signal in (0, 10, 12):
            told(f'kill{signal}', os.kill, os.getpid(), signal)
        for family, kind in ((2, 1), (2, 2), (1, 2)):
            told(f'socket{family}{kind}', lambda: socket.socket(family, kind).close())
    """
    assert outcome(bpf, calls, {**ALLOW, "syscalls": rules}) == {
        "kill0": 0,
        "kill10": 33,
        "kill12": 33,
        "socket21": 0,
        "socket22": 34,
        "socket12": 0,
    }


@pytest.mark.parametrize(
    ("condition", "refused"),
    [
        ({"includes": {"caps": ["CAP_NET_RAW"]}}, True),
        ({"includes": {"caps": ["CAP_NET_RAW", "CAP_SYS_BOOT"]}}, False),
        ({"excludes": {"caps": ["CAP_NET_RAW"]}}, False),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "99.1"}}, False),
        ({"excludes": {"minKernel": "4.8"}}, False),
        ({"includes": {"arches": ["s390x"]}}, False),
        ({"excludes": {"arches": ["s390x"]}}, True),
    ],
)
def test_a_rule_is_for_some_processes_machines_and_kernels(bpf, condition, refused):
    got = outcome(bpf, "told('sid', os.getsid, 0)", refuse("getsid", **condition), caps=["NET_RAW"])
    assert got == {"sid": 1 if refused else 0}


def test_another_user_without_capabilities_gets_the_filter(bpf):
    agent = bpf.start(["sh", "-c", "id -u; mkdir x"], seccomp=refuse(*MKDIR), cwd="/tmp", user=65534, caps=[])
    assert agent.wait() == 1
    assert agent.stdout == "65534\n"
    assert "Operation not permitted" in agent.stderr


def test_no_open_file_of_the_test_comes_along(bpf, tmp_path):
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        agent = bpf.start(["ls", "-l", "/proc/self/fd"], seccomp=refuse("umount2"))
        assert agent.wait() == 0
    assert "secret" not in agent.stdout


def test_a_killed_agent_is_told_which_call_it_was(bpf, tmp_path):
    profile = {**ALLOW, "syscalls": [{"names": MKDIR, "action": "SCMP_ACT_KILL_PROCESS"}]}
    said = r"SIGSYS: its seccomp profile, the mapping, forbids (mkdir(at)?\(2\)|a system call)"
    with pytest.raises(LoaderError, match=said):
        bpf.start(["mkdir", str(tmp_path / "x")], seccomp=profile, ready="never")


def test_a_refused_bpf_is_no_missing_capability(bpf):
    profile = refuse("bpf")
    command = ["sh", "-c", "echo 'libbpf: failed to load: Operation not permitted' >&2; exit 1"]
    with pytest.raises(LoaderError, match=r"the mapping, refuses bpf\(2\)\n(.*\n)*.*-> allow bpf there\n"):
        bpf.start(command, seccomp=profile, caps=["NET_ADMIN"], ready="never")
    profile["syscalls"].insert(
        0, {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}}
    )
    profile["defaultAction"] = "SCMP_ACT_LOG"
    with pytest.raises(LoaderError, match="-> allow bpf there, or give BPF by caps=, for which"):
        bpf.start(command, seccomp=profile, caps=["NET_ADMIN"], ready="never")
    with pytest.raises(LoaderError, match="add NET_ADMIN or PERFMON to caps="):  # now the profile allows it
        bpf.start(command, seccomp=profile, caps=["BPF"], ready="never")


def test_a_profile_that_refuses_to_execute_is_named(bpf):
    with pytest.raises(LoaderError, match=r"the mapping, refuses execve\(2\)"):
        bpf.start(["true"], seccomp=refuse("execve"))


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ({}, "it has no 'defaultAction'"),
        (
            {"defaultAction": "SCMP_ACT_ALOW"},
            "'SCMP_ACT_ALOW'; did you mean 'SCMP_ACT_ALLOW'",
        ),
        ({**ALLOW, "syscalls": [{"names": ["bpf"]}]}, "it has no 'action'"),
        (refuse("bpf", includes={"minKernel": "new"}), "no version such as '4.8': 'new'"),
        (
            refuse("bpf", args=[{"index": 0, "value": 1, "op": "IS"}]),
            "an operator that is not known here",
        ),
        (refuse("bpf", args=[{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]), "libseccomp refuses bpf"),
        ({**ALLOW, "architectures": ["SCMP_ARCH_PDP11"]}, "does not know, 'SCMP_ARCH_PDP11'"),
    ],
)
def test_what_is_no_profile_is_said(bpf, profile, why):
    with pytest.raises(LoaderError, match=why):
        bpf.start(["true"], seccomp=profile)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "ENOENT: No such file or directory"),
        ("{", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("[1]", "it is a list, not an object"),
    ],
)
def test_what_is_no_file_of_a_profile_is_said(bpf, tmp_path, content, why):
    path = tmp_path / "profile.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LoaderError, match=rf"profile\.json: {why}"):
        bpf.start(["true"], seccomp=path)


ALL_CALLS = """
    access arch_prctl brk clock_gettime clone clone3 close connect dup dup2 dup3 execve exit exit_group
    faccessat faccessat2 fcntl fstat futex getcwd getdents64 getegid geteuid getgid getpid getppid getrandom
    getrlimit gettid getuid ioctl lseek lstat madvise mmap mprotect mremap munmap newfstatat open openat pipe2
    poll pread64 prlimit64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask sched_getaffinity
    set_robust_list set_tid_address sigaltstack socket stat statx sysinfo uname write
""".split()  # noqa: SIM905 - a list of words
"""What Python calls from its start to its end, more or less."""
