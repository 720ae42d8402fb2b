"""Tests that a kernel's recorded files agree with the probes on this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.kernel.features import probe
from pytest_bpfmaps.kernel.offline_features import RecordedKernel
from pytest_bpfmaps.kernel.running_kernel import RunningKernel, lacks, missing_features

BTF = Path("/sys/kernel/btf/vmlinux")
FEATURES = [
    *(("map_type", str(t)) for t in MapType if t),
    *(("program_type", str(t)) for t in ProgramType if t),
    *(("helper", name) for name in ("bpf_loop", "bpf_ringbuf_output", "bpf_map_lookup_elem", "bpf_no_such")),
    *(("kfunc", name) for name in ("bpf_cpumask_create", "bpf_arena_alloc_pages", "bpf_no_such")),
    *(("function", name) for name in ("bpf_loop", "bpf_cpumask_create", "bpf_no_such")),
    *(("config", name) for name in ("CONFIG_BPF", "BPF_LSM", "HZ=1", "NO_SUCH_OPTION")),
]


@pytest.mark.skipif(not BTF.exists(), reason="this kernel has no BTF")
def test_what_files_lack_the_probe_lacks(bpf_kernel: RunningKernel) -> None:
    config = os.environ.get("BPFMAPS_KERNEL_CONFIG")
    recorded = RecordedKernel(bpf_kernel.release, BTF, Path(config) if config else None)
    missing = 0
    for kind, name in FEATURES:
        said = list(recorded.missing_features((), {kind: name}))
        missing += len(said)
        if said:
            answer = probe(kind, name)
            assert not answer
            assert said == [(answer.name, lacks(bpf_kernel.release, answer))]
    assert missing >= 3  # the names that no kernel has


@pytest.mark.parametrize(
    ("name", "kind"),
    [("bpf_timer_init", "helper"), ("bpf_strncmp", "helper"), ("bpf_task_from_pid", "kfunc")],
)
def test_a_function_is_told_as_what_it_is_elsewhere(bpf_kernel, name, kind) -> None:
    """Linux 5.10 lacks all three. The message must name the kind that others have."""
    assert probe("function", name).name == f"{kind} {name}"
    if BTF.exists():
        recorded = RecordedKernel(bpf_kernel.release, BTF, None)
        assert [said for said, _ in recorded.missing_features([name], {})] == (
            [] if probe("function", name) else [f"{kind} {name}"]
        )


@pytest.mark.skipif(not BTF.exists(), reason="this kernel has no BTF")
@pytest.mark.parametrize("kind", ["kfunc", "function"])
def test_a_function_of_a_module_is_not_certainly_missing(bpf_kernel: RunningKernel, kind: str) -> None:
    """A test may load the module before the kernel is asked."""
    recorded = RecordedKernel(bpf_kernel.release, BTF, None)
    assert list(recorded.missing_features((), {kind: "bpf_ct_release"})) == []


@pytest.mark.bpf_requires("kprobe/vfs_read")
@pytest.mark.parametrize(
    ("kind", "name", "module"),
    [
        ("kfunc", "bpf_ct_release", "nf_conntrack"),
        ("attach", "kprobe/tun_chr_open", "tun"),
        ("attach", "fentry/tun_chr_open", "tun"),
    ],
)
def test_the_reason_names_the_module_to_load(kind: str, name: str, module: str) -> None:
    subprocess.run(["modprobe", "-r", module], check=False)
    before = [sentence for _, sentence in missing_features((), {kind: name})]
    subprocess.run(["modprobe", module], check=True)
    after = [sentence for _, sentence in missing_features((), {kind: name})]
    subprocess.run(["modprobe", "-r", module], check=False)
    told = [f"modprobe {module} before the test is set up" in sentence for sentence in before]
    assert told == ([] if not before else [not after])
