"""Tests attachments and runs that are refused: each test does what the message says, and it works."""

import os
import subprocess
from pathlib import Path

import pytest

from pytest_bpfmaps import AttachError, BpfError, LoadError
from pytest_bpfmaps.kernel import kallsyms, kprobe_blacklist
from pytest_bpfmaps.kernel.attach_names import functions
from pytest_bpfmaps.kernel.duplicate_symbols import places_of

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
int hits;
"""
COUNT = 'SEC("%s") int prog(void *ctx) { __sync_fetch_and_add(&hits, 1); return 0; }'
EMPTY = 'SEC("%s") int prog(void *ctx) { return 0; }'


@pytest.fixture
def load(bpf):
    return lambda section, code=EMPTY: bpf.load(code=HEAD + code % section)


@pytest.mark.bpf_requires("kprobe")
@pytest.mark.parametrize("kind", ["kprobe", "kretprobe"])
def test_one_of_several_functions_of_a_name(bpf, load, kind):
    """/proc/self/maps and /proc/self/mounts each have their own function ``m_start``."""
    with pytest.raises(
        AttachError, match=r"functions of this kernel have the name 'm_start'(?s:.*)-> name it by"
    ):
        load(f"{kind}/m_start").attach()
    hits = {}
    for symbol, offset in places_of("m_start"):
        loaded = load(kind, COUNT)
        for file in ("maps", "mounts"):
            with loaded.programs.prog.attach(function=symbol, offset=offset):
                loaded.globals.hits = 0
                Path(f"/proc/self/{file}").read_bytes()
                hits.setdefault(file, []).append(loaded.globals.hits > 0)
    assert hits["maps"].count(True) == hits["mounts"].count(True) == 1
    assert hits["maps"].index(True) != hits["mounts"].index(True)


@pytest.mark.bpf_requires("kprobe/do_int3")
def test_a_function_that_kprobes_run_through(load):
    mount = "mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug"
    subprocess.run(mount, shell=True, check=True)
    assert kprobe_blacklist.is_blacklisted("do_int3")
    with pytest.raises(
        AttachError, match=r"no kprobe on 'do_int3', because kprobes use it(?s:.*)-> .*calls it"
    ) as e:
        load("kprobe/do_int3").attach()
    if 'SEC("fentry/do_int3")' in e.value.fix:
        with load("fentry/do_int3").attach():
            load("kprobe/vfs_read").attach().close()


@pytest.mark.bpf_requires("kprobe/do_int3")
def test_the_list_of_such_functions_without_debugfs(monkeypatch, tmp_path):
    """The list is read where no folder shows debugfs, and no mount is left."""
    mounts = Path("/proc/self/mountinfo").read_text()
    monkeypatch.setattr(kprobe_blacklist, "PATH", tmp_path / "blacklist")
    assert kprobe_blacklist.is_blacklisted("do_int3") is True
    assert kprobe_blacklist.is_blacklisted("vfs_read") is False
    assert Path("/proc/self/mountinfo").read_text() == mounts


@pytest.mark.bpf_requires("fentry")
def test_a_function_that_the_kernels_types_lack(load):
    name = "entry_SYSCALL_64"
    if name not in functions():
        pytest.skip("this kernel has no entry_SYSCALL_64")
    with pytest.raises(LoadError, match=rf"has '{name}', but its types do not(?s:.*)-> use a kprobe"):
        load(f"fentry/{name}")


@pytest.mark.bpf_requires("tracepoint")
@pytest.mark.parametrize("kind", ["tp", "tracepoint"])
def test_an_event_without_its_category(load, kind):
    with pytest.raises(
        AttachError, match=rf'no category(?s:.*)-> write SEC\("{kind}/syscalls/sys_enter_getpid"\)'
    ):
        load(f"{kind}/sys_enter_getpid").attach()
    loaded = load(f"{kind}/syscalls/sys_enter_getpid", COUNT)
    with loaded.attach():
        os.getpid()
    assert loaded.globals.hits


@pytest.mark.bpf_requires("raw_tp/sys_enter")
@pytest.mark.parametrize("kind", ["raw_tp", "tp_btf"])
def test_a_system_call_of_which_there_is_no_raw_tracepoint(load, kind):
    with pytest.raises(
        BpfError, match=r'-> (?:take|use) SEC\("tracepoint/syscalls/sys_enter_getpid"\); or SEC\("tp_btf/'
    ):
        load(f"{kind}/sys_enter_getpid").attach()
    load("tp_btf/sys_enter").attach()
    load("tracepoint/syscalls/sys_enter_getpid").attach()


@pytest.mark.bpf_requires("iter/task")
def test_an_iterator_is_not_run(load):
    program = load("iter/task").programs.prog
    with pytest.raises(BpfError, match=r"-> an iterator is read, not run: program\.attach\(\)\.read\(\)"):
        program.run()
    assert program.attach().read() == ""


@pytest.mark.bpf_requires("raw_tp/sched_switch")
def test_a_context_that_is_shorter_than_what_is_read(bpf):
    code = HEAD + 'SEC("raw_tp/sched_switch") int prog(__u64 *ctx) { return ctx[2] != 0; }'
    program = bpf.load(code=code).programs.prog
    with pytest.raises(LoadError, match=r"-> give as many numbers as the program reads.*ctx=\[0\] \* 12"):
        program.run(ctx=[0])
    assert program.run(ctx=[0] * 12).retval == 0


def test_other_words_for_a_target(load, bpf_netns):
    program = load("xdp", 'SEC("%s") int prog(struct xdp_md *ctx) { return 2; }').programs.prog
    with pytest.raises(AttachError, match=r"no such target: ifindex\n  -> it is called interface"):
        program.attach(ifindex=1)
    (interface, _) = bpf_netns().veth_to(bpf_netns())
    program.attach(interface=interface).close()


@pytest.mark.bpf_requires("syscall")
def test_a_program_that_is_attached_nowhere(load):
    loaded = load("syscall")
    with pytest.raises(AttachError, match=r"-> .*run it: obj\.programs\.prog\.run\(\)"):
        loaded.attach()
    assert loaded.programs.prog.run().retval == 0


@pytest.mark.bpf_requires("uprobe")
def test_a_folder_in_place_of_a_program(load):
    with pytest.raises(AttachError, match=r"/usr/bin: Is a directory\n  -> name the program itself"):
        load("uprobe//usr/bin:main").attach()


@pytest.mark.bpf_requires("kprobe")
@pytest.mark.parametrize("section", ["kprobe/vfs_raed", "kprobe/zqzqzq_of_nobody", "fentry/vfs_raed"])
def test_a_missing_function_is_explained_without_a_list_of_all_symbols(
    load, bpf_kernel, monkeypatch, section
):
    """Reading them takes an emulated guest 0.4 s in each new process."""
    if section.startswith("fentry") and not bpf_kernel.has("fentry"):
        pytest.skip("this kernel has no fentry")
    if "nobody" in section and bpf_kernel.version < (5, 11):
        pytest.skip("this kernel's modules have no types")

    def refuse(symbols):
        raise AssertionError("all symbols were read")

    monkeypatch.setattr(kallsyms.KernelSymbols, "_read", refuse)
    kallsyms.kernel_symbols.cache_clear()
    with pytest.raises(BpfError, match=r"no function '\w+', or it is inlined everywhere(?s:.*)-> ") as error:
        load(section).attach()
    assert ("vfs_read" in error.value.fix) == ("raed" in section)
    kallsyms.kernel_symbols.cache_clear()
