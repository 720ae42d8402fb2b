"""Tests saved states of guests: when one is current, which are deleted, and what reaches the disk."""

from __future__ import annotations

import importlib.util
import os
import platform
import py_compile
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_bpfmaps.cache import sparse_files, staging
from pytest_bpfmaps.cli import main
from pytest_bpfmaps.elf.reader import loaded_size, loader, open_elf
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.paths import PACKAGE
from pytest_bpfmaps.vm.boot import initramfs, saved_states, state_key
from pytest_bpfmaps.vm.boot.cpio import Cpio
from pytest_bpfmaps.vm.boot.saved_states import SavedState
from pytest_bpfmaps.vm.kernels.kernel import Kernel

PAGE = 4096


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))


def make(name: str, *files: Path) -> SavedState:
    """Makes a state that was made of `files`."""
    state = SavedState(saved_states.folder() / name)
    state.path.mkdir(parents=True)
    state.memory.write_bytes(bytes(PAGE))
    state.devices.write_bytes(b"devices")
    state.write_manifest("6.1", "6.1.0", map(str, files))
    return state


def test_a_state_hangs_on_every_module_that_makes_or_serves_it(tmp_path: Path) -> None:
    kernel = Kernel("none", "0", tmp_path / "image", None, None, None, "nowhere", platform.machine())
    parts = {*state_key.parts(kernel)}
    for room in ("boot", "gateway", "guest", "kernels", "machine", "protocol"):
        modules = {*(PACKAGE / "vm" / room).glob("*.py")}
        assert len(modules) > 1
        assert modules <= parts, f"a change in vm/{room} leaves saved states as they are"


def test_a_state_is_current_until_a_file_changes(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("x = 1")
    state = make("6.1-a", source)
    assert state.is_current()
    os.utime(source, ns=(0, 0))
    assert not state.is_current()
    source.unlink()
    assert not state.is_current()


def test_a_state_is_not_current_if_a_file_changed_while_it_was_made(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("x = 1")
    state = make("6.1-a", source)
    changed = source.stat().st_ctime
    state.write_manifest("6.1", "6.1.0", [str(source)], began=changed + 1)
    assert state.is_current()
    state.write_manifest("6.1", "6.1.0", [str(source)], began=changed - 1)
    assert not state.is_current()


def test_a_state_stays_current_when_bytecode_of_its_sources_is_written(tmp_path: Path) -> None:
    source, alone = tmp_path / "module.py", tmp_path / "alone.pyc"
    source.write_text("x = 1")
    bytecode = Path(importlib.util.cache_from_source(str(source)))
    state = make("6.1-a", source, bytecode)
    py_compile.compile(str(source))
    assert bytecode.exists()
    assert state.is_current()
    alone.write_bytes(bytecode.read_bytes())  # without a source, the bytecode is the module
    state = make("6.1-b", alone)
    alone.write_bytes(b"")
    assert not state.is_current()


def test_a_state_is_current_until_a_package_is_installed(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    site.mkdir()
    state = make("6.1-a", site)
    (site / "cache").mkdir()
    assert state.is_current()
    (site / "new-1.0.dist-info").mkdir()
    assert not state.is_current()


@pytest.mark.parametrize("manifest", [None, "", "{", "{}", '{"files": {}}'])
def test_half_a_state_is_not_current(manifest: str | None) -> None:
    state = make("6.1-a", Path("/bin/sh"))
    (state.path / "manifest.json").unlink()
    if manifest is not None:
        (state.path / "manifest.json").write_text(manifest)
    assert not state.is_current()


def test_a_state_that_is_gone_is_not_opened() -> None:
    state = make("6.1-a", Path("/bin/sh"))
    opened = state.open()
    assert opened is not None
    for fd in opened:
        os.close(fd)
    state.devices.unlink()
    assert not state.is_current()
    before = os.listdir("/proc/self/fd")
    assert state.open() is None
    assert os.listdir("/proc/self/fd") == before


def test_a_state_that_others_may_write_is_not_opened() -> None:
    state = make("6.1-a", Path("/bin/sh"))
    before = os.listdir("/proc/self/fd")
    for path in (state.path, state.memory, state.devices):
        mode = path.stat().st_mode
        path.chmod(0o777)
        with pytest.raises(VmError, match=r"will not restore .*others may write to it \(mode 0777\)"):
            state.open()
        path.chmod(mode)
    state.path.rename(state.path.with_name("elsewhere"))
    state.path.symlink_to("elsewhere")
    with pytest.raises(VmError, match="will not restore"):
        state.open()
    assert os.listdir("/proc/self/fd") == before


def test_only_current_states_survive_a_collection(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("x = 1")
    kept, stale, unused = (
        make("6.1-a", Path("/bin/sh")),
        make("6.1-b", source),
        make("6.1-c", Path("/bin/sh")),
    )
    source.write_text("x = 12")
    os.utime(unused.path, (0, 0))
    with staging.staging(saved_states.folder()) as busy:
        assert saved_states.remove_outdated() == [stale, unused]
        assert busy.exists()
    assert saved_states.states() == [kept]
    assert saved_states.remove_outdated(keep=kept) == []


def test_what_a_killed_process_was_making_is_collected() -> None:
    dead = saved_states.folder() / ".new" / "tmpdead"
    dead.mkdir(parents=True)
    (dead / "memory").write_bytes(b"half")
    saved_states.remove_outdated()
    assert not dead.exists()


def test_zeros_of_the_memory_take_no_room(tmp_path: Path) -> None:
    with sparse_files.in_memory() as memory:
        os.ftruncate(memory, 512 * PAGE)
        os.pwrite(memory, bytes(100 * PAGE), 200 * PAGE)
        for page in (0, 7, 8, 250, 511):
            os.pwrite(memory, b"\1", page * PAGE + 5)
        sparse_files.copy(memory, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == os.pread(memory, 512 * PAGE, 0)
    assert (tmp_path / "copy").stat().st_blocks * 512 <= 16 * PAGE


def test_the_command_lists_and_deletes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("x = 1")
    make("6.1-a", Path("/bin/sh"))
    make("6.1-b", source)
    source.unlink()
    assert main(["vm", "list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("6.1 ")
    assert "out of date" not in first
    assert second.endswith("(out of date)")
    assert main(["vm", "gc"]) == 0
    assert capsys.readouterr().out == "deleted 6.1-b\n"
    assert main(["vm", "gc", "--all"]) == 0
    assert main(["vm", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("no saved states")


def test_a_project_does_not_change_where_a_state_looks_for_modules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = initramfs.search_path()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "src"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "src"), *sys.path])
    assert initramfs.search_path() == before


def test_a_project_that_is_installed_as_editable_counts_the_same_in_its_own_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packages, first, second = (tmp_path / name for name in ("packages", "first", "second"))
    for folder in (packages / "some-1.0.dist-info", first, second):
        folder.mkdir(parents=True)
    (packages / "a.pth").write_text(f"{first}\n")
    (packages / "b.pth").write_text(f"{second}\n")
    usual = [*sys.path, str(packages), str(first), str(second)]
    monkeypatch.setattr(sys, "path", usual)
    before = initramfs.search_path()
    assert {str(first), str(second)} <= {*before}
    monkeypatch.setattr(sys, "path", [str(second), *usual])
    assert initramfs.search_path() == before


def test_an_archive_has_files_with_their_folders_and_links(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / "one.so.1").write_bytes(b"library")
    (tree / "lib" / "one.so").symlink_to("one.so.1")
    (tree / "lib64").symlink_to("lib")
    with (tmp_path / "archive").open("wb") as out:
        archive = Cpio(out)
        archive.add_tree(str(tree / "lib64" / "one.so"))
        archive.add_bytes("/init", b"#!", 0o755)
        archive.close()
    target = tmp_path / "unpacked"
    target.mkdir()
    unpack = ["cpio", "-idm", "--quiet", "--no-absolute-filenames"]
    with (tmp_path / "archive").open("rb") as archived:
        subprocess.run(unpack, cwd=target, stdin=archived, check=True)
    found = target / tree.relative_to("/")
    assert (found / "lib64").readlink() == Path("lib")
    assert (found / "lib64" / "one.so").read_bytes() == b"library"
    assert os.access(target / "init", os.X_OK)


def test_a_program_runs_from_the_part_that_is_loaded(tmp_path: Path) -> None:
    program = Path("/bin/true").resolve()
    with open_elf(program) as elf:
        size = loaded_size(elf)
    assert 0 < size < program.stat().st_size  # at least the section table comes after it
    copy = tmp_path / "true"
    copy.write_bytes(program.read_bytes()[:size])
    copy.chmod(0o755)
    assert subprocess.run([copy], check=False).returncode == 0


def test_the_loader_of_a_program_and_of_none(tmp_path: Path) -> None:
    with open_elf(Path(sys.executable).resolve()) as elf:
        assert subprocess.run([loader(elf), "--version"], check=False, capture_output=True).returncode == 0
    with open_elf(Path("/bin/busybox").resolve()) as elf:
        assert loader(elf) == ""


@pytest.mark.parametrize("part", ["memory", "devices"])
@pytest.mark.parametrize("damage", ["shorter", "longer", "gone", "a bit"])
def test_damage_is_noticed(part: str, damage: str) -> None:
    """Another size is found at once, because that costs nothing. Flipped bits are found by a check."""
    state = make("6.1-a", Path("/bin/sh"))
    path = state.part(part)
    data = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "shorter":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"\0")
        case "a bit":
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert state.is_current() is (damage == "a bit")
    assert not state.is_intact()


@settings(deadline=None)  # no deadline, because it writes files
@given(st.lists(st.sampled_from([b"\0", b"a", b"\0b"]), max_size=40), st.integers(0, PAGE))
def test_a_digest_does_not_tell_holes_from_zeros(pages: list[bytes], rest: int) -> None:
    """A cache that was packed into an archive may have zeros instead of a file's holes."""
    data = b"".join(page.ljust(PAGE, b"\0") for page in pages) + bytes(rest)
    with tempfile.TemporaryDirectory() as folder:
        dense, sparse = Path(folder, "dense"), Path(folder, "sparse")
        dense.write_bytes(data)
        with dense.open("rb") as file:
            sparse_files.copy(file.fileno(), sparse)
        assert sparse_files.digest(dense) == sparse_files.digest(sparse)
        if data:
            dense.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            assert sparse_files.digest(dense) != sparse_files.digest(sparse)


@pytest.mark.parametrize("text", ["[]", "7", '"x"', '{"files": 1, "sizes": {}}', '{"digests": [1]}', "\x00"])
def test_a_manifest_of_another_shape_is_no_error(text: str) -> None:
    state = make("6.1-a", Path("/bin/sh"))
    (state.path / "manifest.json").write_text(text)
    assert not state.is_current()
    assert not state.is_intact()
