"""Tests BPF_F_CPU and BPF_F_ALL_CPUS: one CPU's value of a per-CPU map, or the same value for all."""

import errno
import os

import pytest

from pytest_bpfmaps import BPF_EXIST, BPF_F_ALL_CPUS, BPF_F_CPU, MapError, MapKeyError, UnsupportedError
from pytest_bpfmaps.maps.families.percpu import possible_cpus

KINDS = ["percpu_array", "percpu_hash", "lru_percpu_hash"]


@pytest.fixture(params=KINDS)
def counts(bpf, request):
    return bpf.create_map(request.param, key="u32", value="struct { u32 a; u8 b; }", max_entries=4)


def has_flags(the_map):
    try:
        the_map.update_elem(0, (1, 1), BPF_F_ALL_CPUS)
    except UnsupportedError:
        return False
    return True


def test_where_the_kernel_lacks_them_they_are_named(counts):
    if has_flags(counts):
        pytest.skip("this kernel has the flags; the host and Linux 6.12 do not")
    counts[0] = (3, 4)
    with pytest.raises(UnsupportedError, match=r"does not take BPF_F_CPU there") as refused:
        counts.lookup_elem(0, BPF_F_CPU)
    assert refused.value.errno == errno.EINVAL
    with pytest.raises(UnsupportedError, match="does not take BPF_F_ALL_CPUS there"):
        counts.update_elem(0, (1, 2), BPF_F_ALL_CPUS)
    assert counts[0] == [(3, 4)] * possible_cpus()


@pytest.mark.parametrize("flags", [BPF_F_CPU, BPF_F_ALL_CPUS, 1 << 32 | BPF_F_CPU])
def test_they_are_not_for_many_elements(counts, flags):
    with pytest.raises(UnsupportedError, match="work only for one element at a time") as refused:
        counts.update_batch({0: (1, 2)}, flags)
    assert refused.value.errno == errno.EINVAL


def test_without_a_flag_it_is_the_value_of_each_cpu(counts):
    counts[1] = written = [(cpu + 1, 0) for cpu in range(possible_cpus())]
    assert counts.lookup_elem(1) == counts[1] == written


def test_other_flags_are_as_for_any_map(counts):
    counts[1] = [(1, 0)] * possible_cpus()
    written = [(cpu + 1, 0) for cpu in range(possible_cpus())]
    counts.update_elem(1, written, BPF_EXIST)
    assert counts[1] == written


class TestFlags:
    @pytest.fixture(autouse=True)
    def only_where_they_are(self, counts):
        if not has_flags(counts):
            pytest.skip("this kernel has no BPF_F_ALL_CPUS (Linux 6.19): try --bpf-kernel=7.2")

    def test_one_value_for_all(self, counts):
        counts.update_elem(1, (5, 6), BPF_F_ALL_CPUS)
        assert counts[1] == [(5, 6)] * possible_cpus()

    def test_one_cpu(self, counts):
        last = possible_cpus() - 1
        counts[2] = [(cpu + 1, 0) for cpu in range(possible_cpus())]
        assert [counts.lookup_elem(2, cpu << 32 | BPF_F_CPU).a for cpu in range(possible_cpus())] == [
            cpu + 1 for cpu in range(possible_cpus())
        ]
        counts.update_elem(2, {"a": 70, "b": 7}, last << 32 | BPF_F_CPU)
        assert counts[2][last] == (70, 7)
        assert [value.a for value in counts[2][:last]] == list(range(1, last + 1))

    def test_refusals(self, counts):
        with pytest.raises(MapError, match="there is no CPU 4000: this kernel has"):
            counts.update_elem(0, (1, 2), 4000 << 32 | BPF_F_CPU)
        with pytest.raises(MapKeyError):
            counts.lookup_elem(77, BPF_F_CPU)
        with pytest.raises(UnsupportedError, match="one element at a time"):
            counts.update_batch({0: (1, 2)}, BPF_F_ALL_CPUS)


def test_a_program_sees_what_was_written(load_code):
    obj = load_code("""
        struct {
            __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
            __uint(max_entries, 1);
            __type(key, __u32);
            __type(value, __u64);
        } numbers SEC(".maps");
        SEC("tc") int look(struct __sk_buff *skb)
        {
            __u32 first = 0;
            __u64 *number = bpf_map_lookup_elem(&numbers, &first);
            return number ? *number : -1;
        }
    """)
    cpu = max(os.sched_getaffinity(0))
    try:
        obj.maps.numbers.update_elem(0, 42, cpu << 32 | BPF_F_CPU)
    except UnsupportedError:
        pytest.skip("this kernel has no BPF_F_CPU (Linux 6.19): try --bpf-kernel=7.2")
    assert obj.programs.look.run(bytes(64), cpu=cpu).retval == 42
