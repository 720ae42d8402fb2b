"""Tests warm guests as a person sees them: made once, restored as if just started, never half made."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from caches import CACHE, use_new_cache
from qemus import qemus_for, wait_until

from pytest_bpfmaps.elf.process_mappings import mappings_of
from pytest_bpfmaps.libbpf.library import lib

FIXTURES = """
    import os, pytest

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release
"""
REPORTS = """
    import json, os, random, socket, sys, time

    def test_x(bpf_kernel):
        facts = {
            "release": bpf_kernel, "time": time.time(), "zone": time.tzname[0], "hash": hash("pytest"),
            "random": random.random(), "kernel": os.urandom(8).hex(), "umask": os.umask(0o77),
            "cwd": os.getcwd(), "host": socket.gethostname(), "variable": os.environ["A_VARIABLE"],
            "cpus": os.cpu_count(), "encoding": sys.getfilesystemencoding(), "home": os.environ["HOME"],
        }
        print("facts:", json.dumps(facts))
"""


LIBRARIES = """
    import hashlib, sqlite3, ssl, sys, sysconfig, unicodedata
    from pytest_bpfmaps.kernel.duplicate_symbols import same_named

    with open("/proc/self/maps") as file:
        OPENED = file.read()
    KNOWN = same_named.cache_info().currsize

    def test_libbpf_was_opened_and_the_symbols_were_read_before_the_state_was_saved(bpf_kernel):
        assert "/libbpf.so" in OPENED and "/libelf" in OPENED
        assert KNOWN == 1

    def test_this_package_was_imported_before_the_state_was_saved(bpf):
        mark = "PYTEST_DONT_REWRITE"  # of each module that the state has
        modules = [(name, m.__doc__ or "") for name, m in sys.modules.items()]
        mine = {name: mark in text for name, text in modules if name.partition(".")[0] == "pytest_bpfmaps"}
        assert [name for name, is_early in mine.items() if not is_early] == []

    def test_they_work(bpf_kernel):
        digest = hashlib.sha256(b"").hexdigest()
        assert digest == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
        assert ssl.create_default_context().get_ciphers()
        assert unicodedata.lookup("LATIN SMALL LETTER SHARP S") == "\\xdf"

    def test_their_code_is_that_of_files_that_uprobes_go_into(bpf_kernel):
        extension = sysconfig.get_config_var("EXT_SUFFIX")
        with open("/proc/self/maps") as file:
            mapped = [line.split(maxsplit=5) for line in file]
        code = [fields[5].strip() for fields in mapped if fields[1] == "r-xp" and "/" in fields[-1]]
        assert any("libcrypto" in path for path in code)
        assert any("libc.so" in path for path in code)
        assert [path for path in code if path.endswith("(deleted)") and extension not in path] == []
"""

ANOTHER = """
    from pytest_bpfmaps.elf.process_mappings import mappings_of
    from pytest_bpfmaps.libbpf import ffi
    from pytest_bpfmaps.libbpf.library import lib

    def test_it(bpf):
        bpf.load(code='char LICENSE[] __attribute__((section("license"), used)) = "GPL";')
        at = int(ffi.cast("uintptr_t", ffi.addressof(lib._handle, "bpf_object__open_mem")))
        (place,) = (mapping.path for mapping in mappings_of() if mapping.start <= at < mapping.end)
        assert place.endswith("/another.so")
"""


def facts_of_a_run(pytester: pytest.Pytester) -> dict[str, object]:
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", "-rP")
    result.assert_outcomes(passed=1)
    (line,) = (line for line in result.outlines if line.startswith("facts: "))
    facts: dict[str, object] = json.loads(line.removeprefix("facts: "))
    return facts


def test_a_restored_guest_is_as_if_it_had_just_been_started(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    monkeypatch.setenv("A_VARIABLE", "of this run")
    monkeypatch.setenv("TZ", "Pacific/Chatham")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile(REPORTS)
    old = os.umask(0o27)
    try:
        began = time.time()
        first = facts_of_a_run(pytester)
        second = facts_of_a_run(pytester)
        ended = time.time()
    finally:
        os.umask(old)
    assert began < first["time"] < second["time"] < ended
    assert first["random"] != second["random"]
    assert first["kernel"] != second["kernel"]
    ask = "import time; print(hash('pytest'), time.tzname[0])"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert f"{first['hash']} {first['zone']}\n" == told.stdout
    same = ("release", "zone", "hash", "umask", "cwd", "host", "variable", "cpus", "encoding", "home")
    assert {name: first[name] for name in same} == {name: second[name] for name in same}
    assert (first["umask"], first["cwd"], first["variable"]) == (0o27, str(pytester.path), "of this run")
    assert first["host"] == os.uname().nodename
    assert first["cpus"] == 2


def test_a_restored_guest_has_its_modules_and_the_code_of_the_hosts_files(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile(LIBRARIES)
    measured = ("--bpf-cov", "--bpf-cov-report=none", "--bpf-cost=costs.txt", "--bpf-map-usage")
    for options in ((), measured):
        pytester.runpytest_subprocess("--bpf-kernel=6.1", *options).assert_outcomes(passed=4)


def test_a_run_has_the_libbpf_that_its_environment_names(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib.libbpf_major_version()
    (found, *_) = (mapping.path for mapping in mappings_of() if "/libbpf.so" in mapping.path)
    copied = shutil.copy(found, str(pytester.path / "another.so"))
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    monkeypatch.setenv("BPFMAPS_LIBBPF", copied)
    pytester.makepyfile(ANOTHER)
    pytester.runpytest_subprocess("--bpf-kernel=6.1").assert_outcomes(passed=1)


def test_an_empty_cache_is_filled_once_by_whoever_comes_and_never_by_halves(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = use_new_cache(tmp_path / "cache", monkeypatch)
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile("def test_x(bpf_kernel): assert bpf_kernel.startswith('6.1.0')")
    command = [sys.executable, "-m", "pytest", "--bpf-kernel=6.1"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(lambda: qemus_for(pytester.path))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_until(lambda: not qemus_for(pytester.path))
    assert _states(cache) == []

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    commands = [command, ["script", "-qec", shlex.join(command), "/dev/null"]]
    both = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in commands]
    outputs = [run.communicate(timeout=1500)[0] for run in both]
    assert [run.returncode for run in both] == [0, 0], outputs
    assert all("bpfmaps: 6.1 is prepared, once" in output for output in outputs)
    live = re.findall(r"6.1 (.*?) \(for \d+ s\)", outputs[1])  # a terminal shows what a guest does
    assert "is prepared" in live
    assert "(for" not in outputs[0]
    (state,) = _states(cache)
    assert sorted(path.name for path in state.iterdir()) == ["devices", "manifest.json", "memory"]
    assert state.stat().st_mode & 0o777 == 0o700
    assert list((cache / "warm" / ".new").iterdir()) == []
    assert qemus_for(pytester.path) == []

    (state / "memory").unlink()  # as if somebody had deleted half of it
    (state / "manifest.json").unlink()
    listed = subprocess.run(
        [sys.executable, "-m", "pytest_bpfmaps.cli", "vm", "list"], capture_output=True, check=True
    )
    assert b"no saved states" in listed.stdout


def test_a_full_disk_is_an_error_that_leaves_nothing_and_ends_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def mount(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)

    def prepare() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest_bpfmaps.cli", "vm", "prepare", "6.1"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    mount("-t", "tmpfs", "-o", "mode=700,size=16M", "small", str(tmp_path))
    try:
        (tmp_path / "kernels").symlink_to(CACHE / "kernels")
        monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
        for size in ("16M", "100M"):  # too small for the files of a guest, and too small for its memory
            mount("-o", f"remount,size={size}", str(tmp_path))
            full = prepare()
            assert full.returncode == 1
            assert (
                f"cannot save the state of a guest {tmp_path}/warm: [Errno 28] No space left" in full.stderr
            )
            assert "name a folder of another disk: BPFMAPS_CACHE=FOLDER" in full.stderr
            assert _states(tmp_path) == []
            assert list((tmp_path / "warm" / ".new").iterdir()) == []
        mount("-o", "remount,size=400M", str(tmp_path))
        assert prepare().returncode == 0
        (state,) = _states(tmp_path)
        assert sorted(path.name for path in state.iterdir()) == ["devices", "manifest.json", "memory"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def _states(cache: Path) -> list[Path]:
    return [path for path in (cache / "warm").iterdir() if not path.name.startswith(".")]
