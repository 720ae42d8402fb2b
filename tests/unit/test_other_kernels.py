"""Which kernel a skip proposes: only one of the catalogue that has the feature."""

from pathlib import Path

import pytest

from pytest_bpfmaps.kernel import known_names, other_kernels
from pytest_bpfmaps.kernel.other_kernels import advise_other_kernel

# The names in the BTF of each kernel, and the options of its configuration.
KERNELS = {
    "5.10": ("5.10.0-46-amd64", "BPF_MAP_TYPE_HASH vfs_read btf_trace_sched_switch", "BPF_LSM=y"),
    "6.1": ("6.1.0-56-amd64", "BPF_MAP_TYPE_HASH vfs_read btf_trace_sched_switch", "BPF_LSM=y"),
    "new": ("6.12.118-amd64", "BPF_MAP_TYPE_ARENA vfs_read bpf_kprobe_multi_link netkit_link", "NETKIT=y"),
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    known_names.kernels_with.cache_clear()
    monkeypatch.setattr(other_kernels.running_release, "is_emulated", lambda: False)


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    for name, (release, names, options) in KERNELS.items():
        folder = tmp_path / "kernels" / name
        (folder / "boot").mkdir(parents=True)
        (folder / "btf").write_bytes(b"\0" + names.replace(" ", "\0").encode() + b"\0")
        (folder / "boot" / f"config-{release}").write_text(f"CONFIG_{options}\n# CONFIG_FPROBE is not set\n")


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize(
    ("kind", "name", "feature", "proposed"),
    [
        ("map_type", "hash", "map type hash", "6.1"),
        ("map_type", "arena", "map type arena", "new"),
        ("attach", "netkit/primary", "attach point netkit/primary", "new"),
        ("attach", "kprobe.multi", "attach point kprobe.multi", "new"),
        ("attach", "kprobe/vfs_read", "attach point kprobe/vfs_read", "6.1"),
        ("attach", "tp/sched/sched_switch", "attach point tp/sched/sched_switch", "6.1"),
        ("attach", "uprobe", "attach point uprobe", "6.1"),
        ("config", "CONFIG_BPF_LSM", "CONFIG_BPF_LSM", "6.1"),
        ("config", "CONFIG_NETKIT", "CONFIG_NETKIT", "new"),
    ],
)
def test_a_kernel_that_has_it_is_proposed(kind: str, name: str, feature: str, proposed: str) -> None:
    said = advise_other_kernel(kind, name, feature)
    assert said == f"; run it in a virtual machine: pytest --bpf-kernel={proposed}"


@pytest.mark.usefixtures("catalogue")
def test_without_such_a_kernel_the_release_is_named_or_nothing() -> None:
    said = advise_other_kernel("map_type", "insn_array", "map type insn_array")
    assert said.startswith("; it came with Linux 6.19")
    assert not advise_other_kernel("config", "CONFIG_FPROBE", "CONFIG_FPROBE")
    assert not advise_other_kernel("attach", "kprobe/f", "attach point kprobe/f")


def test_an_empty_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    usual = advise_other_kernel("attach", "uprobe", "attach point uprobe")
    assert usual == "; run it in a virtual machine: pytest --bpf-kernel=6.1"
    assert "6.6" in advise_other_kernel("attach", "tcx/ingress", "attach point tcx/ingress")
    assert not advise_other_kernel("config", "CONFIG_FPROBE", "CONFIG_FPROBE")
