"""Tests what is known at collection of kernels that are not booted. No kernel is booted here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.kernel.privileges import host_refusal
from pytest_bpfmaps.vm.kernels.kernel_tree import FORMAT

SUITE = """
    import pytest

    @pytest.mark.bpf_requires(config="BPF_LSM")
    def test_old_lacks_it(bpf): pass

    @pytest.mark.bpf_requires("CONFIG_NO_SUCH_OPTION", clang="__clang_major__")
    @pytest.mark.parametrize("x", [1, 2])
    def test_nobody_has_it(bpf, x): pass

    @pytest.mark.bpf_requires("no such feature")
    def test_wrong(bpf): pass

    def test_any(bpf): pass
    def test_plain(): pass
"""

NEEDS_TYPES = """
    import pytest

    @pytest.mark.bpf_requires("ringbuf")
    def test_it(bpf): pass
"""


@pytest.fixture(autouse=True)
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes two kernels that have a configuration, and nothing that could boot."""
    root = tmp_path / "cache/kernels"
    for name, config in {"5.10": "CONFIG_BPF=y\n", "6.1": "CONFIG_BPF=y\nCONFIG_BPF_LSM=y\n"}.items():
        boot = root / name / "boot"
        boot.mkdir(parents=True)
        release = f"{name}.9-test"
        (boot / f"config-{release}").write_text(config)
        facts = {"format": FORMAT, "release": release, "image": f"boot/vmlinuz-{release}", "arch": "x86_64"}
        facts |= {"source": "test", "packages": [], "size": 0}
        (root / name / "kernel.json").write_text(json.dumps(facts))
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return root


def test_what_kernels_lack(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--collect-only", "--bpf-kernel=all")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*= BPF features missing =*",
            "lacks CONFIG_NO_SUCH_OPTION: 4 tests (5.10, 6.1)",
            "lacks CONFIG_BPF_LSM: 1 test (5.10)",
            "test_what_kernels_lack.py::test_nobody_has_it[[]1]: no chosen kernel can run it: "
            "5.10.9-test lacks CONFIG_NO_SUCH_OPTION: it is not set; 6.1.9-test lacks CONFIG_NO_SUCH_*",
            "*::test_nobody_has_it[[]2]: no chosen kernel can run it: *",
        ]
    )
    for test in ("test_old", "test_any", "test_wrong"):
        result.stdout.no_fnmatch_line(f"*{test}*no chosen kernel*")


@pytest.mark.parametrize(
    "options", [("--bpf-kernel=6.1", "-k", "old or any"), ("-q", "--bpf-kernel=all"), ()]
)
def test_nothing_is_said_when_nothing_is_missing_or_known(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--collect-only", *options)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*BPF features missing*")


def test_the_host_may_run_what_guests_can_not(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--collect-only", "--bpf-kernel=host,5.10")
    result.stdout.fnmatch_lines(["lacks CONFIG_NO_SUCH_OPTION: 2 tests (5.10)"])
    result.stdout.no_fnmatch_line("*no chosen kernel*")


def test_damaged_types_are_told(pytester: pytest.Pytester, catalogue: Path) -> None:
    (catalogue / "6.1/btf").write_bytes(b"no BTF")
    pytester.makepyfile(NEEDS_TYPES)
    result = pytester.runpytest_subprocess("--collect-only", "--bpf-kernel=6.1")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["cannot read the types of kernel */6.1/btf: *", "*-> fetch or add*"])


@pytest.mark.skipif(bool(host_refusal()), reason="needs the capabilities that it drops")
def test_damaged_types_decide_nothing(pytester: pytest.Pytester, catalogue: Path) -> None:
    (catalogue / "6.1/btf").write_bytes(b"no BTF")
    pytester.makepyfile(NEEDS_TYPES)
    command = ["setpriv", "--bounding-set", "-all", sys.executable, "-m", "pytest", "-ra", "-p", "no:xdist"]
    result = pytester.run(*command)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED *nor in a guest: guests are pytest-xdist workers*"])


@pytest.mark.skipif(bool(host_refusal()), reason="needs the capabilities that it drops")
def test_no_guest_is_started_when_it_could_run_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    command = [
        "setpriv",
        "--bounding-set",
        "-all",
        sys.executable,
        "-m",
        "pytest",
        "-ra",
        "-k",
        "nobody or plain",
    ]
    result = pytester.run(*command)
    result.assert_outcomes(passed=1, skipped=2, deselected=3)
    result.stdout.fnmatch_lines(
        [
            "lacks CONFIG_NO_SUCH_OPTION: 2 tests (6.1)",
            "SKIPPED [[]2] *: 6.1.9-test lacks CONFIG_NO_SUCH_OPTION: it is not set",
        ]
    )
