"""Tests which guests start, and what each runs: no more than the selection needs, and nothing is lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from caches import CACHE
from qemus import qemus_for

from pytest_bpfmaps.vm.kernels.kernel_tree import FORMAT

CONFTEST = """
    import os, pytest

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release
"""


PART = """
    def pytest_collection_modifyitems(config, items):
        config.hook.pytest_deselected(items=items[:3])
        del items[:3]
"""

SLOW_END = """
    import os, signal, threading

    @pytest.hookimpl(tryfirst=True)
    def pytest_testnodedown(node):
        gateway = node.gateway._io.popen.pid
        os.kill(gateway, signal.SIGSTOP)
        threading.Timer(5.0, os.kill, (gateway, signal.SIGCONT)).start()
"""


@pytest.fixture(autouse=True)
def _cache(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes a cache with the real 6.1 and its saved states, and with a 5.10 that can't boot."""
    cache = tmp_path / "cache"
    broken = cache / "kernels" / "5.10"
    broken.mkdir(parents=True)
    (cache / "kernels" / "6.1").symlink_to((CACHE / "kernels" / "6.1").resolve())
    (CACHE / "warm").mkdir(exist_ok=True)
    (cache / "warm").symlink_to(CACHE / "warm")
    (broken / "bzImage").write_bytes(b"no kernel")
    facts = {"release": "5.10.0-7-amd64", "image": "bzImage", "source": "here", "arch": "x86_64"}
    (broken / "kernel.json").write_text(json.dumps({**facts, "format": FORMAT, "size": 0, "packages": []}))
    if (CACHE / "kvm.json").exists():
        (cache / "kvm.json").write_bytes((CACHE / "kvm.json").read_bytes())
    monkeypatch.setenv("BPFMAPS_CACHE", str(cache))
    pytester.makeconftest(CONFTEST)


@pytest.mark.parametrize(
    "selection", ["test_x.py::test_one[6.1]", "-ktest_one", "--deselect=test_x.py::test_two"]
)
def test_a_kernel_without_selected_tests_is_not_started(pytester: pytest.Pytester, selection: str) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.bpf_kernels("6.1")
        def test_one(bpf_kernel): assert bpf_kernel.startswith("6.1.0")

        @pytest.mark.bpf_kernels("5.10")
        def test_two(bpf_kernel): pass
        """
    )
    outcomes = pytester.runpytest_subprocess("--bpf-kernel=all", selection).parseoutcomes()
    assert {name: n for name, n in outcomes.items() if name != "deselected"} == {"passed": 1}


def test_tests_that_a_kernel_is_known_not_to_run_start_no_guest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.bpf_requires(config="CONFIG_NO_SUCH_THING")
        def test_lacks(bpf_kernel): pass

        def test_plain(): pass
        """
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*lacks *CONFIG_NO_SUCH_THING: 1 test (6.1)*"])
    assert "bringing up nodes" not in result.stdout.str()


def test_a_test_with_a_kernel_of_its_own_sees_nothing_of_others(pytester: pytest.Pytester) -> None:
    """Its guest starts when the guest before it is gone, however long that takes."""
    pytester.makeconftest(CONFTEST + SLOW_END)
    pytester.makepyfile(
        """
        import os, pytest

        def leave_a_trace():
            print("ran in", os.environ["PYTEST_XDIST_WORKER"])
            assert not os.path.exists("/run/trace")
            open("/run/trace", "w").close()

        def test_shared(bpf_kernel): leave_a_trace()

        @pytest.mark.bpf_fresh_kernel
        @pytest.mark.parametrize("n", [1, 2])
        def test_alone(bpf_kernel, n): leave_a_trace()

        def test_shared_too(bpf_kernel): assert os.path.exists("/run/trace")
        """
    )
    most = 0
    command = [
        sys.executable,
        "-m",
        "pytest",
        *("--bpf-kernel=host,6.1", "--bpf-vm-jobs=1", "-rP", "-k", "6.1 or alone"),
    ]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.02):
            most = max(most, len(qemus_for(pytester.path)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = run.communicate(timeout=1500)
    ended.set()
    watcher.join()
    assert "4 passed, 2 skipped, 2 deselected" in output
    assert "lacks a fresh kernel: 2 tests (host)" in output
    assert re.findall(r"^ran in (.*)$", output, re.MULTILINE) == ["6.1", "6.1-fresh1", "6.1-fresh2"]
    assert most == 1


def test_the_first_failure_starts_no_more_guests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_fails(bpf_kernel): assert not bpf_kernel

        @pytest.mark.bpf_fresh_kernel
        def test_alone(bpf_kernel): pass
        """
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "--bpf-vm-jobs=1", "-x")
    result.assert_outcomes(failed=1)
    assert "fresh1" not in result.stdout.str()


def test_what_only_one_side_collects_is_not_lost(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_unequal="""
        import os, pytest

        guest = os.uname().release.startswith("6.1.0-")
        if not guest:
            def test_on_the_host_only(bpf_kernel): pass
        if guest:
            def test_in_the_guest_only(bpf_kernel): pass

        def test_everywhere(bpf_kernel): pass
        """,
        test_skipped="""
        import os, pytest

        if not os.uname().release.startswith("6.1.0-"):
            pytest.skip("not here", allow_module_level=True)

        def test_there(bpf_kernel): pass
        """,
        test_never="""
        import pytest
        pytest.skip("nowhere", allow_module_level=True)
        """,
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "-v")
    result.assert_outcomes(passed=3, errors=1, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "the host collected this test, and kernel 6.1 did not",
            "ERROR test_unequal.py::test_on_the_host_only[[]6.1] - *",
        ]
    )
    result.stdout.fnmatch_lines_random(
        ["test_unequal.py::test_in_the_guest_only*PASSED*", "test_skipped.py::test_there*PASSED*"]
    )


@pytest.mark.parametrize("more", [(), ("-n2", "--dist=loadgroup")])
def test_the_host_s_choice_counts(pytester: pytest.Pytester, more: tuple[str, ...]) -> None:
    """A plugin that leaves out some tests, as pytest-split does, would leave out others in a guest."""
    pytester.makeconftest(CONFTEST + PART)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.xdist_group("group")
        @pytest.mark.parametrize("n", range(4))
        def test_x(bpf_kernel, n): pass
        """
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1", *more)
    result.assert_outcomes(passed=5, deselected=3)


def test_broken_files_are_reported_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_broken="import no_such_module\ndef test_x(bpf_kernel): pass",
        test_sound="def test_y(bpf_kernel): pass",
    )
    arguments = ["--bpf-kernel=host,6.1", "--continue-on-collection-errors"]
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=2, errors=1)
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Interrupted: 1 error during collection*"])
    assert "bringing up nodes" not in result.stdout.str()


def test_step_by_step_over_kernels(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_one(bpf_kernel): pass
        def test_two(bpf_kernel): assert not bpf_kernel.startswith("6.1.0-")
        def test_three(bpf_kernel): pass
        """
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "--sw")
    result.assert_outcomes(passed=1, failed=1)
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "--sw", "--sw-skip")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["collected 3 items / 1 deselected / 2 selected"])
