"""Tests where BPF tests run when nobody chose: here, in a guest, or nowhere, by what this user may do."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can give up capabilities"
)

SUITE = """
    HEAD = '''
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    char LICENSE[] SEC("license") = "GPL";
    '''
    XDP = HEAD + 'SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }'
    FILTER = HEAD + '''
    struct {
        __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, long);
    } runs SEC(".maps");
    SEC("socket") int count(struct __sk_buff *skb)
    {
        long *n = bpf_map_lookup_elem(&runs, &(int){0});
        if (n)
            __sync_fetch_and_add(n, 1);
        return 0;
    }'''

    def test_xdp(bpf):
        assert bpf.load(code=XDP).programs["pass"].run(bytes(64)).retval == 2

    def test_socket_filter(bpf):
        obj = bpf.load(code=FILTER)
        obj.programs.count.run(bytes(64), repeat=3)
        assert obj.maps.runs[0] == 3

    def test_plain():
        pass
"""


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes a cache whose catalogue is empty."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))


def run_with(pytester: pytest.Pytester, capabilities: str, *arguments: str) -> pytest.RunResult:
    """Runs pytest with the capabilities ``bpf,net_admin`` only; with none for the empty string."""
    bounds = ",".join(["-all", *(f"+{name}" for name in capabilities.split(",") if name)])
    command = ["setpriv", "--bounding-set", bounds, sys.executable, "-m", "pytest", "-ra", *arguments]
    return pytester.run(*command)


def test_the_capabilities_that_suffice_are_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    run_with(pytester, "bpf,net_admin").assert_outcomes(passed=3)


def test_what_a_capability_is_missing_for_is_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = run_with(pytester, "bpf")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*LoadError: cannot load *program 'pass' (xdp): EPERM*",
            "E*run as root or with CAP_BPF and CAP_NET_ADMIN*",
        ]
    )


def test_without_privileges_and_kernels_the_skip_has_both_reasons(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = run_with(pytester, "")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "SKIPPED [[]2] *.py: BPF programs can't be loaded here: uid 0 has no CAP_BPF; nor in a guest: "
            "no kernel for a guest: the catalogue is empty -> bpfmaps kernels fetch debian:bookworm"
        ]
    )


def test_a_run_without_bpf_tests_looks_for_no_guest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain(): pass")
    result = run_with(pytester, "", "-p", "no:xdist")
    result.assert_outcomes(passed=1)
    assert "can't be loaded" not in result.stdout.str()


def test_a_probe_does_not_hide_why_nothing_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.bpf_requires("ringbuf")
        def test_it(bpf): pass
        """
    )
    result = run_with(pytester, "", "--bpf-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["no BPF test ran: 1 test collected", "SKIPPED * uid 0 has no CAP_BPF;*"])


@pytest.mark.parametrize("choice", ["--bpf-kernel=host", "--bpf-kernel=auto"])
def test_naming_the_host_is_not_leaving_the_choice(pytester: pytest.Pytester, choice: str) -> None:
    pytester.makepyfile(SUITE)
    outcome = {"skipped": 2} if choice.endswith("auto") else {"failed": 2}
    run_with(pytester, "", choice).assert_outcomes(passed=1, **outcome)


def test_several_workers_skip_for_the_same_reasons(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = run_with(pytester, "", "-n2")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED *uid 0 has no CAP_BPF; *is empty*"])


def test_auto_stands_alone(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--bpf-kernel=auto,host")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: cannot choose kernel 'auto' among others: *", "*--bpf-kernel=host,*"]
    )
