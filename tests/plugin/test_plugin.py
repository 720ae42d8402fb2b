"""Tests the plugin from outside: whether it is loaded, what it costs, how failures look."""

import subprocess
import sys

import pytest

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
PASS = HEAD + 'SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }\n'
HEAVY = (
    "cffi",
    "_cffi_backend",
    "pyroute2",
    "scapy",
    "numpy",
    "elftools",
    "xdist",
    "execnet",
    "filelock",
    "platformdirs",
)


def test_it_is_found_by_its_entry_point_and_by_name(pytester):
    pytester.makepyfile("def test_it(bpf): assert bpf")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    pytester.runpytest_subprocess("-p", "bpfmaps").assert_outcomes(passed=1)


def test_it_can_be_switched_off(pytester):
    pytester.makepyfile("def test_it(bpf): assert bpf")
    result = pytester.runpytest_subprocess("-p", "no:bpfmaps")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'bpf' not found*"])


def test_it_works_without_autoloading(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("def test_it(bpf): assert bpf")
    pytester.runpytest_subprocess("-p", "pytest_bpfmaps.plugin").assert_outcomes(passed=1)


def test_a_suite_that_never_uses_it_imports_nothing_heavy(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins may import anything
    pytester.makepyfile(
        f"""
        import sys

        def test_it():
            assert not set({HEAVY!r}) & set(sys.modules)
            ours = [m for m in sys.modules if m.startswith("pytest_bpfmaps")]
            assert len(ours) < 15, ours
        """
    )
    pytester.runpytest_subprocess("-p", "pytest_bpfmaps.plugin").assert_outcomes(passed=1)


def test_markers_and_options_are_known(pytester):
    result = pytester.runpytest("--markers")
    result.stdout.fnmatch_lines(["*bpf_kernels*", "*bpf_requires*"])
    result = pytester.runpytest("--help")
    result.stdout.fnmatch_lines(["*--bpf-kernel*", "*--bpf-clang*", "*bpf_paths*"])


def test_strict_mode_and_warnings_as_errors_are_fine(pytester):
    pytester.makefile(".toml", pytest='[pytest]\nstrict = true\nfilterwarnings = ["error"]\n')
    pytester.makefile(".bpf.c", prog=PASS)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.bpf_requires("xdp")
        def test_it(bpf):
            assert bpf.load("prog.bpf.c").programs["pass"].run(bytes(64)).retval == 2
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_sources_are_looked_up_beside_the_test_then_in_bpf_paths(pytester):
    pytester.makefile(".toml", pytest='[pytest]\nbpf_paths = ["progs"]\n')
    (pytester.path / "progs").mkdir()
    (pytester.path / "progs" / "there.bpf.c").write_text(PASS)
    (pytester.path / "progs" / "both.bpf.c").write_text("#error the wrong one")
    (pytester.path / "both.bpf.c").write_text(PASS)
    pytester.makepyfile(
        """
        def test_it(bpf):
            bpf.load("there.bpf.c")
            bpf.load("both.bpf.c")

        def test_session(bpf_session):
            bpf_session.load("there.bpf.c")
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_the_default_folder_is_bpf(pytester):
    (pytester.path / "bpf").mkdir()
    (pytester.path / "bpf" / "prog.bpf.c").write_text(PASS)
    pytester.makepyfile("def test_it(bpf): bpf.load('prog.bpf.c')")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_compile_error_shows_clangs_diagnostics_and_the_users_line(pytester):
    pytester.makefile(".bpf.c", prog=HEAD + "int f(void) { return nothing; }\n")
    pytester.makepyfile("def test_it(bpf):\n    bpf.load('prog.bpf.c')\n")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*bpf.load('prog.bpf.c')",
            "E*CompileError: cannot compile *prog.bpf.c*",
            "E*prog.bpf.c:*: error: use of undeclared identifier 'nothing'",
            "E*return nothing;*",
        ]
    )
    result.stdout.no_fnmatch_line("*harness.py*")
    result.stdout.no_fnmatch_line("*compiler/*.py*")


def test_a_verifier_log_is_a_section_of_the_report(pytester):
    pytester.makefile(
        ".bpf.c", prog=HEAD + 'SEC("xdp") int f(struct xdp_md *c) { return *(int *)(long)c->data; }\n'
    )
    pytester.makepyfile("def test_it(bpf):\n    bpf.load('prog.bpf.c')\n")
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(
        [
            "E*VerifierError: the verifier rejected program 'f' of prog.bpf.c*",
            "*BPF verifier log*",
            "*invalid access to packet*",
            "processed * insns*",
        ]
    )
    result.stdout.no_fnmatch_line("*objects.py*")


def test_no_clang_says_what_to_install(pytester):
    pytester.makefile(".bpf.c", prog=PASS)
    pytester.makepyfile("def test_it(bpf):\n    bpf.load('prog.bpf.c')\n")
    result = pytester.runpytest_subprocess("--bpf-clang=clang-that-is-not-there")
    result.stdout.fnmatch_lines(["E*CompileError:*clang-that-is-not-there*", "E*->*"])


def test_no_libbpf_says_what_to_install_and_other_tests_run(pytester, monkeypatch):
    monkeypatch.setenv("BPFMAPS_LIBBPF", "/nonexistent/libbpf.so.1")
    pytester.makefile(".bpf.c", prog=PASS)
    pytester.makepyfile("def test_it(bpf):\n    bpf.load('prog.bpf.c')\ndef test_pure(): pass\n")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "E*UnsupportedError: cannot open libbpf /nonexistent/libbpf.so.1: cannot open*",
            "E*apt-get install libbpf1*",
        ]
    )


def test_the_configuration_names_the_clang(pytester):
    pytester.makefile(".toml", pytest='[pytest]\nbpf_clang = "clang-in-the-configuration"\n')
    pytester.makefile(".bpf.c", prog=PASS)
    pytester.makepyfile("def test_it(bpf):\n    bpf.load('prog.bpf.c')\n")
    pytester.runpytest_subprocess().stdout.fnmatch_lines(["E*clang-in-the-configuration*"])


def test_everything_is_taken_down_after_a_failing_test(pytester):
    pytester.makefile(".bpf.c", prog=PASS)
    pytester.makepyfile(
        """
        from pytest_bpfmaps.libbpf import lib

        ids = []

        def test_fails(bpf):
            ids.append(bpf.load("prog.bpf.c").programs["pass"].id)
            assert False

        def test_nothing_is_left():
            assert lib.bpf_prog_get_fd_by_id(ids[0]) == -2
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1, failed=1)


def test_parallel_workers_share_one_cache(pytester):
    pytester.makefile(".bpf.c", prog=PASS)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("n", range(16))
        def test_it(bpf, n):
            assert bpf.load("prog.bpf.c", defines={"N": n % 2}).programs["pass"].run(bytes(64)).retval == 2
        """
    )
    pytester.runpytest_subprocess("-n", "4").assert_outcomes(passed=16)


@pytest.mark.skipif("os.geteuid() != 0", reason="only root can become somebody else")
def test_without_privilege_the_message_says_what_is_missing(pytester):
    program = """
import os, sys
from pathlib import Path
from pytest_bpfmaps import LoadError
from pytest_bpfmaps.objects import OpenedObject
opened = OpenedObject(Path(sys.argv[1]))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    opened.load()
except LoadError as e:
    print(e)
    sys.exit(0 if e.errno == 1 else 2)
"""
    source = pytester.makefile(".bpf.c", prog=PASS)
    from pytest_bpfmaps.compiler import CompileRequest
    from pytest_bpfmaps.compiler.local_compiler import LocalCompiler

    path = LocalCompiler().compile(CompileRequest(source=str(source)))
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EPERM" in done.stdout
    assert "run as root or with CAP_BPF" in done.stdout
    assert "--bpf-kernel=6.1" in done.stdout


def test_without_autoload_and_with_warnings_as_errors(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("def test_x(bpf_kernel): assert bpf_kernel.release")
    pytester.runpytest_subprocess("-p", "bpfmaps", "-W", "error").assert_outcomes(passed=1)


def test_a_part_can_be_left_out(pytester):
    """Leaves out a part by its name, as of any plugin."""
    pytester.makepyfile("def test_x(bpf_kernel): pass")
    result = pytester.runpytest_subprocess(
        "-p", "no:pytest_bpfmaps.report.kernel_table", "--bpf-summary=out.json"
    )
    result.stderr.fnmatch_lines(["*unrecognized arguments: --bpf-summary=out.json"])
