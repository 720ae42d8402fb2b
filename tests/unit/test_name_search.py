"""Tests names in a long text: the result must be the same as for these names in a list."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.elf.name_search import Names
from pytest_bpfmaps.errors import closest
from pytest_bpfmaps.kernel.attach_names import Functions

LISTED = ["do_sys_openat2", "do_sys_open", "tcp_sendmsg", "tcp_sendmsg.isra.0", "vfs_read", "vfs_readv", "x"]
LISTED += ["malloc", "location", "open", "CRYPTO_malloc"]
KALLSYMS = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 t twice
ffffffff81000010 t twice
ffffffff81000020 T vfs_read
ffffffff81000030 T vfs_read_data_of_nobody
ffffffff81000040 T _etext
ffffffff82000000 T while_it_booted
ffffffff82000010 D some_data
ffffffffc0000000 t nf_nat_hook\t[nf_nat]
"""
names = st.lists(st.from_regex(r"[a-c_.]{1,6}", fullmatch=True), min_size=1, max_size=20)


def text_of(listed):
    return Names(b"\n" + "".join(f"{name}\n" for name in listed).encode(), shown_by="names")


@given(names, st.from_regex(r"[a-c_.*?]{1,5}", fullmatch=True))
def test_patterns_starts_and_counts(listed, pattern):
    found = text_of(listed)
    assert found.fitting(pattern) == sorted({n for n in listed if fnmatchcase(n, pattern)})
    start = pattern.strip("*?")
    assert found.starting(start) == sorted({n for n in listed if n.startswith(start)})
    for name in {*listed, start}:
        assert found.count(name) == listed.count(name)
        assert (name in found) == (name in listed)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("do_sys_openat3", "do_sys_openat2"),
        ("tcp_sendmgs", "tcp_sendmsg"),
        ("vfs_raed", "vfs_read"),
        ("vfsread", "vfs_read"),
        ("fvs_raed", "vfs_read"),
        ("maloc", "malloc"),
        ("opne", "open"),
    ],
)
def test_the_closest(wrong, meant):
    assert text_of(LISTED).closest(wrong).startswith(f"did you mean {meant!r}")


def test_nothing_is_close():
    assert text_of(LISTED).closest("zzqq") == "no name comes close; names shows all"
    assert not Names(b"")
    assert text_of(LISTED)


def test_closest_with_a_prefix():
    traced = text_of(["btf_trace_sched_switch", "btf_trace_sched_waking", "sched_swich_of_nobody"])
    assert traced.closest("sched_swich", "btf_trace_").startswith("did you mean 'sched_switch'")


def test_functions_are_in_the_text_of_the_kernel_or_in_a_module():
    found = Functions(KALLSYMS)
    assert {name: found.count(name) for name in ("twice", "vfs_read", "nf_nat_hook", "nf_nat")} == {
        "twice": 2,
        "vfs_read": 1,
        "nf_nat_hook": 1,
        "nf_nat": 0,
    }
    assert "while_it_booted" not in found
    assert "some_data" not in found
    assert found.fitting("*read") == ["vfs_read"]
    assert found.starting("vfs_read") == ["vfs_read", "vfs_read_data_of_nobody"]


def test_a_name_of_two_kinds_is_told_once():
    assert closest("xpd", ["xdp", "tc", "xdp"]) == "did you mean 'xdp'?"
