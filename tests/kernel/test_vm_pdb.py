"""Tests that a person can debug a test in a guest: ``breakpoint()``, ``--pdb``, ``--trace``, ``-s``."""

from __future__ import annotations

import re
import sys
import termios
from collections.abc import Callable, Iterator, Sequence

import pytest
from installed import installed
from person import Person
from qemus import qemus_for, wait_until
from shown_blocks import DOCS, shown_blocks, shows

from pytest_bpfmaps import paths

CACHE = paths.cache_dir()  # read before pytester changes HOME
OPTIONS = ["-p", "no:cacheprovider", "--bpf-kernel=6.1", "--bpf-vm-timeout=120"]
Starts = Callable[..., Person]

TESTS = """
    import os

    def test_stops(bpf_kernel):
        number = 40
        breakpoint()
        assert number == 42

    def test_fails(bpf_kernel):
        secret = os.uname().release
        assert secret == "other"

    def test_asks(bpf_kernel):
        said = input("your name? ")
        assert said == "Ada"
"""


@pytest.fixture
def debug(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    """Starts pytest in a terminal."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    monkeypatch.setenv("TERM", "dumb")
    pytester.makepyfile(test_it=TESTS)
    started: list[Person] = []

    def start(*arguments: str, before: Sequence[str] = ()) -> Person:
        started.append(Person([*before, sys.executable, "-m", "pytest", *OPTIONS, *arguments]))
        return started[-1]

    yield start
    for person in started:
        person.end()
    wait_until(lambda: not qemus_for(pytester.path))


def check_end(person: Person, status: int) -> None:
    assert person.process.wait(120) == status
    assert termios.tcgetattr(person.master) == person.before


def test_breakpoint(debug: Starts) -> None:
    person = debug("-k", "stops")
    person.sees(r"PDB set_trace \(IO-capturing turned off\)")
    person.sees(r"\(Pdb\) ")
    person.type("p number + 1\n")
    person.sees(r"\r\n41\r\n\(Pdb\) ")
    person.type("import os; print(os.uname().release, os.get_terminal_size())\n")
    person.sees(r"\r\n6\.1\..* os.terminal_size\(columns=87, lines=31\)\r\n\(Pdb\) ")
    person.type("number = 42\n")
    person.sees(r"\(Pdb\) ")
    person.type("while True: pass\n")
    person.sees("pass\r\n")
    person.interrupts()
    person.sees(r"KeyboardInterrupt[^$]*\(Pdb\) ")
    person.type("c\n")
    person.sees("1 passed")
    check_end(person, 0)


def test_pdb_and_time_limits_that_wait(debug: Starts) -> None:
    person = debug("-k", "fails", "--pdb", "--bpf-vm-timeout=8")  # three times as long where it is emulated
    person.sees(">>> entering PDB >>>")
    person.sees(r"\(Pdb\) ")
    person.type("import time; time.sleep(30); print(repr(secret))\n")
    person.sees(r"\r\n'6\.1\.[^']*'\r\n\(Pdb\) ")
    person.type("c\n")
    person.sees(r"AssertionError|assert '6.1")
    person.sees("1 failed")
    check_end(person, 1)


def test_the_session_that_the_manual_shows(debug: Starts, pytester: pytest.Pytester) -> None:
    installed("bpftool")  # the page types it
    page = DOCS / "howto/debug.md"
    for name, text in re.findall(r"^```\w+\n(?://|#) file: (\S+)\n(.*?)^```$", page.read_text(), re.M | re.S):
        (pytester.path / name).write_text(text)
    person = debug("test_counts.py", "-q", "--pdb", before=["env", "SIZE=1000"])
    screen = ""
    for _, text in shown_blocks(page):
        for typed in re.findall(r"^\(Pdb\) (.*)$", text, re.M):
            screen += person.sees(r"\(Pdb\) ") + "(Pdb) "
            person.type(f"{typed}\n")
    screen += person.sees("1 failed")
    shows("howto/debug.md", "(Pdb)", screen)
    check_end(person, 1)


@pytest.mark.parametrize(("option", "ends"), [("--trace", "2 deselected"), ("--pdb", "1 failed")])
def test_quit(debug: Starts, option: str, ends: str) -> None:
    """A guest that ends because a person quits has not died."""
    person = debug("-k", "fails", option)
    person.sees(r"-> (secret|assert) [^$]*\(Pdb\) ")
    person.type("q\n")
    person.sees(rf"(?s)\A((?!killed).)*keyboard-interrupt((?!killed).)*{ends}")
    check_end(person, 2)


def test_a_terminal_that_goes_away(debug: Starts) -> None:
    """The guest does not wait for a person who can't come back; pytest ignores that the terminal went."""
    person = debug("-k", "fails", "--pdb", before=["env", "--ignore-signal=HUP"])
    person.sees(r"\(Pdb\) ")
    person.close()
    assert person.process.wait(600) != 0


def test_input(debug: Starts) -> None:
    person = debug("-k", "asks", "-s")
    person.sees(r"your name\? ")
    person.type("Ada\n")
    person.sees("1 passed")
    check_end(person, 0)


def test_input_from_a_pipe(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makepyfile(
        """
        import sys
        import pytest

        def test_asks(bpf_kernel):
            assert input("your name? ") == "Ada"
            assert sys.stdin.readline() == "a line\\n"
            with pytest.raises(EOFError):
                input()
        """
    )
    command = [sys.executable, "-m", "pytest", *OPTIONS, "-s"]
    result = pytester.run(*command, stdin=b"Ada\na line\n")
    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines(["*your name? *"])


def test_several_kernels_and_no_terminal(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makepyfile(test_it=TESTS)
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1", "--pdb")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*--pdb can't be used here: workers for * run at the same time, and there is one terminal",
            "  -> choose tests of one kernel: --bpf-kernel=*",
        ]
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1", "-k", "stops and 6.1", "-n2", "--pdb")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result = pytester.runpytest_subprocess("--bpf-kernel=host,6.1", "-k", "stops and 6.1 or fails and host")
    result.stdout.fnmatch_lines(["*VmError: cannot debug in a guest: workers for *run at the same time*"])
