"""Tests functions whose name a module and the kernel, or two modules, share: the test says whose it means.

The kernel and the module tun each have ``group_show``. A file of an interface that tun made runs that of tun.
nf_defrag_ipv4 and nf_defrag_ipv6 each have ``nf_defrag_fini``.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_bpfmaps import AttachError, LoadError
from pytest_bpfmaps.kernel.btf import kernel_btf_name
from pytest_bpfmaps.kernel.program_info import program_info

COUNT = 'long runs; SEC("SECTION") int count(void *ctx) { __sync_fetch_and_add(&runs, 1); return 0; }'
# libbpf before 1.5 does not know SEC("fentry/MODULE:FUNCTION")
NEWER = pytest.mark.filterwarnings("ignore:.*newer than libbpf")
HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
TYPED = ["fentry", "fexit"]
TYPES_OF_TUN = Path("/sys/kernel/btf/tun")  # from Linux 5.11 on


@pytest.fixture
def load(load_code):
    return lambda section: load_code(COUNT.replace("SECTION", section))


class Twins(NamedTuple):
    """Two functions of one name: of the kernel, and of a module. `run` runs that of the module, if it can."""

    module: str
    name: str
    run: Callable[[], object] | None


@pytest.fixture
def twins():
    """``group_show`` of tun; before Linux 5.18 it had another name there, and no test can run the other twin.

    sysfs shows the interfaces of the first namespace only.
    """
    run("modprobe", "tun")
    run("modprobe", "md_mod")
    if "group_show" not in {line.split()[2] for line in lines_of("tun")}:
        yield Twins("md_mod", "write_page", None)
        return
    name = f"tap{os.getpid()}"
    run("ip", "tuntap", "add", name, "mode", "tap")
    yield Twins("tun", "group_show", Path(f"/sys/class/net/{name}/group").read_bytes)
    run("ip", "tuntap", "del", name, "mode", "tap")


def lines_of(module):
    lines = Path("/proc/kallsyms").read_text().splitlines()
    return [line for line in lines if line.endswith(f"\t[{module}]")]


def places_of_kprobe(name):
    """Returns the lines that the kernel shows for kprobes on functions of that name."""
    run("sh", "-c", "mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug")
    lines = Path("/sys/kernel/debug/kprobes/list").read_text().splitlines()
    return [line for line in lines if f" {name}+0x" in line]


def run(*command):
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.bpf_requires("kprobe/vfs_read")
@pytest.mark.parametrize("kind", ["kprobe", "kretprobe"])
@pytest.mark.parametrize("by_section", [True, False])
def test_a_kprobe_on_a_shared_name(load, twins, kind, by_section):
    name = twins.name
    told = f"2 functions of this kernel have the name '{name}'\n(.*\n)?.*function='vmlinux:{name}'\\) or "
    program = load(f"{kind}/{name}" if by_section else kind).programs.count
    with pytest.raises(AttachError, match=f"{told}attach\\(function='{twins.module}:{name}'"):
        program.attach(**({} if by_section else {"function": name}))


@pytest.mark.bpf_requires("kprobe/vfs_read")
@pytest.mark.parametrize("kind", ["kprobe", "kretprobe"])
@pytest.mark.parametrize("by_section", [True, False])
def test_a_kprobe_of_a_module(load, twins, kind, by_section):
    target = f"{twins.module}:{twins.name}"
    obj = load(f"{kind}/{target}" if by_section else kind)
    with obj.programs.count.attach(**({} if by_section else {"function": target})):
        assert [twins.module in line.split() for line in places_of_kprobe(twins.name)] == [True]
        if twins.run:
            twins.run()
            assert obj.globals.runs == 1


@pytest.mark.bpf_requires("kprobe/vfs_read")
def test_a_kprobe_of_the_kernel_itself(load, twins):
    obj = load("kprobe")
    with obj.programs.count.attach(function=f"vmlinux:{twins.name}"):
        assert [twins.module in line.split() for line in places_of_kprobe(twins.name)] == [False]
        if twins.run:
            twins.run()
    assert obj.globals.runs == 0
    with obj.programs.count.attach(function="vmlinux:vfs_read"):
        Path("/proc/self/stat").read_bytes()
    assert obj.globals.runs > 0


@pytest.mark.bpf_requires("kprobe/vfs_read")
@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("tun:vfs_read", "the module tun has no function 'vfs_read'\n.*did you mean 'vmlinux:vfs_read'"),
        ("tun:group_shew", "no function is called 'group_shew'\n"),
        (
            "no_such:vfs_read",
            "the module no_such is not loaded\n.*modprobe no_such; or use 'vmlinux:vfs_read'",
        ),
        ("vmlinux:tun_net_init", "the kernel itself has no function .*\n.*did you mean 'tun:tun_net_init'"),
    ],
)
def test_an_owner_without_that_function(load, twins, function, told):
    with pytest.raises(AttachError, match=told):
        load("kprobe").programs.count.attach(function=function)


@pytest.mark.bpf_requires("kprobe.multi")
@pytest.mark.parametrize(
    ("functions", "runs"),
    [
        ("{}:group_show", 1),
        (["{}:group_show"], 1),
        (["vmlinux:group_show"], 0),
        ("{}:group_sho?", 1),
        ("group_show", 1),
        (["{}:group_show", "tun_get_socket"], 1),
    ],
)
def test_many_functions(load, twins, functions, runs):
    obj = load("kprobe.multi")
    names = [name.format(twins.module) for name in ([functions] if isinstance(functions, str) else functions)]
    if twins.run is None:
        return  # kprobe.multi is newer than its group_show
    with obj.programs.count.attach(functions=names[0] if isinstance(functions, str) else names):
        twins.run()
    assert obj.globals.runs == runs


@pytest.mark.bpf_requires("kprobe.multi")
def test_a_list_with_a_name_and_no_owner(load, twins):
    name = twins.name
    with pytest.raises(AttachError, match=f"2 functions of this kernel have the name '{name}'"):
        load("kprobe.multi").programs.count.attach(functions=[f"{twins.module}:{name}", name])


@pytest.mark.bpf_requires("fentry/vfs_read")
@pytest.mark.parametrize("kind", TYPED)
def test_fentry_on_a_shared_name(load, twins, kind):
    """The types of the module lack its function: the kernel's own has the same parameters."""
    ways = f'SEC\\("{kind}/vmlinux:{twins.name}"\\) or SEC\\("kprobe"\\) and .*"{twins.module}:{twins.name}"'
    with pytest.raises(AttachError, match=f"2 functions .* '{twins.name}'\n.*-> say whose it is: {ways}"):
        load(f"{kind}/{twins.name}").programs.count.attach()


@pytest.mark.bpf_requires("fentry/vfs_read")
@pytest.mark.parametrize("kind", TYPED)
@NEWER
def test_fentry_of_an_owner(load, twins, kind):
    obj = load(f"{kind}/vmlinux:{twins.name}")
    with obj.programs.count.attach():
        if twins.run:
            twins.run()
    assert obj.globals.runs == 0
    with pytest.raises(
        LoadError, match=f"types lack the function '{twins.name}' of the module {twins.module}\n"
    ):
        load(f"{kind}/{twins.module}:{twins.name}")
    if TYPES_OF_TUN.exists():
        obj = load(f"{kind}/tun:tun_chr_open")
        with obj.programs.count.attach():
            Path("/dev/net/tun").open("rb").close()
        assert obj.globals.runs == 1


@pytest.mark.bpf_requires("fentry/vfs_read")
@pytest.mark.parametrize("kind", TYPED)
def test_a_target_that_was_set(bpf, twins, kind):
    owners = [("tun:tun_chr_open", 1), (f"vmlinux:{twins.name}", 0), ("tun:tun_chr_open", 1)]
    for target, runs in owners if TYPES_OF_TUN.exists() else owners[1:2]:
        with bpf.open(code=HEAD + COUNT.replace("SECTION", kind)) as opened:
            opened.programs.count.set_attach_target(target)
            with opened.load() as obj, obj.programs.count.attach():
                Path("/dev/net/tun").open("rb").close()
                assert obj.globals.runs == runs


@pytest.mark.bpf_requires("fentry/vfs_read")
def test_the_last_target_counts(bpf, twins):
    with bpf.open(code=HEAD + COUNT.replace("SECTION", "fentry")) as opened:
        opened.programs.count.set_attach_target("vmlinux:vfs_open")
        opened.programs.count.set_attach_target("vfs_read")
        with opened.load() as obj, obj.programs.count.attach():
            Path("/proc/self/stat").read_bytes()
            assert obj.globals.runs > 0


@pytest.mark.bpf_requires("fentry/vfs_read")
@pytest.mark.parametrize(
    ("section", "target", "told"),
    [
        ("fentry", "tun:vfs_read", "the module tun has no function 'vfs_read'\n.*'vmlinux:vfs_read'"),
        ("fentry/vfs_read", "vmlinux:vfs_open", 'by its name alone\n.*write SEC\\("fentry"\\)'),
        ("lsm/file_open", "vmlinux:bpf_lsm_file_open", "by its name alone\n"),
        ("fentry", "no_such_function", "no function 'no_such_function'"),
    ],
)
def test_a_target_that_can_not_be_set(bpf, twins, section, target, told):
    with (
        bpf.open(code=HEAD + COUNT.replace("SECTION", section)) as opened,
        pytest.raises(LoadError, match=told),
    ):
        opened.programs.count.set_attach_target(target)


@pytest.mark.bpf_requires("fentry/vfs_read")
@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("fentry/tun:vfs_read", "the module tun has no function 'vfs_read'\n(.*\n)*.*'vmlinux:vfs_read'"),
        ("fentry/vfs_reed", "no function 'vfs_reed'(.*\n)*.*'vfs_read'"),
        ("fentry", "names no function|no target|set_attach_target"),
    ],
)
@NEWER
def test_a_section_that_names_no_function(load, twins, section, told):
    with pytest.raises(LoadError, match=told):
        load(section)


@pytest.mark.bpf_requires("fentry/vfs_read")
@NEWER
def test_a_name_that_begins_as_another_module(load):
    """libbpf 1.5 to 1.7 take raid10 for ``raid1`` if it was loaded first."""
    run("modprobe", "raid10")
    run("modprobe", "raid1")
    if not Path("/sys/kernel/btf/raid10").exists():
        with pytest.raises(LoadError, match="types lack the function"):
            load("fentry/raid1:print_conf")
        return
    with pytest.raises(AttachError, match='SEC\\("fentry/raid1:print_conf"\\)'):
        load("fentry/print_conf").programs.count.attach()
    for owner in ("raid1", "raid10"):
        program = load(f"fentry/{owner}:print_conf").programs.count
        number = re.search(r"prog_id:\t(\d+)", Path(f"/proc/self/fdinfo/{program.fd}").read_text())[1]
        assert kernel_btf_name(program_info(int(number)).attach_btf) == owner


@pytest.mark.bpf_requires("fentry/vfs_read", "kprobe/vfs_read")
@pytest.mark.parametrize("section", ["fentry/nf_defrag_fini", "kprobe/nf_defrag_fini"])
def test_two_modules(load, section):
    run("modprobe", "nf_conntrack")
    with pytest.raises(
        (AttachError, LoadError), match="2 functions of this kernel have the name 'nf_defrag_fini'"
    ):
        load(section).programs.count.attach()
