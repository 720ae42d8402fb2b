"""Tests --bpf-watch in a terminal, before which a person saves files and presses keys."""

import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from person import Person
from processes import is_running

SOURCE = """
#include "{name}.h"
int number = NUMBER;
"""
TEST = """
def test_{name}(bpf):
    assert bpf.compile("{name}.bpf.c").exists()
"""
WAITS = r"bpfmaps: waits for changes: Enter runs all tests, q ends\r\n"


@pytest.fixture
def project(pytester, monkeypatch):
    """A folder in which two tests have a source and a header each, and one test has none."""
    monkeypatch.setenv("NO_COLOR", "1")
    pytester.makeini("[pytest]")
    for name in ("one", "two"):
        Path(f"{name}.bpf.c").write_text(SOURCE.format(name=name))
        Path(f"{name}.h").write_text("#define NUMBER 1\n")
        Path(f"test_{name}.py").write_text(TEST.format(name=name))
    Path("inner").mkdir()
    Path("inner/test_plain.py").write_text("def test_plain(): pass\n")
    return pytester.path


@pytest.fixture
def watch(project):
    """Returns a function that starts pytest in a terminal. It must end with all that it started."""
    people = []

    def start(*arguments):
        person = Person([sys.executable, "-m", "pytest", "--bpf-watch", "-v", *arguments], columns=120)
        people.append(person)
        return person

    yield start
    limit = time.monotonic() + 120
    for person in people:
        ended_by_itself = person.process.poll() is not None
        while ended_by_itself and in_session(person.process.pid):  # the kernel ends them after their parent
            assert time.monotonic() < limit
            time.sleep(0.05)
        person.end()
        assert ended_by_itself, f"pytest still waits, and shows: {person.screen!r}"


def in_session(leader):
    """Returns the processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and is_running(path.parent.name):
            found.append(int(path.parent.name))
    return found


def run(person, *lines):
    """Waits for a run that has exactly these tests and outcomes, in this order, until pytest waits again."""
    screen = person.sees(WAITS)
    found = re.findall(r"^(\S+::\S+) ([A-Z]+) ", screen, re.MULTILINE)
    assert [f"{name} {outcome}" for name, outcome in found] == list(lines), screen


ONE, TWO, PLAIN = "test_one.py::test_one", "test_two.py::test_two", "inner/test_plain.py::test_plain"


def test_what_depends_on_a_change_runs(watch):
    person = watch()
    run(person, f"{PLAIN} PASSED", f"{ONE} PASSED", f"{TWO} PASSED")
    Path("one.h").write_text("#define NUMBER 2\n")
    run(person, f"{ONE} PASSED")
    Path("two.bpf.c").write_text('#include "two.h"\nint number = NUMBER + missing;\n')
    run(person, f"{TWO} FAILED")
    person.type("\n")  # failed tests come first
    run(person, f"{TWO} FAILED", f"{PLAIN} PASSED", f"{ONE} PASSED")
    Path("two.h").write_text("#define NUMBER 1\nenum { missing };\n")  # a header of the object before
    run(person, f"{TWO} PASSED")
    Path("inner/test_plain.py").write_text("def test_plain(): assert not\n")
    person.sees("SyntaxError")
    run(person)
    Path("inner/new.py").write_text("def test_plain(): pass\n")
    Path("inner/new.py").rename("inner/test_plain.py")  # as editors do
    run(person, f"{PLAIN} PASSED")
    assert person.quits() == 0
    assert termios.tcgetattr(person.master) == person.before


def test_what_a_run_writes_is_no_change(watch, project, monkeypatch):
    """The cache, and the objects of failing tests, may be in a folder that is watched."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(project / "cache"))
    person = watch("--bpf-artifacts=kept")
    run(person, f"{PLAIN} PASSED", f"{ONE} PASSED", f"{TWO} PASSED")
    assert list(Path("cache").rglob("*.bpf.o"))
    more = "    open('kept/one.bpf.o', 'w').close()\n    assert not bpf\n"
    Path("kept").mkdir()
    Path("test_one.py").write_text(Path("test_one.py").read_text() + more)
    run(person, f"{ONE} FAILED")
    Path("two.h").write_text("#define NUMBER 3\n")
    run(person, f"{TWO} PASSED")
    assert person.quits() == 0


def test_files_that_nobody_knows(watch):
    person = watch("-k", "not two")
    run(person, f"{PLAIN} PASSED", f"{ONE} PASSED")
    for number in range(10_000):
        Path(f"inner/{number}.txt").touch()
    Path("inner/.#test_plain.py").touch()  # of an editor
    Path("test_more.py").write_text("def test_more(): pass\n")
    run(person, f"{PLAIN} PASSED", "test_more.py::test_more PASSED", f"{ONE} PASSED")
    shutil.rmtree("inner")
    person.sees("inner/test_plain.py changed: no test depends on it")
    Path("inner").mkdir()
    Path("inner/test_plain.py").write_text("def test_plain(): assert 0\n")
    run(person, f"{PLAIN} FAILED")
    assert person.quits() == 1  # as the last run


def test_helpers_and_conftest(watch):
    Path("helper.py").write_text("NUMBER = 1\n")
    Path("inner/conftest.py").write_text("import helper\nnumber = helper.NUMBER\n")
    Path("inner/test_plain.py").write_text("import conftest\ndef test_plain(): assert conftest.number == 1\n")
    person = watch("--last-failed")
    run(person, f"{PLAIN} PASSED", f"{ONE} PASSED", f"{TWO} PASSED")
    Path("inner/conftest.py").write_text("number = 2\n")
    run(person, f"{PLAIN} FAILED")
    Path("helper.py").write_text("NUMBER = 3\n")  # only tests that failed run
    run(person, f"{PLAIN} FAILED")
    Path("pytest.ini").write_text("[pytest]\naddopts = --color=no\n")
    person.sees("pytest.ini changed, which pytest has loaded: pytest starts again")
    run(person, f"{PLAIN} FAILED")
    assert person.quits() == 1
    assert termios.tcgetattr(person.master) == person.before  # as before both of them


def test_folders_of_sources_that_do_not_stay(watch, tmp_path_factory):
    """One source goes with its test, as in a guest. The folder of the other one goes later."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "two.bpf.c").write_text("int number;\n")
    Path("test_two.py").write_text(f"def test_two(bpf):\n    bpf.compile('{elsewhere}/two.bpf.c')\n")
    Path("test_one.py").write_text(
        "import shutil\ndef test_one(bpf, tmp_path):\n    (tmp_path / 'x.bpf.c').write_text('int number;')\n"
        "    bpf.compile(tmp_path / 'x.bpf.c')\n    shutil.rmtree(tmp_path)\n"
    )
    person = watch()
    run(person, f"{PLAIN} PASSED", f"{ONE} PASSED", f"{TWO} PASSED")
    shutil.rmtree(elsewhere)
    run(person, f"{TWO} FAILED")
    Path("inner/test_plain.py").write_text("def test_plain(): assert 0\n")
    run(person, f"{PLAIN} FAILED")
    assert person.quits() == 1


def test_packages_that_are_named_as_such(watch):
    Path("inner/__init__.py").touch()
    person = watch("--pyargs", "inner")
    run(person, f"{PLAIN} PASSED")
    Path("inner/test_plain.py").write_text("def test_plain(): assert 0\n")
    run(person, f"{PLAIN} FAILED")
    assert person.quits() == 1


def test_it_sleeps_again_after_fg(watch):
    person = watch("-k", "one")
    person.sees(WAITS)
    person.process.send_signal(signal.SIGCONT)
    limit, asleep = time.monotonic() + 60, 0
    while asleep < 20:  # looks in a row; one that is busy never sleeps
        assert time.monotonic() < limit, "it uses the processor while it waits"
        state = Path(f"/proc/{person.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.01)
    assert person.quits() == 0


def test_a_run_that_is_killed(watch):
    Path("test_two.py").write_text("import os\ndef test_two():\n    os.kill(os.getpid(), 9)\n")
    person = watch("-k", "two")
    person.sees(WAITS)
    assert person.quits() == 128 + signal.SIGKILL


def test_what_is_started_too_late_ends_by_itself(project):
    """A process of the watcher finds that its parent, which has another id, has ended before it could ask."""
    for module, *arguments in (
        ("pytest_bpfmaps.watch.notifier", "."),
        ("pytest_bpfmaps.vm.gateway.prepared", "0", "6.1"),
    ):
        command = [sys.executable, "-m", module, str(2**22 + 1), *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=300
        )
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_ctrl_c_ends_it(watch):
    person = watch()
    person.sees(WAITS)
    person.type("\x03")
    assert person.process.wait(60) == pytest.ExitCode.INTERRUPTED
    assert termios.tcgetattr(person.master) == person.before


def test_ctrl_c_ends_a_run(watch):
    Path("test_two.py").write_text("import time\ndef test_two():\n    print()\n    time.sleep(600)\n")
    person = watch("-s")
    person.sees("test_two ")
    person.type("\x03")
    person.sees("KeyboardInterrupt")
    assert person.process.wait(60) == pytest.ExitCode.INTERRUPTED


def test_a_signal_ends_a_run(watch):
    Path("test_two.py").write_text("import time\ndef test_two():\n    print()\n    time.sleep(600)\n")
    person = watch("-s")
    person.sees("test_two ")
    person.process.send_signal(signal.SIGTERM)
    assert person.process.wait(60) == 128 + signal.SIGTERM


def test_ctrl_c_in_the_debugger_does_not_end_it(watch):
    Path("test_two.py").write_text("def test_two():\n    breakpoint()\n")
    person = watch("-k", "two")
    person.sees(r"\(Pdb\) ")
    person.interrupts()
    person.sees(r"\(Pdb\) ")
    person.type("c\n")
    assert "1 passed" in person.sees(WAITS)
    assert person.quits() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_nothing(watch, number):
    person = watch()
    person.sees(WAITS)
    person.process.send_signal(number)
    assert person.process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)


def test_the_folder_is_deleted(watch, project):
    person = watch()
    person.sees(WAITS)
    shutil.rmtree(project)
    person.sees("cannot watch .*: the folder was deleted or renamed")
    assert person.process.wait(60) == pytest.ExitCode.USAGE_ERROR


def test_without_watchfiles_the_message_says_how_to_install_it(project, pytester):
    Path("hides.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    result = pytester.runpytest_subprocess("-p", "hides", "--bpf-watch")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*cannot watch files: watchfiles is not installed", "*pip install 'pytest-bpfmaps[[]watch[]]'"]
    )
