"""Builds the plugin that counts executed instructions, for the QEMU of this machine.

QEMU's interface for plugins has versions: 0 to 1 in QEMU 7.2, 2 to 4 in 10.0, 7 in 11.1. A QEMU that refuses
a version tells its own. Source: include/plugins/qemu-plugin.h in QEMU's sources.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache.locks import only_one
from pytest_bpfmaps.cache.stored_files import digest, own, place, read, read_json, scratch_folder, write_json
from pytest_bpfmaps.compiler.clang import find_clang
from pytest_bpfmaps.errors import CompileError, VmError
from pytest_bpfmaps.vm.machine.child_process import die_with

SOURCE = Path(__file__).with_name("plugin.c")
SECONDS = 60.0  # limit of one run of clang or QEMU
NEWEST_VERSION = 7  # that plugin.c knows
_OTHER_VERSION = re.compile(r"supports only (?:a minimum|up to) version (?:of )?(\d+)")
# QEMU has called the plugin, which has no memory to write to.
_TAKEN = "qemu_plugin_install returned error code"
_FLAGS = (
    *("-O2", "-shared", "-fPIC", "-nostdlib", "-ffreestanding", "-fvisibility=hidden"),
    *("-Wl,--build-id=none", "-Werror=implicit-function-declaration"),
)


def plugin_for(qemu: str, clang: str | None) -> Path:
    """Returns the path of the plugin for the QEMU at the path `qemu`, built with `clang` (as `--bpf-clang`).

    Raises VmError when this QEMU takes no plugin, or when the plugin can't be built.
    """
    folder = own(paths.cache_dir() / "plugins")
    status = os.stat(qemu)
    source = SOURCE.read_bytes()
    key = f"{os.path.realpath(qemu)} {status.st_size} {status.st_mtime_ns} {NEWEST_VERSION} {digest(source)}"
    memory = folder / "known.json"
    with only_one(folder / ".lock", "build the plugin for QEMU", 6 * SECONDS):
        known = read_json(memory)
        if made := _kept(folder, str(known.get(key, ""))):
            return made
        made = _build_for(qemu, clang, folder, digest(source))
        kept = f"{made.name} {digest(read(made))}"
        write_json(memory, {**dict(list(known.items())[-8:]), key: kept})
    return made


def _kept(folder: Path, known: str) -> Path | None:
    """Returns the plugin that `known` names, if it is as it was built: QEMU runs it."""
    name, _, built = known.partition(" ")
    path = folder / name
    try:
        return path if path.parent == folder and digest(read(path)) == built else None
    except OSError:
        return None


def _build_for(qemu: str, clang: str | None, folder: Path, name: str) -> Path:
    # The newest first: what an older one says, a newer QEMU may take for its own.
    version = NEWEST_VERSION
    for _ in range(3):
        made = folder / f"{name}-{version}.so"
        with scratch_folder(folder) as scratch:
            built = scratch / "plugin.so"
            _build(clang, version, built)
            words = _ask(qemu, built)
            if _TAKEN in words:
                place(built, made)
                return made
        other = _OTHER_VERSION.search(words)
        if other is None:
            break
        version = int(other[1])
    raise VmError(
        "cannot record what runs in a guest",
        on=f"with {qemu}",
        why="this QEMU takes no plugin" if "invalid option" in words else "it refused the plugin",
        fix="install a QEMU that was built with plugins (Debian's and Ubuntu's are)",
        details=words,
    )


def _build(clang: str | None, version: int, to: Path) -> None:
    try:
        program = find_clang(clang, paths.objects_dir()).path
    except CompileError as error:
        raise VmError(
            "cannot build the plugin for QEMU", why=error.why or str(error), fix=error.fix
        ) from None
    command = [program, *_FLAGS, f"-DQEMU_PLUGIN_VERSION={version}", "-o", str(to), str(SOURCE)]
    done = _run(command, "build the plugin for QEMU")
    if done.returncode != 0 or not to.exists():
        raise VmError(
            "cannot build the plugin for QEMU",
            on=str(SOURCE),
            why=f"clang ended with status {done.returncode}",
            fix="install a linker for clang (Debian, Ubuntu: apt install binutils, or lld)",
            details=done.stdout,
        )


def _ask(qemu: str, plugin: Path) -> str:
    """Returns what QEMU says of the plugin.

    QEMU has no guest, and ends at once: the plugin does not start.
    """
    machine = ("-machine", "none", "-nodefaults", "-no-user-config", "-display", "none")
    return _run([qemu, *machine, "-plugin", str(plugin)], "ask QEMU about its plugins").stdout


def _run(command: list[str], what: str) -> subprocess.CompletedProcess[str]:
    parent = os.getpid()
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=SECONDS,
            preexec_fn=lambda: die_with(parent),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VmError(f"cannot {what}", on=command[0], why=str(error), fix="run it by hand") from None
