"""Count system calls of a process with task storage, and of a cgroup with a cgroup array."""

import os

import pytest

pytestmark = pytest.mark.bpf_requires(
    "task_storage", "cgroup_array", "raw_tp/sys_enter", helper="bpf_get_current_task_btf"
)


def test_calls_of_this_process(bpf):
    obj = bpf.load("syscalls_of.bpf.c")
    with obj.attach():
        for _ in range(100):
            os.getppid()
        calls = obj.maps.by_process[os.getpid()]  # or a pidfd
    assert calls >= 100
    assert obj.globals.inside == 0


def test_calls_from_a_cgroup(bpf, bpf_cgroup):
    obj = bpf.load("syscalls_of.bpf.c")
    obj.maps.chosen[0] = bpf_cgroup
    with obj.attach(), bpf_cgroup.enter():
        for _ in range(100):
            os.getppid()
    assert obj.globals.inside >= 100
