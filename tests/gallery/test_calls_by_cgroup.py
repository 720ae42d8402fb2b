"""Count system calls by cgroup. The key is the cgroup."""

import os

import pytest

pytestmark = pytest.mark.bpf_requires("cgrp_storage", "tp_btf/sys_enter")


def test_a_cgroup_has_its_own_count(bpf, bpf_cgroup):
    obj = bpf.load("calls_by_cgroup.bpf.c")
    with obj.attach():
        assert bpf_cgroup not in obj.maps.calls
        with bpf_cgroup.enter():
            for _ in range(100):
                os.getppid()
        assert obj.maps.calls[bpf_cgroup] >= 100
        assert obj.maps.calls[bpf_cgroup.path] >= 100
