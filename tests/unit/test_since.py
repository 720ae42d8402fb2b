"""Tests since which release the kernel has each feature."""

import pytest

from pytest_bpfmaps.kernel.feature_releases import should_have, since


@pytest.mark.parametrize(
    ("feature", "first"),
    [
        ("map type ringbuf", "5.8"),
        ("program type netfilter", "6.4"),
        ("helper bpf_loop", "5.17"),
        ("kfunc bpf_loop", "5.17"),
        ("attach point kprobe.multi/x*", "5.18"),
        ("attach point tp/syscalls/sys_enter_openat", "4.7"),
        ("attach point fentry.s/x", "5.5"),
        ("CONFIG_BPF_LSM", None),
        ("helper bpf_no_such", None),
    ],
)
def test_since(feature, first):
    assert since(feature) == first


def test_should_have():
    assert should_have("helper bpf_loop", (5, 17, 0))
    assert not should_have("helper bpf_loop", (5, 16, 20))
    assert should_have("map type arena", (6, 10, 0))
    assert not should_have("map type nobody_knows", (99, 0, 0))
