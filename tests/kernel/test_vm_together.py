"""Tests two runs at once on one cache, each with workers on the host, a guest, and all kinds of tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from caches import CACHE
from qemus import qemus_for

from pytest_bpfmaps.cache.staging import remove_abandoned
from pytest_bpfmaps.harness import Bpf

MAP = f"met_{os.urandom(4).hex()}"  # a name that no other run on this machine uses

SUITE = r"""
    import os, socket
    import pytest

    SOURCE = '''
    // NEW
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 4);
        __uint(pinning, LIBBPF_PIN_BY_NAME);
        __type(key, __u32);
        __type(value, __u64);
    } NAMED SEC(".maps");

    SEC("xdp") int count(struct xdp_md *ctx)
    {
        __u32 key = NUMBER;
        __u64 *value = bpf_map_lookup_elem(&NAMED, &key);

        if (value)
            __sync_fetch_and_add(value, 1);
        return XDP_PASS;
    }
    char LICENSE[] SEC("license") = "GPL";
    '''

    @pytest.fixture
    def made():
        "Where what must be gone at the end is written down; of guests nothing arrives."
        with open(f"made-{os.getpid()}", "a") as file:
            yield lambda *names: print(*names, sep="\n", file=file, flush=True)

    @pytest.mark.parametrize("number", range(4))
    def test_counts_what_arrives_in_a_namespace(bpf, bpf_netns, made, number):
        counter = bpf.load(code=SOURCE, defines={"NUMBER": number})
        left, right = bpf_netns("left"), bpf_netns("right")
        near, far = left.veth_to(right)
        made(left.path, right.path, bpf.pin_root / "NAMED")
        with right.enter(), counter.programs.count.attach(interface=far.name):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
                server.bind((str(far.addresses[0].ip), 7))
                server.settimeout(300)
                with left.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.sendto(b"x", server.getsockname())
                assert server.recv(10) == b"x"
        counts = list(counter.maps.NAMED.values())
        assert counts[number] >= 1
        assert sum(counts) == counts[number]

    @pytest.mark.parametrize("number", range(4))
    def test_a_pin_is_this_tests_own(bpf, made, number):
        counter = bpf.load(code=SOURCE, defines={"NUMBER": 0})
        pinned = bpf.pinned("NAMED")
        made(bpf.pin_root / "NAMED")
        assert list(pinned.values()) == [0] * 4
        pinned[number] = 5
        assert counter.maps.NAMED[number] == 5

    @pytest.mark.parametrize("number", range(4))
    def test_needs_no_kernel(tmp_path, number):
        assert list(tmp_path.iterdir()) == []
"""


def test_two_runs_with_workers_and_a_guest_each_share_a_cache(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, bpf: Bpf
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    comment = f"// {os.urandom(8).hex()}: in no cache yet"
    folders = [pytester.mkdir(name) for name in ("one", "two")]
    for folder in folders:
        path = pytester.makepyfile(test_together=SUITE.replace("// NEW", comment).replace("NAMED", MAP))
        path.rename(folder / path.name)
    remove_abandoned(CACHE / "warm")
    command = [sys.executable, "-m", "pytest", "-n4", "--bpf-kernel=host,6.1"]
    runs = [
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for folder in folders
    ]
    outputs = [run.communicate(timeout=1500)[0] for run in runs]
    for run, output in zip(runs, outputs, strict=True):
        assert run.returncode == 0, output
        assert "20 passed" in output
    for folder in folders:
        assert qemus_for(folder) == []
        made = [Path(line) for log in folder.glob("made-*") for line in log.read_text().splitlines()]
        assert len(made) == 4 * 3 + 4
        assert [path for path in made if path.exists()] == []
    assert bpf.maps_by_name(MAP) == []
    assert remove_abandoned(CACHE / "warm") == []  # neither has left a staging folder
