"""Tests compiling for a guest: clang runs on the host, wherever the source was written."""

from __future__ import annotations

import pytest
from caches import CACHE

PROGRAM = """
    #include "vmlinux.h"
    #include <bpf/bpf_helpers.h>
    #include <bpf/bpf_core_read.h>
    char LICENSE[] SEC("license") = "GPL";
    struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, __u64);
    } seen SEC(".maps");
    SEC("tracepoint/syscalls/sys_enter_getpgid")
    int on_getpgid(struct trace_event_raw_sys_enter *ctx)
    {
        __u32 key = 0;
        __u64 value = ctx->args[0];
        bpf_map_update_elem(&seen, &key, &value, BPF_ANY);
        return 0;
    }
"""
TESTS = f"""
    import os
    import pytest
    from pytest_bpfmaps.errors import CompileError

    PROGRAM = {PROGRAM!r}

    def check(bpf, loaded):
        with loaded.attach():
            os.getpgid(os.getpid())
        assert loaded.maps.seen[0] == os.getpid()

    def test_host_source(bpf):
        check(bpf, bpf.load("host.bpf.c"))

    def test_guest_source(bpf, tmp_path):
        source = tmp_path / "guest.bpf.c"
        source.write_text(PROGRAM)
        check(bpf, bpf.load(source))

    def test_code(bpf):
        check(bpf, bpf.load(code=PROGRAM))

    def test_error(bpf, tmp_path):
        (tmp_path / "wrong.bpf.c").write_text("int x = nonsense;")
        with pytest.raises(CompileError, match="nonsense"):
            bpf.load(tmp_path / "wrong.bpf.c")

    def test_no_clang_runs_here(bpf, monkeypatch):
        monkeypatch.setenv("PATH", "")
        check(bpf, bpf.load(code=PROGRAM + "// another"))
"""


def test_sources_of_the_host_and_of_the_guest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    (pytester.path / "host.bpf.c").write_text(PROGRAM)
    pytester.makepyfile(test_compile=TESTS)
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1")
    result.assert_outcomes(passed=5)
