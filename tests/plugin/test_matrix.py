"""Tests what --bpf-kernel makes of a suite, where that needs no guest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_bpfmaps.vm.kernels.kernel_tree import FORMAT


@pytest.fixture(autouse=True)
def catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Makes a catalogue with 5.10, 6.1 and 6.12. None of them could boot."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("BPFMAPS_CACHE", str(cache))
    for name in ("5.10", "6.1", "6.12"):
        folder = cache / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "bzImage").write_bytes(b"")
        facts = {"release": f"{name}.0-7-amd64", "image": "bzImage", "source": "here", "arch": "x86_64"}
        (folder / "kernel.json").write_text(
            json.dumps({**facts, "format": FORMAT, "size": 0, "packages": []})
        )
    return cache


@pytest.fixture(autouse=True)
def suite(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def bpf_kernel():
            return None

        @pytest.fixture
        def through(bpf_kernel):
            return None
        """
    )
    pytester.makepyfile(
        test_suite="""
        import pytest

        def test_direct(bpf_kernel): pass
        def test_indirect(through): pass
        def test_plain(tmp_path): pass

        @pytest.mark.parametrize("number", [1, 2])
        def test_parameters(bpf_kernel, number): pass

        @pytest.mark.bpf_kernels("6.*", "host")
        def test_new(bpf_kernel): pass

        @pytest.mark.bpf_kernels("7.*")
        def test_newest(bpf_kernel): pass
        """
    )


def collected(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    result = pytester.runpytest_subprocess("--collect-only", "-q", *arguments)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str() + result.stderr.str()
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_without_a_choice_names_stay_plain(pytester: pytest.Pytester) -> None:
    assert collected(pytester) == [
        "test_direct",
        "test_indirect",
        "test_plain",
        "test_parameters[1]",
        "test_parameters[2]",
        "test_new",
        "test_newest",
    ]


def test_the_host_by_name(pytester: pytest.Pytester) -> None:
    names = collected(pytester, "--bpf-kernel=host")
    assert names[:4] == [
        "test_direct[host]",
        "test_indirect[host]",
        "test_parameters[1-host]",
        "test_parameters[2-host]",
    ]
    assert {"test_plain", "test_new[host]", "test_newest"} <= set(names)
    result = pytester.runpytest_subprocess("--bpf-kernel=host", "-rs")
    result.assert_outcomes(passed=6, skipped=1)
    result.stdout.fnmatch_lines(["*for kernels 7.[*], and this run is for host*"])


def test_each_bpf_test_is_multiplied_in_the_order_of_kernels(pytester: pytest.Pytester) -> None:
    names = collected(pytester, "--bpf-kernel=6.1,host")
    assert [n for n in names if n.startswith("test_direct")] == ["test_direct[6.1]", "test_direct[host]"]
    assert names.count("test_plain") == 1
    assert "test_parameters[2-6.1]" in names
    kernels = [
        n.rstrip("]").replace("-", "[").rpartition("[")[2] for n in names if n.endswith(("6.1]", "host]"))
    ]
    assert kernels == sorted(kernels), "each kernel's tests are together"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (["--bpf-kernel=6.*"], ["6.1", "6.12"]),
        (["--bpf-kernel=all"], ["5.10", "6.1", "6.12"]),
        (["--bpf-kernel=5.10", "--bpf-kernel=host"], ["5.10", "host"]),
        (["-o", "bpf_kernel=6.12 host"], ["6.12", "host"]),
    ],
)
def test_choices(pytester: pytest.Pytester, choice: list[str], expected: list[str]) -> None:
    names = collected(pytester, *choice, "-k", "test_direct")
    assert sorted(names) == sorted(f"test_direct[{kernel}]" for kernel in expected)


def test_the_marker_restricts_the_matrix(pytester: pytest.Pytester) -> None:
    names = collected(pytester, "--bpf-kernel=all,host", "-k", "test_new")
    assert sorted(names) == ["test_new[6.12]", "test_new[6.1]", "test_new[host]", "test_newest"]


def test_the_command_line_wins_over_the_file(pytester: pytest.Pytester) -> None:
    (pytester.path / "pytest.toml").write_text('[pytest]\nbpf_kernel = ["5.10", "6.1"]\n')
    assert len(collected(pytester, "-k", "test_direct")) == 2
    assert collected(pytester, "-k", "test_direct", "--bpf-kernel=host") == ["test_direct[host]"]


def test_the_header_names_the_kernels(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--collect-only", "--bpf-kernel=host,6.1")
    result.stdout.fnmatch_lines([f"bpfmaps: kernels host ({os.uname().release}), 6.1 (6.1.0-7-amd64)"])


def test_an_unknown_kernel_is_a_usage_error_that_names_those_known(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--bpf-kernel=6.2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: no kernel '6.2': the catalogue has 5.10, 6.1, 6.12", "*kernels fetch*"]
    )


def test_a_file_that_is_no_kernel_is_a_usage_error(pytester: pytest.Pytester) -> None:
    text = pytester.maketxtfile("I am no kernel")
    result = pytester.runpytest_subprocess(f"--bpf-kernel={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: not a kernel image: *: it is a text file"])


def test_guests_need_xdist(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "-p", "no:xdist")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: guests are pytest-xdist workers, and pytest-xdist is switched off"])


def test_guests_without_xdist_installed_say_what_to_install(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.mkpydir("shadow")
    (pytester.path / "shadow" / "xdist.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path / "shadow"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "-p", "bpfmaps")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*pytest-xdist is not installed", "*pip install 'pytest-bpfmaps[[]vm]'*"])


@pytest.mark.parametrize("look", ["--fixtures", "--markers", "--version", "--help"])
def test_only_looking_starts_nothing(pytester: pytest.Pytester, look: str) -> None:
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", look)
    assert result.ret == pytest.ExitCode.OK
    assert "bringing up nodes" not in result.stdout.str()


def test_several_host_workers_share_the_hosts_tests(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--bpf-kernel=host", "-n", "2")
    result.assert_outcomes(passed=6, skipped=1)


def test_the_host_can_be_used_without_xdist(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--bpf-kernel=host", "-p", "no:xdist")
    result.assert_outcomes(passed=6, skipped=1)
