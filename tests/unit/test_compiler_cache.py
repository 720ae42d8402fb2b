"""Tests the object cache by counting runs of clang: it runs again when it must, and only then."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_bpfmaps.cache.stored_files import read_checked
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.paths import PACKAGE

WORKER = """
import sys
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.cache.stored_files import read_checked
compiler = LocalCompiler(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(compiler.compile(CompileRequest.from_json(sys.argv[2])), flush=True)
"""


class CountingClang:
    """A command that records each run and then becomes the real clang."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "counting-clang")
        self.log = folder / "runs"
        self.slow = folder / "slow"  # while this file exists, a run takes a minute
        real = LocalCompiler().clang.path
        script = f'#!/bin/sh\necho "$$ $*" >>{self.log}\n[ ! -e {self.slow} ] || sleep 60\nexec {real} "$@"\n'
        Path(self.path).write_text(script)
        os.chmod(self.path, 0o755)

    def runs(self) -> list[str]:
        """Returns the command line of each run, after its process id."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def compilations(self) -> int:
        return sum(" -c " in run for run in self.runs())


@pytest.fixture(autouse=True)
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "objects"


@pytest.fixture
def clang(tmp_path: Path) -> CountingClang:
    return CountingClang(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "early").mkdir(parents=True)
    (folder / "late").mkdir()
    (folder / "late/outer.h").write_text('#include "inner.h"\n')
    (folder / "late/inner.h").write_text("#define VALUE 1\n")
    (folder / "prog.bpf.c").write_text("#include <outer.h>\nint value = VALUE;\n")
    return folder


def request_for(project: Path) -> CompileRequest:
    include = tuple(str(project / name) for name in ("absent", "early", "late"))
    return CompileRequest(source=str(project / "prog.bpf.c"), include=include)


def workers(clang: CountingClang, request: CompileRequest, count: int) -> list[subprocess.Popen[str]]:
    """Starts processes that wait until they may compile `request`."""
    command = [sys.executable, "-c", WORKER, clang.path, request.to_json()]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return started


def test_a_hit_runs_no_clang_at_all(clang: CountingClang, project: Path) -> None:
    first = LocalCompiler(clang.path).compile(request_for(project))
    runs = clang.runs()
    assert clang.compilations == 1
    assert LocalCompiler(clang.path).compile(request_for(project)) == first
    assert clang.runs() == runs


def test_another_version_of_the_package_compiles_anew(
    clang: CountingClang, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its warnings have other words, which the cache has not."""
    source = tmp_path / "prog.bpf.c"
    source.write_text("u32 value;\n")
    request = CompileRequest(source=str(source))
    package = tmp_path / "pytest_bpfmaps"  # Python looks first in the folder that it is started in
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    assert "the kernel's own short name" in compiled_elsewhere(clang, request)
    module = package / "compiler" / "implicit_headers.py"
    module.write_text(module.read_text().replace("the kernel's own short name", "a short name"))
    assert "a short name" in compiled_elsewhere(clang, request)
    runs = clang.compilations
    assert "a short name" in compiled_elsewhere(clang, request)
    assert clang.compilations == runs


def compiled_elsewhere(clang: CountingClang, request: CompileRequest) -> str:
    """Compiles in another process. Returns its warnings."""
    command = [sys.executable, "-c", WORKER, clang.path, request.to_json()]
    return subprocess.run(command, input="\n", capture_output=True, text=True, check=True).stderr


def test_eight_processes_compile_once(clang: CountingClang, project: Path) -> None:
    processes = workers(clang, request_for(project), 8)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=600)[0] for process in processes}
    assert len(answers) == 1
    assert Path(answers.pop().strip()).read_bytes()[:4] == b"\x7fELF"
    assert clang.compilations == 1


def test_a_killed_process_does_not_block_the_others(clang: CountingClang, project: Path) -> None:
    clang.slow.touch()
    (process,) = workers(clang, request_for(project), 1)
    with process:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        deadline = time.monotonic() + 600
        while not clang.runs():
            assert time.monotonic() < deadline, "clang was not started"
            time.sleep(0.01)
        process.kill()
    os.killpg(int(clang.runs()[0].split()[0]), signal.SIGKILL)
    clang.slow.unlink()
    assert LocalCompiler(clang.path).compile(request_for(project)).exists()


class TestRecompiles:
    @pytest.fixture(autouse=True)
    def before(self, clang: CountingClang, project: Path) -> None:
        self.clang, self.project = clang, project
        self.first = self.compile()

    def compile(self) -> bytes:
        return LocalCompiler(self.clang.path).compile(request_for(self.project)).read_bytes()

    def test_when_the_source_changes(self) -> None:
        (self.project / "prog.bpf.c").write_text("int other;\n")
        assert self.compile() != self.first

    @pytest.mark.parametrize("header", ["late/outer.h", "late/inner.h"])
    def test_when_a_header_changes(self, header: str) -> None:
        (self.project / header).write_text("#define VALUE 2\n")
        assert self.compile() != self.first

    def test_when_a_header_changes_and_keeps_its_size_and_time(self) -> None:
        header = self.project / "late/inner.h"
        status = header.stat()
        header.write_text("#define VALUE 2\n")
        os.utime(header, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert header.stat().st_mtime_ns == status.st_mtime_ns
        assert self.compile() != self.first

    @pytest.mark.parametrize("folder", [".", "early", "absent"])
    def test_when_a_header_appears_earlier_in_the_search_path(self, folder: str) -> None:
        (self.project / folder).mkdir(exist_ok=True)
        (self.project / folder / "outer.h").write_text("#define VALUE 3\n")
        assert self.compile() != self.first
        assert self.clang.compilations == 2

    def test_when_a_header_disappears(self) -> None:
        (self.project / "early/outer.h").write_text("#define VALUE 3\n")
        assert self.compile() != self.first
        (self.project / "early/outer.h").unlink()
        assert self.compile() == self.first
        assert self.clang.compilations == 2  # the first object is still in the cache

    def test_when_the_object_was_damaged(self, objects: Path) -> None:
        for made in objects.glob("prog-*/prog.bpf.o"):
            made.write_bytes(b"")
        assert self.compile() == self.first
        assert self.clang.compilations == 2

    def test_when_the_manifest_was_damaged(self, objects: Path) -> None:
        for damage in (b"", b"[", b"[{}]", b"\xff\xfe", b'{"a": 1}', b"7"):
            for manifest in (objects / "manifests").iterdir():
                manifest.write_bytes(damage)
            assert self.compile() == self.first

    def test_when_an_environment_variable_changes_the_search_path(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CPATH", str(self.project / "early"))
        self.compile()
        assert self.clang.compilations == 2

    def test_when_another_clang_takes_the_place(self) -> None:
        with open(self.clang.path, "a") as script:
            script.write("# an update\n")
        self.compile()
        assert self.clang.compilations == 2

    def test_not_when_files_are_only_touched(self) -> None:
        for path in self.project.rglob("*.[ch]"):
            path.touch()
        assert self.compile() == self.first
        assert self.clang.compilations == 1

    def test_not_when_an_unrelated_header_appears(self) -> None:
        (self.project / "early/unrelated.h").write_text("#define VALUE 3\n")
        assert self.compile() == self.first
        assert self.clang.compilations == 1

    def test_not_when_a_header_appears_later_in_the_search_path(self) -> None:
        (self.project / "early/inner.h").write_text("#define VALUE 3\n")  # outer.h's own folder comes first
        assert self.compile() == self.first


@pytest.mark.parametrize("form", ['"later.h"', "<later.h>"])
def test_recompiles_when_a_header_that_was_asked_for_appears(
    form: str, clang: CountingClang, project: Path
) -> None:
    (project / "prog.bpf.c").write_text(
        f"#if __has_include({form})\nint with;\n#else\nint without;\n#endif\n"
    )
    without = LocalCompiler(clang.path).compile(request_for(project)).read_bytes()
    (project / "late/later.h").touch()
    assert LocalCompiler(clang.path).compile(request_for(project)).read_bytes() != without
    (project / "late/later.h").unlink()
    assert LocalCompiler(clang.path).compile(request_for(project)).read_bytes() == without


def test_a_header_that_changes_while_clang_runs_is_not_missed(clang: CountingClang, project: Path) -> None:
    """The first run of clang reads the old content, and ends after the new one was written."""
    header = project / "late/inner.h"
    marker = project / "once"
    script = Path(clang.path).read_text().replace("exec ", "").rstrip("\n")
    change = f"{{ touch {marker}; echo '#define VALUE 9' >{header}; }}"
    script += f"\nstatus=$?\n[ -e {marker} ] || {change}\nexit $status\n"
    Path(clang.path).write_text(script)
    made = LocalCompiler(clang.path).compile(request_for(project)).read_bytes()
    assert clang.compilations == 2
    (project / "prog.bpf.c").touch()
    assert LocalCompiler(clang.path).compile(request_for(project)).read_bytes() == made
    assert clang.compilations == 2


def test_all_states_of_a_header_stay_cached(clang: CountingClang, project: Path) -> None:
    for _ in range(2):
        for value in range(5):
            (project / "late/inner.h").write_text(f"#define VALUE {value}\n")
            LocalCompiler(clang.path).compile(request_for(project))
    assert clang.compilations == 5


def test_a_hit_needs_no_writable_cache(clang: CountingClang, project: Path, objects: Path) -> None:
    made = LocalCompiler(clang.path).compile(request_for(project))
    before = {path: path.stat().st_mtime_ns for path in objects.rglob("*")}
    assert LocalCompiler(clang.path).compile(request_for(project)) == made
    assert {path: path.stat().st_mtime_ns for path in objects.rglob("*")} == before


def test_the_manifest_is_json_that_names_the_headers(project: Path, objects: Path) -> None:
    LocalCompiler().compile(request_for(project))
    (manifest,) = (objects / "manifests").iterdir()
    (entry,) = json.loads(read_checked(manifest) or "")
    assert str(project / "late/inner.h") in {file[0] for file in entry["inputs"]["files"]}
    assert str(project / "early/outer.h") in entry["inputs"]["absent"]
    # nothing can be in a folder that does not exist, so only the folder is looked for
    assert [path for path in entry["inputs"]["absent"] if "/absent" in path] == [str(project / "absent")]
