"""Tests the table of releases against the types of the running kernel."""

from pathlib import Path

import pytest

from pytest_bpfmaps.btf import Btf, Kind
from pytest_bpfmaps.kernel import feature_releases

VMLINUX = Path("/sys/kernel/btf/vmlinux")
ENUMS = {
    "map type": ("bpf_map_type", "BPF_MAP_TYPE_"),
    "program type": ("bpf_prog_type", "BPF_PROG_TYPE_"),
    "helper": ("bpf_func_id", "BPF_FUNC_"),
}


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
def test_the_table_is_right_about_this_kernel(bpf_kernel):
    btf = Btf(VMLINUX.read_bytes())
    known = {name for enum, _ in ENUMS.values() for name, _ in btf.find(enum, Kind.ENUM).enumerators()}
    functions = {each.name for each in btf if each.kind is Kind.FUNC}
    checked = 0
    for kind, (_, prefix) in ENUMS.items():
        for name, first in feature_releases._TABLES[kind].items():
            should = feature_releases.should_have(f"{kind} {name}", bpf_kernel.version)
            if kind != "helper":
                assert (prefix + name.upper() in known) == should, name
            elif tuple(map(int, first.split("."))) < (6, 2):
                assert (prefix + name.removeprefix("bpf_") in known) == should, name
            else:  # kfuncs; a configuration may leave them out
                assert should or name not in functions, name
            checked += 1
    assert checked > 100
