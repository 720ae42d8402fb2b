"""Tests that names which no kernel has are errors, against lists of the kernel and of libbpf's headers."""

import platform
import re
from pathlib import Path

import pytest
from kernel_files import RELEASE, bzimage, write

from pytest_bpfmaps.cli import main
from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel import known_names
from pytest_bpfmaps.kernel.bpf_types import COMMANDS
from pytest_bpfmaps.kernel.features import Feature, asked_for, probe, probe_any
from pytest_bpfmaps.kernel.release import is_emulated
from pytest_bpfmaps.kernel.running_kernel import missing_features, sentence_on
from pytest_bpfmaps.kernel.unknown_names import refuse_unknown

HEADER = Path("/usr/include/linux/bpf.h")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("kprob/do_unlinkat", "kprobe/do_unlinkat"),
        ("kprobe/do_unlinkatt", "do_unlinkat"),
        ("fentry/vfs_raed", "vfs_read"),
        ("kretprobe.multi/tcp_sendmgs", "tcp_sendmsg"),
        ("tracepoint/sched/sched_swich", "sched/sched_switch"),
        ("tp/shed/sched_switch", "sched/sched_switch"),
        ("raw_tp/sched_swich", "sched_switch"),
        ("tp_btf/sched_proces_fork", "sched_process_fork"),
        ("ksyscall/opneat", "openat"),
        ("lsm/file_opne", "file_open"),
        ("iter/tsk", "task"),
        ("iter/task_new", "task"),  # bpf_iter_task_new() is a function of open-coded iterators
        ("cgroup/conect4", "cgroup/connect4"),
        ("bpf_lop", "bpf_loop"),
        ("helper:bpf_lop", "bpf_loop"),
        ("kfunc:bpf_task_acqire", "bpf_task_acquire"),
        ("command:token_creat", "token_create"),
        ("token_creat", "token_create"),
        ("config:BPF_SYSCAL", "BPF_SYSCALL"),
        ("struct_ops:shed_ext_ops", "sched_ext_ops"),
        ("ringbuff", "ringbuf"),
        ("krobe", "kprobe"),
    ],
)
def test_a_misspelt_name_is_an_error_with_the_closest(name, meant):
    with pytest.raises(UnsupportedError, match=rf"did you mean (?:.* or )?'{re.escape(meant)}'"):
        list(missing_features([name], {}))


@pytest.mark.parametrize("kind", ["kprobe", "fentry", "tracepoint", "usdt", "kprobe.multi", "struct_ops"])
def test_a_slash_without_a_target_is_an_error(kind):
    with pytest.raises(UnsupportedError, match=rf"names no target after the slash\n.*write '{kind}' for"):
        list(missing_features([f"{kind}/"], {}))


def test_a_section_of_struct_ops_asks_for_nothing():
    with pytest.raises(UnsupportedError, match=r"write 'struct_ops:sched_ext_ops' if the kernel"):
        list(missing_features(["struct_ops/sched_ext_ops"], {}))


@pytest.mark.parametrize(
    "name",
    [
        *("kprobe/nft_do_chain", "fentry/ext4_file_open", "kprobe/_do_fork", "kprobe/sys_open"),
        *("kprobe/tcp_drop", "tracepoint/nfsd/nfsd_file_acquire", "tracepoint/syscalls/sys_enter_openat"),
        *("fexit/account_page_dirtied", "kprobe/do_unlinkat+0x4", "kprobe/tcp_v4_rcv.isra.0"),
        *("lsm/bpf_map", "iter/bpf_map_elem", "kprobe.multi/tcp_*", "uprobe/libc:malloc", "ksyscall/openat2"),
        *("bpf_loop", "bpf_arena_alloc_pages", "CONFIG_NO_SUCH_OPTION"),
        *("kprobe/__vfs_read", "kprobe/blk_start_request", "kprobe/SyS_open", "kprobe/tcp_v4_send_check"),
        *(
            "kprobe/do_page_fault",
            "kprobe/__set_task_comm",
            "kprobe/account_user_time",
        ),
        *(
            "kprobe/rt_spin_lock",
            "fentry/el0_svc",
            "kprobe/exec_binprm",
        ),  # names of PREEMPT_RT, of arm64, and of inlined functions
        *("kprobe/sys_clone", "kprobe/__vfs_write", "kprobe/tcp_v4_md5_lookup"),  # 4.4 to 5.4
        *("kprobe/nf_ct_deliver_cached_events", "kprobe/ip6t_do_table", "raw_tp/block_rq_abort"),
        *("raw_tp/sched_stat_wait", "raw_tp/ext4_direct_IO_enter", "tracepoint/ext4/ext4_direct_IO_enter"),
    ],
)
def test_what_some_kernel_has_may_be_missing(name):
    list(missing_features([name], {}))


def test_a_pattern_that_fits_nothing_is_a_warning():
    with pytest.warns(UserWarning, match=r"kprobe.multi/tpc_\*_zz' fits no function of 22 releases of Linux"):
        refuse_unknown("attach", "kprobe.multi/tpc_*_zz")


def test_each_helper_of_the_header_is_known():
    helpers = re.findall(
        r"^\tFN\((\w+)[,)]", HEADER.read_text().replace("___BPF_FUNC_MAPPER", ""), re.MULTILINE
    )
    helpers = helpers or re.findall(r"\bFN\((\w+), ", HEADER.read_text())
    assert len(helpers) > 150
    assert [h for h in helpers if not known_names.is_helper(f"bpf_{h}") and h != "unspec"] == []


def test_each_traceable_name_of_this_kernels_btf_is_known():
    from pytest_bpfmaps.kernel.vmlinux_btf import FUNC, TYPEDEF, type_names

    tracepoints, hooks = type_names(TYPEDEF).starting("btf_trace_"), type_names(FUNC).starting("bpf_lsm_")
    assert len(tracepoints) > 500
    assert len(hooks) > 100
    assert [n for n in tracepoints if not known_names.is_raw_tracepoint(n.removeprefix("btf_trace_"))] == []
    assert [n for n in hooks if not known_names.is_lsm_hook(n.removeprefix("bpf_lsm_"))] == []


def test_a_module_that_has_a_function():
    assert known_names.module_of("nft_do_chain") == "nf_tables"
    assert known_names.module_of("vfs_read") is None
    assert known_names.module_of("no_such_function") is None


@pytest.mark.parametrize("name", ["tc", "socket", "sockops", "classifier", "freplace"])
def test_a_section_alone_is_a_feature(name):
    assert asked_for(name) == ("attach", name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_alone_is_a_feature(name):
    assert asked_for(name) == ("command", name)


@pytest.mark.parametrize("name", ["xdp", "syscall", "hash", "sk_lookup"])
def test_a_type_is_meant_before_a_section(name):
    assert asked_for(name)[0] in ("program_type", "map_type")


@pytest.mark.parametrize("file", ["functions", "helpers", "iterators", "options", "tracepoints", "modules"])
def test_names_are_found_by_halves(file):
    lines = (
        known_names.names(file) if file != "modules" else known_names._text(file).decode().splitlines()[1:]
    )
    assert [line.encode() for line in lines] == sorted(line.encode() for line in lines)
    path = known_names._FOLDER / f"{file}.txt"
    names = {line.partition(" ")[0] for line in lines}
    for line in (lines[0], lines[-1], *lines[:: max(len(lines) // 500, 1)]):
        name = line.partition(" ")[0]
        assert known_names._line(path, name) == line
        for other in (f"{name}0", name[:-1], f"!{name}", f"~{name}", ""):
            assert (known_names._line(path, other) is not None) == (other in names)


def test_a_kind_alone_is_probed_as_an_attach_point():
    assert probe_any("kprobe").name == "attach point kprobe"
    assert probe("program_type", "kprobe").name == "program type kprobe"
    assert bool(probe_any("kprobe")) == Path("/sys/bus/event_source/devices/kprobe").exists()


@pytest.fixture
def looked_up_anew():
    """Clears before and after a test what was found in a catalogue."""
    caches = (known_names.kernels_with, known_names._in_system_maps)
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the image is for x86_64")
def test_the_remedy_makes_the_names_of_another_kernel_known(tmp_path, monkeypatch, looked_up_anew):
    """The message says so: Ubuntu's kernel 5.4 has no BTF, and its System.map is beside it."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    symbols = ["T the_only_one", "t its_static", "D its_variable", "B __tracepoint_its_event"]
    boot = {f"vmlinuz-{RELEASE}": bzimage(), f"System.map-{RELEASE}": system_map(symbols)}
    its = ("kprobe/the_only_one", "kretprobe/its_static", "tp_btf/its_event")
    image = write(tmp_path, boot) / f"vmlinuz-{RELEASE}"
    with pytest.raises(UnsupportedError, match="bpfmaps kernels add /boot/vmlinuz-RELEASE, with its System"):
        list(missing_features([its[0]], {}))
    known_names._in_system_maps.cache_clear()
    assert main(["kernels", "add", str(image), "--name", "old"]) == 0
    assert len(list(missing_features(its, {}))) == len(its)
    for other in ("kprobe/its_variable", "kprobe/the_only", "kprobe/only_one", "tp_btf/its_variable"):
        with pytest.raises(UnsupportedError):
            list(missing_features([other], {}))


def test_a_note_in_the_place_of_the_symbols_names_nothing(tmp_path, monkeypatch, looked_up_anew):
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    note = system_map(["B The real System.map is in the linux-image-<version>-dbg package"])
    write(tmp_path, {"kernels/6.1/boot/System.map-6.1": note})
    with pytest.raises(UnsupportedError):
        list(missing_features(["kprobe/package"], {}))


def system_map(symbols):
    return "".join(f"ffffffff81{n:06x} {symbol}\n" for n, symbol in enumerate(symbols)).encode()


@pytest.mark.skipif(is_emulated(), reason="needs a machine of its own: in a guest there is no such remedy")
@pytest.mark.parametrize(
    ("name", "in_btf"),
    [
        (("map_type", "rhash"), "BPF_MAP_TYPE_RHASH"),
        (("program_type", "netfilter"), "BPF_PROG_TYPE_NETFILTER"),
        (("helper", "bpf_loop"), "BPF_FUNC_loop"),
        (("kfunc", "bpf_task_acquire"), "bpf_task_acquire"),
        (("attach", "fentry/vfs_read"), "vfs_read"),
        (("struct_ops", "sched_ext_ops"), "bpf_struct_ops_sched_ext_ops"),
    ],
)
def test_the_remedy_names_a_kernel_that_has_it(tmp_path, monkeypatch, looked_up_anew, name, in_btf):
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    for kernel, names in {"6.1": "other", "7.9": f"other\0{in_btf}\0", "7.8": f"not_{in_btf}"}.items():
        (tmp_path / "kernels" / kernel).mkdir(parents=True)
        (tmp_path / "kernels" / kernel / "btf").write_bytes(f"\0{names}\0".encode())
    assert sentence_on(*name, Feature("it", False)).endswith("pytest --bpf-kernel=7.9")
    (tmp_path / "kernels/7.9/btf").unlink()
    known_names.kernels_with.cache_clear()
    assert sentence_on(*name, Feature("it", False)).endswith(" lacks it")
