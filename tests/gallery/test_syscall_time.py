"""Measure the time that a process spends in system calls, with task storage as a stopwatch."""

import os
import select

import pytest

pytestmark = pytest.mark.bpf_requires("task_storage", "tp_btf/sys_enter", helper="bpf_get_current_task_btf")

MILLISECOND = 1_000_000  # nanoseconds


def test_a_sleep_is_time_in_the_kernel(bpf):
    meter = bpf.load("syscall_time.bpf.c")
    watch = meter.maps.time_in_kernel
    watch[os.getpid()] = {}  # from now on this process is measured

    with meter.attach():
        before = watch[os.getpid()]
        select.select([], [], [], 0.01)  # time.sleep computes its end before it waits
        after = watch[os.getpid()]

    assert after.calls > before.calls
    assert after.total - before.total >= 10 * MILLISECOND


def test_who_has_no_value_is_not_measured(bpf):
    meter = bpf.load("syscall_time.bpf.c")
    with meter.attach():
        os.getppid()
    assert os.getpid() not in meter.maps.time_in_kernel
