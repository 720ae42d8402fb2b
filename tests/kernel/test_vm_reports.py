"""Tests that every report of a test in a guest arrives, and that no guest has the host import a module."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("cache_of_this_run")


def test_values_that_the_wire_can_not_carry(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import enum, logging, os, pathlib, warnings

        class Kind(enum.IntEnum):
            EXEC = 1

        def test_bytes_that_are_no_text(bpf):
            names = bpf.create_map("hash", key="u32", value="char[4]", max_entries=1)
            names.update_elem(1, b"a\\xff\\xfe")
            assert names[1] == "abc"

        def test_a_path_as_a_property(bpf, record_property, tmp_path):
            record_property("folder", tmp_path)
            record_property("kind", Kind.EXEC)

        def test_a_log_line(bpf):
            logging.warning("what came: %s", os.fsdecode(b"\\xff"))
            assert False

        def test_a_warning(bpf):
            warnings.warn(os.fsdecode(b"\\xff"), stacklevel=1)
        """
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "--junitxml=out.xml", "-rw")
    result.assert_outcomes(passed=2, failed=2, warnings=1)
    result.stdout.fnmatch_lines(
        ["*Values changed for this report*", "*bytes that are no UTF-8 are shown as*"]
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    xml = Path("out.xml").read_text()
    assert '<property name="kind" value="1"' in xml
    assert 'name="folder" value="/' in xml


def test_pytest_exit_in_a_guest_ends_the_run(pytester: pytest.Pytester) -> None:
    """pytest-xdist would take an exit status of one's own for a crash, and end in an internal error."""
    pytester.makepyfile(
        """
        import pytest

        def test_first(bpf):
            pass

        def test_exit(bpf):
            pytest.exit("enough", returncode=3)

        def test_last(bpf):
            pass
        """
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "-q")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result.stdout.fnmatch_lines(["!* received keyboard-interrupt !*"])
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_a_guest_can_not_have_the_host_import_a_module(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(a_trap="open('it-was-imported', 'w').close()")
    pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(trylast=True)
        def pytest_runtest_teardown(item):
            if not hasattr(item.config, "workerinput"):
                return
            for plugin in item.config.pluginmanager.get_plugins():
                if type(plugin).__name__ == "WorkerInteractor":
                    names = {"module": "a_trap", "class_name": "Warning"}
                    data = {f"{what}_{k}": v for what in ("message", "category") for k, v in names.items()}
                    data |= {"message_args": (), "message_str": "the text", "filename": "f", "lineno": 1}
                    data |= {"file": None, "line": None, "source": None, "module": None}
                    plugin.sendevent("warning_recorded", warning_message_data=data, when="runtest",
                                     nodeid=item.nodeid, location=None)
        """
    )
    pytester.makepyfile("def test_x(bpf_kernel): pass")
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "-W", "always")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*UserWarning: a_trap.Warning: the text*"])
    assert not Path("it-was-imported").exists()
