"""One test for the same agent in five languages, on every kernel: pytest examples --bpf-kernel=all."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
AGENTS = {  # language: command, names of the maps
    "c": ([HERE / "build/agent-c"], "exec_count", "events"),
    "go": ([HERE / "build/agent-go"], "exec_count", "events"),
    "rust": ([HERE / "build/agent-rust"], "exec_count", "events"),
    "python": ([HERE / "python/exec_count.py"], "exec_count", "events"),
    "bpftrace": (["bpftrace", HERE / "bpftrace/exec_count.bt"], "@exec_count", None),
}
EXEC = "tracepoint/sched/sched_process_exec"


def skip_what_can_not_run(language: str) -> None:
    release = os.uname().release
    headers = [Path(f"/lib/modules/{release}/build"), Path("/sys/kernel/kheaders.tar.xz")]
    if language == "python" and not any(path.exists() for path in headers):
        pytest.skip(f"bcc needs the headers of the kernel: apt-get install linux-headers-{release}")
    if language == "c" and not AGENTS["c"][0][0].exists():
        pytest.skip("agent-c is missing: apt-get install bpftool, or on Ubuntu linux-tools-generic")
    if language == "go" and not AGENTS["go"][0][0].exists():
        pytest.skip("agent-go is missing: apt-get install golang-go golang-github-cilium-ebpf-dev")
    if language == "rust" and not AGENTS["rust"][0][0].exists():
        pytest.skip("agent-rust is missing: Debian 13 and later have its packages, cargo and librust-aya-dev")
    if language == "bpftrace" and shutil.which("bpftrace") is None:
        pytest.skip("bpftrace is missing: apt-get install bpftrace")


@pytest.fixture
def unique(tmp_path):
    """A program with a name that no other process of this machine has."""
    made = tmp_path / f"run{os.getpid()}"
    shutil.copy("/bin/true", made)
    return made


@pytest.mark.bpf_requires(EXEC, "ringbuf")
@pytest.mark.parametrize("language", AGENTS)
def test_exec_count(bpf, language, unique):
    skip_what_can_not_run(language)
    command, counts, events = AGENTS[language]
    agent = bpf.start(command)
    # aya closes the perf event, and before Linux 6.6 nothing else tells where a program is attached
    link = agent.wait_until_attached("trace_exec" if language == "rust" else EXEC, timeout=30)

    if events is None:  # bpftrace sends its text through a perf buffer, which has one reader
        child = subprocess.Popen([unique])
        child.wait()
    elif language == "python":  # bcc gives the kernel no type of the records
        with agent.maps[events].capture(bytes) as seen:
            child = subprocess.Popen([unique])
            child.wait()
            record = struct.pack("I16s", child.pid, unique.name.encode())
            bpf.wait_until(lambda: record in seen, timeout=5)
    else:
        with agent.maps[events].capture("event") as seen:
            child = subprocess.Popen([unique])
            child.wait()
            seen.expect(pid=child.pid, comm=unique.name, count=1)
    agent.wait_for_output(f"{child.pid} {unique.name}", timeout=30)  # it read the event, too

    exec_count = agent.maps[counts]
    if language == "bpftrace":  # it gives the kernel no types
        assert bpf.typed(exec_count, key="char[16]", value="u64").sum()[unique.name] == 1
    else:
        key = {"comm": unique.name} if language == "python" else unique.name
        assert exec_count[key] == 1
    assert agent.programs[link.program_id].run_count >= 1

    agent.terminate()
    assert agent.wait(30) == 0
    bpf.nothing_left(agent, timeout=5)
