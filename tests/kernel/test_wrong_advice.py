"""Tests the advice of refusals: each test does it, and it helps."""

import re
import subprocess

import pytest

from pytest_bpfmaps import AttachError, CompileError, LoadError, MapError

TRACING = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
SEC("SECTION") int prog(void *ctx) { return 0; }
"""


@pytest.mark.parametrize("kind", ["percpu_array", "percpu_hash", "lru_percpu_hash"])
def test_the_largest_value_of_a_per_cpu_map(bpf, kind):
    with pytest.raises(MapError, match="its values have 40000 bytes, but a per-CPU map's have at most 32768"):
        bpf.create_map(kind, key="u32", value=40000, max_entries=1)
    assert bpf.create_map(kind, key="u32", value=32768, max_entries=1).value_size == 32768


def test_two_definitions_of_the_kernels_types(bpf):
    includes = '#include "vmlinux.h"\n#include <linux/bpf.h>\n'
    code = '#include <bpf/bpf_helpers.h>\nSEC("xdp") int prog(struct xdp_md *ctx) { return XDP_PASS; }'
    with pytest.raises(CompileError, match=r"vmlinux\.h and <linux/bpf\.h> define the same types") as error:
        bpf.load(code=includes + code)
    assert len(str(error.value).splitlines()) < 20
    assert "leave out <linux/bpf.h>" in error.value.fix
    bpf.load(code=includes.replace("#include <linux/bpf.h>\n", "") + code)


def test_a_misspelt_section_is_refused_also_where_libbpf_is_older(bpf):
    code = TRACING.replace("SECTION", "tcx/ingres")
    with pytest.raises(LoadError, match=r"section name 'tcx/ingres'\n(.*\n)*.*did you mean 'tcx/ingress'"):
        bpf.load(code=code)


@pytest.fixture
def no_nf_tables():
    """The module nf_tables exists, but is not loaded."""
    if subprocess.run(["modinfo", "nf_tables"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel has nf_tables built in, or no modules")
    subprocess.run(["modprobe", "-r", "nf_tables"], check=False)
    yield
    subprocess.run(["modprobe", "-r", "nf_tables"], check=False)


@pytest.mark.bpf_requires("kprobe")
@pytest.mark.parametrize(
    "section", ["kprobe/nft_do_chain", "fentry/nft_do_chain", "kprobe.multi/nft_do_chain"]
)
def test_a_function_of_a_module_that_is_not_loaded(bpf, bpf_kernel, no_nf_tables, section):
    if not bpf_kernel.has(section.partition("/")[0]):
        pytest.skip(f"this kernel has no {section.partition('/')[0]}")
    with pytest.raises(
        (AttachError, LoadError), match="is a function of the module nf_tables, which is"
    ) as error:
        bpf.load(code=TRACING.replace("SECTION", section)).attach()
    command = re.search(r"modprobe \w+", error.value.fix)[0]
    subprocess.run(command.split(), check=True)
    bpf.load(code=TRACING.replace("SECTION", section)).attach()


@pytest.mark.bpf_requires("kprobe")
@pytest.mark.parametrize("section", ["kprobe/nft_do_chian", "fentry/nft_do_chian"])
def test_a_misspelt_function_of_a_module_that_is_loaded(bpf, bpf_kernel, no_nf_tables, section):
    """The kernel's types have no similar name."""
    if section.startswith("fentry") and bpf_kernel.version < (5, 11):
        pytest.skip("modules have no types before Linux 5.11, so no fentry")
    subprocess.run(["modprobe", "nf_tables"], check=True)
    with pytest.raises((AttachError, LoadError), match="no function 'nft_do_chian'") as error:
        bpf.load(code=TRACING.replace("SECTION", section)).attach()
    assert "did you mean 'nft_do_chain'" in error.value.fix
    bpf.load(code=TRACING.replace("SECTION", section.replace("chian", "chain"))).attach()
