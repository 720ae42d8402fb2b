"""Tests tools as the distribution ships them: bpftrace, libbpf-tools, xdp-tools."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess

import pytest
from installed import installed

from pytest_bpfmaps import LoaderError, MapTypeError, UnsupportedError
from pytest_bpfmaps.libbpf import ffi, lib

EXEC = "tracepoint/sched/sched_process_exec"


def replaced_function(link):
    """Returns what the kernel says of a link of an freplace program, with names from bpftool."""
    fd = lib.bpf_link_get_fd_by_id(link)
    info = ffi.new("char[256]")  # type, id, program, nothing, attach type, target's program, target's type
    assert lib.bpf_obj_get_info_by_fd(fd, info, ffi.new("uint32_t *", 256)) == 0
    os.close(fd)
    *_, target, type_id = struct.unpack("7I", bytes(ffi.buffer(info, 28)))
    if not target:  # before Linux 5.13
        return "freplace/ (the kernel does not tell which function)"
    types = run(installed("bpftool"), "btf", "dump", "prog", "id", str(target))
    function = re.search(rf"^\[{type_id}\] FUNC '(\w+)'", types, re.MULTILINE)[1]
    program = json.loads(run(installed("bpftool"), "-j", "prog", "show", "id", str(target)))
    return f"freplace/{function} of {program['name']}"


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.mark.bpf_requires(EXEC)
class TestBpftrace:
    PROGRAM = "tracepoint:sched:sched_process_exec { @count[comm] = count(); @last[(uint64)pid] = nsecs; }"

    def test_a_script(self, bpf):
        agent = bpf.start([installed("bpftrace", "bpftrace"), "-e", self.PROGRAM])
        link = agent.wait_until_attached(EXEC, timeout=30)
        assert link.program in [each.name for each in agent.programs]
        done = subprocess.Popen(["/bin/true"])
        done.wait()
        count = bpf.typed(agent.maps["@count"], key="char[16]", value="u64")
        assert sum(count["true"]) == 1
        assert done.pid in bpf.typed(agent.maps["@last"], key="u64", value="u64")
        with pytest.raises(MapTypeError, match=r"'u32' has 4 bytes, but a value of the map has 8"):
            bpf.typed(agent.maps["@count"], value="u32")
        assert next(iter(agent.programs)).run_count >= 1
        agent.terminate()
        with contextlib.suppress(LoaderError):
            agent.wait(5)
        agent.terminate()  # bpftrace 0.17 loses a signal that comes between two calls of epoll_wait
        assert agent.wait(60) == 0
        assert "@count[true]: 1" in agent.stdout  # what bpftrace itself says
        bpf.nothing_left(agent, timeout=5)


def libbpf_tool(name):
    return installed(name, "libbpf-tools", f"{name}-libbpf")  # its name in Debian from 2026 on


@pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_execve")
class TestLibbpfTools:
    def test_execsnoop(self, bpf):
        agent = bpf.start(["stdbuf", "-oL", libbpf_tool("execsnoop")])
        name = "tracepoint__syscalls__sys_enter_execve"
        assert agent.wait_until_attached(name, timeout=60).target == "tracepoint/syscalls/sys_enter_execve"
        agent.wait_until_attached(name.replace("enter", "exit"), timeout=60)
        assert len(agent.links) == 2
        subprocess.run(["/bin/true"], check=True)
        agent.wait_for_output("/bin/true")
        assert agent.programs[name].run_count >= 1
        assert agent.maps.execs.value_size > 7000
        with pytest.raises(UnsupportedError, match="can't be read beside its reader"):
            agent.maps.events.capture("event")
        agent.kill()
        bpf.nothing_left(agent, timeout=5)

    def test_opensnoop(self, bpf):
        agent = bpf.start(["stdbuf", "-oL", libbpf_tool("opensnoop")])
        agent.wait_until_attached("tracepoint__syscalls__sys_exit_openat", timeout=60)
        os.close(os.open("/dev/null", os.O_RDONLY))
        agent.wait_for_output("/dev/null")
        agent.terminate()
        agent.wait(60)
        bpf.nothing_left(agent, timeout=5)


class TestXdpTools:
    def test_what_a_filter_leaves(self, bpf, bpf_netns):
        """xdp-filter attaches, pins, and ends."""
        left = bpf_netns().veth_to(bpf_netns())[0]
        command = installed("xdp-filter", "xdp-tools")
        agent = bpf.start([command, "load", "-m", "skb", left.name], netns=left.netns)
        if agent.wait(30) != 0:
            pytest.skip(f"this kernel does not take xdp-filter's programs: {agent.stderr.splitlines()[-1:]}")
        assert left.name in [each.target for each in agent.links if each.type == "xdp"]
        for each in agent.links:  # where the kernel has freplace, the filter is put into a dispatcher
            assert each.type == "xdp" or (each.target, each.attach_type) == (replaced_function(each.id), None)
        with pytest.raises(AssertionError, match=f"left something behind.*(?s:.*) at {left.name} \\(xdp\\)"):
            bpf.nothing_left(agent, timeout=0.1)
        with left.netns.enter():
            subprocess.run([command, "unload", left.name], check=True)
        with contextlib.suppress(OSError):
            os.rmdir("/sys/fs/bpf/xdp")  # the tool leaves its folder
