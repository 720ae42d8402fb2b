"""Tests wait_until, teardown, and the fixtures' scopes."""

import os
import subprocess

import pytest

from pytest_bpfmaps.kernel.features import probe
from pytest_bpfmaps.libbpf import ffi, lib


def test_wait_until_gives_what_the_condition_gave(bpf):
    answers = iter([0, None, "", "yes"])
    assert bpf.wait_until(lambda: next(answers)) == "yes"


def test_wait_until_says_what_it_last_saw(bpf):
    seen = {}
    with pytest.raises(AssertionError, match=r"the lambda at test_harness.py:\d+ is true: it last gave None"):
        bpf.wait_until(lambda: seen.get(1), timeout=0.01)


def test_wait_until_takes_failing_assertions_for_not_yet(bpf):
    seen = []

    def three_times():
        seen.append(1)
        assert len(seen) >= 3
        return True

    assert bpf.wait_until(three_times)

    def never():
        raise AssertionError("not yet")

    with pytest.raises(AssertionError, match=r"until never\(\) is true.*not yet"):
        bpf.wait_until(never, timeout=0.01)


def loaded_program_ids():
    ids, at = set(), ffi.new("uint32_t *")
    while lib.bpf_prog_get_next_id(at[0], at) == 0:
        ids.add(at[0])
    return ids


def test_close_takes_everything_down(bpf, tmp_path):
    from pytest_bpfmaps.harness import Bpf
    from pytest_bpfmaps.matrix.compilers import compiler_for

    descriptors = set(os.listdir("/proc/self/fd"))
    with Bpf(compiler_for(None), bpf._folders) as own:
        counter = own.load("packet_counter.bpf.c")
        program_id = counter.programs.count_packets.id
        with counter.maps.events.capture():
            pass
        counter.globals.ignored = 1
        own.map_by_id(counter.maps.traffic.id)
        assert program_id in loaded_program_ids()
    assert program_id not in loaded_program_ids()
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_the_module_and_session_fixtures_load_too(bpf_module, bpf_session):
    for each in (bpf_module, bpf_session):
        assert each.load("packet_counter.bpf.c").programs.count_packets.run(bytes(64)).retval == 2


class TestFeatures:
    def test_what_every_supported_kernel_has(self, bpf_kernel):
        assert bpf_kernel.has("hash", "array", "xdp", "ringbuf", "bpf_map_lookup_elem")
        assert bpf_kernel.has(map_types=["hash"], program_type="xdp", helpers=["bpf_ktime_get_ns"])
        assert bpf_kernel.release == os.uname().release
        assert bpf_kernel.version >= (5, 10, 0)

    def test_what_no_kernel_has(self, bpf_kernel):
        assert not bpf_kernel.has("tracepoint/no/such")
        assert not bpf_kernel.has("bpf_no_such_function")
        assert not bpf_kernel.has("CONFIG_NO_SUCH_OPTION")
        assert probe("attach", "kprobe/no_such_function").why

    def test_a_typo_is_an_error_not_a_missing_feature(self, bpf_kernel):
        with pytest.raises(OSError, match=r"(?s)'ringbuff'.*did you mean 'ringbuf'"):
            bpf_kernel.has("ringbuff")


def test_a_shell_finds_its_descriptors_by_name(bpf_kernel):
    command = ["bash", "-c", "cat <(echo here) /dev/stdin"]
    done = subprocess.run(command, input="there\n", capture_output=True, text=True, check=True)
    assert done.stdout == "here\nthere\n"
