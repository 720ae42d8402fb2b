"""Tests KVM on a machine without hardware for it. An emulated guest is an AMD processor with SVM, and runs
guests.

`kvm_amd` gives it a working `/dev/kvm`, and pytest runs a kernel inside. That takes ten minutes and 4 GB of
memory: `BPFMAPS_KVM_INSIDE=1 pytest tests/kernel/test_vm_kvm.py`.
"""

from __future__ import annotations

import os
import textwrap

import pytest
from caches import CACHE

pytestmark = pytest.mark.skipif(
    not os.environ.get("BPFMAPS_KVM_INSIDE"),
    reason="it takes ten minutes: BPFMAPS_KVM_INSIDE=1 runs guests with KVM inside an emulated guest",
)

INSIDE = '''
CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} counts SEC(".maps");
SEC("xdp") int count(struct xdp_md *ctx)
{
    __u32 zero = 0;
    __u64 *value = bpf_map_lookup_elem(&counts, &zero);
    if (value)
        *value += 1;
    return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""


def test_counts(bpf):
    obj = bpf.load(code=CODE)
    obj.programs.count.run(bytes(64))
    obj.programs.count.run(bytes(64))
    assert obj.maps.counts[0] == 2
    with open("/sys/devices/system/clocksource/clocksource0/current_clocksource") as file:
        print("clock:", file.read())
'''

OUTSIDE = """
import json, os, subprocess, sys

import pytest

PYTEST = [sys.executable, "-m", "pytest", "inside", "-rP", "-p", "no:cacheprovider"]
PYTEST += ["-p", "no:hypothesispytest", "--bpf-kernel=6.1", "--bpf-vm-timeout=1800"]


def said(*command, status=0):
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == status
    return done.stdout


def bpfmaps(*words):
    return said(sys.executable, "-m", "pytest_bpfmaps.cli", *words)


def states():
    return [state["name"] for state in json.loads(bpfmaps("vm", "list", "--json"))]


def name_of_state():
    program = "from pytest_bpfmaps.vm.boot import warm; "
    program += "from pytest_bpfmaps.vm.kernels.catalogue import Catalogue; "
    program += "from pytest_bpfmaps.vm.machine import qemu; kernel = Catalogue().get('6.1'); "
    program += "print(warm.state_for(kernel, qemu.MachineConfig(kvm=True)).path.name)"
    return said(sys.executable, "-c", program).strip()


def load_kvm(*parameters):
    said("modprobe", "-r", "kvm_amd")
    said("modprobe", "kvm_amd", *parameters)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    (tmp_path / "kernels").symlink_to("KERNELS")


def test_inside(bpf_kernel):
    load_kvm()
    for _ in ("the state is made", "the state is there"):
        run = said(*PYTEST)
        assert "bpfmaps: kernels 6.1 (6.1.0-" in run
        assert ", KVM)" in run
        assert "clock: kvm-clock" in run
        assert "1 passed" in run
        assert "is emulated" not in run
        (state,) = states()
        assert name_of_state() == state
    load_kvm("nested=0")  # then the processor that KVM passes on has no SVM
    assert name_of_state() != state
    load_kvm()
    assert name_of_state() == state
    booted = said(*PYTEST, "--bpf-vm=virtme-ng")
    assert "clock: kvm-clock" in booted
    assert "is emulated" not in booted
    assert states() == [state]
"""


def test_a_kernel_is_run_with_kvm_in_a_guest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state is made and restored. One of another processor is not used. virtme-ng boots with KVM.

    The guest has one CPU. With several, QEMU's thread leaves each of them after 100 ms, and its emulation of
    SVM (7.2 to 11.1) may then deliver an interrupt twice. The handler in the kernel inside would wait for
    itself.
    """
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makeconftest(
        textwrap.dedent(
            """
            import os, pytest

            @pytest.fixture
            def bpf_kernel():
                return os.uname().release
            """
        )
    )
    outside = pytester.makepyfile(OUTSIDE.replace("KERNELS", str(CACHE / "kernels")))
    inside = pytester.path / "inside"
    inside.mkdir()
    (inside / "test_inside.py").write_text(INSIDE)
    (inside / "pytest.ini").write_text("[pytest]\n")  # makes this folder pytest's root
    guest = ["--bpf-kernel=6.1", "--bpf-vm-cpus=1", "--bpf-vm-memory=4G", "--bpf-vm-timeout=3600"]
    result = pytester.runpytest_subprocess(outside, *guest, "-rP")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*clock: kvm-clock*"])
