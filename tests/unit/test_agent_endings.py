"""Tests the explanations of what agents write when a service or a network is not there.

The texts are what tools of Debian 12 wrote in a guest.
"""

import os

import pytest

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.privileges import ALL_CAPABILITIES
from pytest_bpfmaps.loaders import attach_refusals, endings, explanations
from pytest_bpfmaps.loaders.attach_refusals import explain_attach
from pytest_bpfmaps.loaders.endings import explain_output, explain_refusal, explain_user
from pytest_bpfmaps.loaders.explanations import explain_written
from pytest_bpfmaps.loaders.output import held_back

SYSTEMCTL = """System has not been booted with systemd as init system (PID 1). Can't operate.
Failed to connect to bus: Host is down
"""
BUSCTL = "Failed to connect to bus: No such file or directory\n"
DBUS_SEND = """Failed to open connection to "system" message bus: Failed to connect to socket
/run/dbus/system_bus_socket: No such file or directory
"""
NOTIFY = "No status data could be sent: $NOTIFY_SOCKET was not set\n"
CURL = "curl: (7) Failed to connect to 192.0.2.1 port 80 after 126 ms: Couldn't connect to server\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SYSTEMCTL, "it needs systemd, which does not run here"),
        (BUSCTL, "it needs D-Bus, and there is no /nowhere/bus"),
        (DBUS_SEND, "it needs D-Bus, and there is no /nowhere/bus"),
        (NOTIFY, "it tells systemd that it is ready, and no systemd has started it"),
    ],
)
def test_a_service_is_named(monkeypatch, text, why):
    monkeypatch.setattr(endings, "_BUS", "/nowhere/bus")
    assert explain_output(text).why.startswith(why)


def test_stdbuf_is_not_advised_twice():
    assert "['stdbuf', '-oL', 'tool']" in held_back(["tool"])
    assert "stdbuf', " not in held_back(["/usr/bin/stdbuf", "-oL", "tool"])


GO = "creating perf event: opening tracepoint perf event: permission denied\n"
LIBBPF = "libbpf: tracepoint 'sched/sched_process_exec' perf_event_open() failed: Permission denied\n"
OTHER = "libbpf: no perf_event here\nagent: can't read settings: Permission denied\n"


@pytest.mark.parametrize(("text", "is_told"), [(GO, True), (LIBBPF, True), (OTHER, False)])
def test_debian_wants_more_for_perf_events_whatever_else_is_missing(monkeypatch, text, is_told):
    monkeypatch.setattr(endings, "_paranoid", lambda: 3)
    capabilities = sum(1 << ALL_CAPABILITIES.index(name) for name in ("BPF", "PERFMON"))
    found = explain_refusal(text, capabilities, None)
    assert ("add SYS_ADMIN to caps=, or sysctl" in found.fix) == is_told


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("trace event sched/exce: file does not exist", {"category": "sched", "event": "exce"}),
        (
            "open /sys/kernel/tracing/events/sched/exce/id: no such file or directory",
            {"category": "sched", "event": "exce"},
        ),
        (
            "creating perf_kprobe PMU: symbol '__x64_vfs_redd+0x0' not found: file does not exist",
            {"function": "vfs_redd"},
        ),
        (
            'creating perf_kprobe PMU (arch-specific fallback for "sys_opn"): token __x64_sys_opn: not '
            "found: no such file or directory",
            {"function": "__x64_sys_opn"},
        ),
    ],
)
def test_what_go_could_not_attach_to(monkeypatch, text, target):
    """The texts are those of cilium/ebpf, old and new."""
    monkeypatch.setattr(attach_refusals, "explain_missing", lambda _, given: Explanation(repr(given)))
    assert explain_attach(f"2026/11/30 09:53:36 {text}\n").why == repr(target)


MEMLOCK = "load program: operation not permitted (MEMLOCK may be too low, consider rlimit.RemoveMemlock)\n"


@pytest.mark.parametrize(
    ("caps", "needed", "told"),
    [
        (["BPF"], {"PERFMON": ["trace"]}, "its programs need PERFMON"),
        (["BPF", "PERFMON"], {"PERFMON": ["trace"]}, "counts maps as locked memory"),
        (["SYS_ADMIN"], {"PERFMON": ["trace"]}, "counts maps as locked memory"),
        (["BPF"], {}, "counts maps as locked memory"),
    ],
)
def test_the_limit_of_locked_memory_is_no_missing_capability(monkeypatch, caps, needed, told):
    """Before Linux 5.11: cilium/ebpf names the limit whenever the kernel refuses something."""
    monkeypatch.setattr(explanations, "probe", lambda *_: False)
    monkeypatch.setattr(explanations, "needed_capabilities", lambda _: needed)
    capabilities = sum(1 << ALL_CAPABILITIES.index(name) for name in caps)
    assert told in explain_written(MEMLOCK, None, capabilities, None, []).why


@pytest.mark.parametrize(
    "text",
    [
        "failed to set attach target for do_page_cache_ra: No such process",  # readahead of libbpf-tools
        "ERROR: No BTF found for do_page_cache_ra",  # bpftrace
    ],
)
def test_a_function_without_types_in_the_words_of_tools(monkeypatch, text):
    """They silence libbpf, which tells it, too."""
    monkeypatch.setattr(attach_refusals, "explain_no_types_of", lambda *words: Explanation(" ".join(words)))
    assert explain_attach(f"{text}\n").why == "fentry do_page_cache_ra"


def test_a_bus_that_is_there_is_not_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(endings, "_BUS", str(tmp_path))
    assert explain_output(BUSCTL) is None


@pytest.mark.parametrize(
    ("v4", "v6", "is_explained"),
    [
        (
            "Iface Destination\nlo 0000007F\n",
            f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 1 0 00200200 lo\n",
            True,
        ),
        ("Iface Destination\neth0 00000000\n", "", False),
        ("", f"{'0' * 32} 00 {'0' * 32} 00 fd00 00000400 3 0 3 eth0\n", False),
    ],
)
def test_a_server_that_does_not_answer_is_no_missing_network(monkeypatch, v4, v6, is_explained):
    routes = {"/proc/net/route": v4.splitlines(), "/proc/net/ipv6_route": v6.splitlines()}
    monkeypatch.setattr(endings, "_lines", routes.__getitem__)
    found = explain_output(CURL)
    assert (found is not None) == is_explained
    if found:
        assert "no route to one: Failed to connect to 192.0.2.1 port 80" in found.why


WITHOUT_TRACEFS = [
    "libbpf: failed to determine tracepoint 'a/b' perf event ID: No such file or directory\n",
    "libbpf: failed to add legacy kprobe event for 'inet_listen+0x0': No such file or directory\n",
    "create_probe_event: open(/sys/kernel/tracing/kprobe_events): No such file or directory\n",
]


@pytest.mark.parametrize("text", WITHOUT_TRACEFS)
def test_tracefs_is_not_mounted(monkeypatch, text):
    monkeypatch.setattr(attach_refusals, "tracefs", lambda: None)
    monkeypatch.setattr("pytest_bpfmaps.attach.missing_targets.tracefs", lambda: None)
    monkeypatch.setattr("pytest_bpfmaps.kernel.tracefs._PLACES", ())
    found = explain_attach(text)
    assert "tracefs" in found.why
    assert "pytest --bpf-kernel=6.1" in found.fix


def test_no_bpf_file_system_is_mounted(monkeypatch):
    monkeypatch.setattr(attach_refusals, "_BPFFS", "/nowhere")
    found = explain_attach("Could not find BPF working dir - bpffs not mounted?\n")
    assert found.why == "no bpf file system is mounted at /nowhere"
    assert "mount -t bpf bpf /sys/fs/bpf" in found.fix
    assert explain_attach("all is well\n") is None


def test_a_pattern_is_not_the_name_of_a_function():
    assert "'vfs_writ'" in explain_attach("ERROR: Error attaching probe: 'kprobe:vfs_writ'\n").why
    found = explain_attach("ERROR: Error attaching probe: 'kprobe:vfs_writ*'\n")
    assert found.why == "bpftrace could not attach to the functions of kprobe:vfs_writ*"
    assert "give those a probe of their own" in found.fix


def test_a_program_that_wants_to_be_root():
    text = "This program must be run as root.\n"
    assert "user 'nobody' ran it" in explain_user(text, "nobody").why
    assert explain_user(text, None) is None
    assert explain_user("done\n", "nobody") is None


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("__blk_account_io_start", "function"),
        ("block_unplug_of_another_kernel", "function"),
        ("802154_drv_return_int", "tracepoint"),
    ],
)
def test_a_name_without_a_type_is_what_other_kernels_have_by_it(name, what):
    found = explain_attach(f"libbpf: prog 'p': failed to find kernel BTF type ID of '{name}': -3\n")
    assert f"{what} " in found.why
    assert repr(name) in found.why


def test_a_function_that_only_other_kernels_have_is_not_called_misspelt():
    line = "libbpf: prog 'p': failed to find kernel BTF type ID of '{}': -3\n"
    gone, wrong = (
        explain_attach(line.format("smp_apic_timer_interrupt")),
        explain_attach(line.format("do_unlinkatt")),
    )
    assert gone.fix.startswith(
        "other kernels have that name, so it is not misspelt: use a version of the agent"
    )
    assert "other kernels" not in wrong.fix


@pytest.mark.parametrize(
    "line",
    [
        "libbpf: prog 'count': failed to attach to xdp: Device or resource busy",
        "libbpf: Kernel error message: XDP program already attached",
        "attach: can't create link: device or resource busy",
    ],
)
def test_another_program_is_there(line):
    assert explain_attach(line).why.startswith("another program is attached there already (")
    assert explain_attach(line.replace("busy", "gone").replace("already", "never")) is None


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: Include headers with missing type definitions or install BTF information to your system.",
        "definitions.h:1:10: fatal error: 'linux/blkdev.h' file not found",
    ],
)
@pytest.mark.parametrize("has_headers", [True, False])
def test_a_script_that_includes_headers_of_the_kernel(monkeypatch, line, has_headers):
    monkeypatch.setattr(os.path, "exists", lambda path: has_headers and path.startswith("/lib/modules/"))
    found = explain_output(line)
    if has_headers:
        assert found is None
    else:
        assert found.why == "the script includes headers of the kernel, and there are none for this one"
        assert f"install linux-headers-{os.uname().release} " in found.fix
