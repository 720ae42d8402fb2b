"""Tests options and their keys in the configuration file, and the ways to load the plugin."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from shown_blocks import shows

HEAVY = ("cffi", "pyroute2", "xdist", "execnet", "filelock", "platformdirs", "qemu", "pytest_bpfmaps.libbpf")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ([], {}),
        (["-p", "bpfmaps"], {}),
        (["-p", "bpfmaps"], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        (["-p", "pytest_bpfmaps.plugin"], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
    ],
)
def test_ways_to_load_it(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    pytester.makepyfile("def test_x(request): assert request.config.getini('bpf_vm_cpus') == 2")
    result = pytester.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["bpfmaps: kernels host (*)"])


def test_the_header_says_what_the_machine_lacks(pytester, monkeypatch):
    monkeypatch.setenv("PATH", str(pytester.path))
    monkeypatch.delenv("CLANG", raising=False)
    result = pytester.runpytest_subprocess()
    said = re.sub("lacks clang, .* \\(see", "lacks clang (see", result.stdout.str())  # it may lack more
    shows("doctor.md", "lacks clang", said)
    (pytester.path / "clang-19").touch(mode=0o755)
    result = pytester.runpytest_subprocess()
    result.stdout.no_fnmatch_line("bpfmaps: no clang*")


def test_loading_it_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import sys
        def test_x():
            heavy = {HEAVY!r}
            assert [m for m in sys.modules if m.startswith(heavy)] == []
        """
    )
    command = [sys.executable, "-m", "pytest", "-p", "bpfmaps"]
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": "/usr/bin"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_each_option_has_a_typed_twin(pytester: pytest.Pytester) -> None:
    (pytester.path / "pytest.toml").write_text(
        '[pytest]\nstrict = true\nbpf_vm = "virtme-ng"\nbpf_vm_cpus = 4\nbpf_vm_memory = "2G"\n'
        'bpf_vm_network = true\nbpf_vm_timeout = 7.5\nbpf_clang = "clang-16"\n'
        'bpf_paths = ["src"]\nbpf_kernel = ["host"]\n'
    )
    pytester.makepyfile(
        """
        from pytest_bpfmaps.matrix.items import option
        def test_x(request):
            config = request.config
            names = ("vm", "vm_cpus", "vm_memory", "vm_timeout", "vm_network", "clang", "kernel")
            values = [option(config, f"bpf_{name}") for name in names]
            assert values == ["virtme-ng", 4, "2G", 7.5, True, "clang-16", ["host"]]
            assert config.getini("bpf_paths") == [config.rootpath / "src"]
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--bpf-vm=cold", "*argument --bpf-vm: invalid choice: 'cold' (choose from *warm*virtme-ng*)"),
        ("--bpf-vm-cpus=many", "*argument --bpf-vm-cpus: invalid int value: 'many'"),
        ("--bpf-vm-timeout=long", "*argument --bpf-vm-timeout: invalid float value: 'long'"),
    ],
)
def test_bad_values(pytester: pytest.Pytester, argument: str, message: str) -> None:
    result = pytester.runpytest_subprocess(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_the_markers_are_registered(pytester: pytest.Pytester) -> None:
    pytester.runpytest_subprocess("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.bpf_kernels(*names):*", "@pytest.mark.bpf_requires(*features):*"], consecutive=False
    )
