"""Explains why the kernel could not execute a file: execve(2)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pytest_bpfmaps.elf.reader import ElfError, open_elf
from pytest_bpfmaps.errors import Explanation, closest, strerror

_MOST = 4096
_MACHINE = slice(18, 20)  # e_machine, elf(5)


def find_command(name: str, env: Mapping[str, str], folders: list[Path]) -> str | None:
    """Returns the path of a command: in ``PATH`` if its name has no slash, else in the first of `folders`."""
    if os.sep not in name:
        return shutil.which(name, os.F_OK, env.get("PATH", os.defpath))
    return next((str(folder / name) for folder in folders if (folder / name).exists()), None)


def explain_missing(name: str, env: Mapping[str, str], folders: list[Path]) -> Explanation:
    """Explains that there is no such command."""
    if os.sep in name:
        places = [folder / name for folder in folders]
        beside = [p.name for place in places if place.parent.is_dir() for p in place.parent.iterdir()]
        fix = closest(Path(name).name, beside)
        return Explanation(
            f"there is no such file in {' or '.join(dict.fromkeys(str(p.parent) for p in places))}",
            fix if "did you mean" in fix else "build it first, or give its path",
        )
    names = [n for part in env.get("PATH", os.defpath).split(os.pathsep) for n in _names_in(part)]
    if " " in name:
        return Explanation("there is no such command in PATH", f"give a list of words: {name.split()!r}")
    near = closest(name, names)
    return Explanation(
        "there is no such command in PATH",
        near if "did you mean" in near else "install the package that has it, or give its path",
    )


def explain_exec(path: str, number: int, *, other_user: bool = False) -> Explanation:
    """Explains an errno of execve(2) by the file at `path`; `other_user` says that it was not run as root."""
    if os.path.isdir(path):
        return Explanation("it is a folder", "give the path of the program in it")
    folders = (*Path(path).absolute().parents, *Path(path).resolve().parents)  # of a link, and of its target
    closed = [folder for folder in folders if not folder.stat().st_mode & 0o001]
    if number == errno.EACCES and other_user and closed:
        return Explanation(
            f"its user may not enter the folder {closed[-1]}",
            f"chmod o+x {closed[-1]}, or copy the program to a folder that others may enter",
        )
    if not os.access(path, os.X_OK) or (number == errno.EACCES and not os.stat(path).st_mode & 0o111):
        return Explanation("it is not executable", f"chmod +x {path}")
    try:
        with open(path, "rb") as file:
            head = file.read(_MOST)
    except OSError as e:
        return Explanation(strerror(e.errno or number))
    if head.startswith(b"#!"):
        return _of_script(head, number)
    if head.startswith(b"\x7fELF"):
        return _of_binary(path, head, number)
    if number == errno.ENOEXEC:
        fix = "begin it with a line such as '#!/bin/sh', or start its interpreter: ['sh', 'script']"
        return Explanation(
            "it is empty" if not head else "it is no ELF file, and does not begin with '#!'", fix
        )
    return Explanation(strerror(number), "check the mount options and the folders of its path")


def _of_script(head: bytes, number: int) -> Explanation:
    line = head[2:].split(b"\n", 1)[0].decode(errors="replace")
    interpreter = line.strip(" \t").split(" ")[0]
    if number == errno.ELOOP:
        why = f"its interpreter {interpreter} is a script, too, and the kernel follows only a few of them"
        return Explanation(why, "name a program that is no script in its first line: #!/bin/sh")
    if not interpreter:
        return Explanation("its first line names no interpreter", "write one there: #!/bin/sh")
    if interpreter.endswith("\r"):
        fix = "give it the line ends of Unix: sed -i 's/\\r$//' FILE"
        return Explanation(
            f"its interpreter is {interpreter!r}: the first line has a line end of Windows", fix
        )
    if not os.path.exists(interpreter):
        fix = f"install {os.path.basename(interpreter)}, or start it with another one: ['sh', 'script']"
        return Explanation(f"its interpreter {interpreter} does not exist", fix)
    why, fix_of_it = explain_exec(interpreter, number)
    return Explanation(f"its interpreter {interpreter} can't be executed: {why}", fix_of_it)


def _of_binary(path: str, head: bytes, number: int) -> Explanation:
    try:
        with open_elf(path) as elf:
            machine = elf.get_machine_arch()
            wanted = next(
                (s.get_interp_name() for s in elf.iter_segments() if s["p_type"] == "PT_INTERP"), ""
            )
    except (ElfError, OSError) as e:
        return Explanation(f"it is a damaged binary: {e}", "build it again")
    with open("/proc/self/exe", "rb") as file:
        is_ours = file.read(_MACHINE.stop)[_MACHINE] == head[_MACHINE]
    if not is_ours:
        own = os.uname().machine
        return Explanation(f"it is a binary for {machine}, and this machine is {own}", f"build it for {own}")
    if wanted and not os.path.exists(wanted):
        library = "musl" if "musl" in wanted else "the C library that it was linked with"
        return Explanation(
            f"its dynamic loader {wanted} does not exist: it was linked with another C library",
            f"install {library}, or link it statically",
        )
    return Explanation(strerror(number), "check the mount options and the folders of its path")


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
