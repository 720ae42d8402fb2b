"""Attaches to functions of programs and libraries: uprobes, one or many at once, and USDT."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.kprobes import NO_FUNCTIONS, check_cookies, returns
from pytest_bpfmaps.attach.links import FdLink
from pytest_bpfmaps.attach.refusals import show_target
from pytest_bpfmaps.attach.uprobe_code import explain_unprobed, find_unprobed, mapped
from pytest_bpfmaps.elf.binaries import find_binary, mapped_files, usdt_names
from pytest_bpfmaps.elf.functions_by_name import Ambiguous, ElfFunctions, Function, elf_functions
from pytest_bpfmaps.elf.ifuncs import NotChosen, chosen_code
from pytest_bpfmaps.elf.reader import ElfError
from pytest_bpfmaps.errors import ENOTSUPP, AttachError, Explanation, closest
from pytest_bpfmaps.libbpf import ffi, lib, opts
from pytest_bpfmaps.libbpf.syscalls import BPF_LINK_CREATE, address, bpf, pack

_TRACE_UPROBE_MULTI, _TRACE_UPROBE_SESSION = 48, 57  # enum bpf_attach_type
_RETURN = 1  # BPF_F_UPROBE_MULTI_RETURN


def to_uprobe(handle: Any, target: Target, on: str) -> Any:
    """Attaches to a function, or to an offset in the file.

    This looks the function up itself. libbpf would attach to the resolver of an IFUNC, and does not accept
    ``name@VERSION``.
    """
    binary, offset = binary_of(target, on), target.get("offset", 0)
    if not target.get("function") and "offset" not in target:
        why = "it names no function of the file"
        raise _refused(target, on, why, 'name one: attach(binary="/bin/bash", function="readline")')
    if target.get("function"):
        binary, place = place_of(binary, target["function"], target, on)
        offset += place
    settings = opts("bpf_uprobe_opts", retprobe=returns(handle, target), bpf_cookie=target.get("cookie", 0))
    with mapped(binary):
        return lib.bpf_program__attach_uprobe_opts(
            handle, process_id(target.get("pid")), os.fsencode(binary), offset, settings
        )


def to_uprobe_multi(handle: Any, target: Target, on: str) -> Any:
    """Attaches to many functions of a binary with one link (Linux 6.6, commit 89ae89f53d20).

    Sessions need Linux 6.13.
    """
    binary, offsets = _places(binary_of(target, on), target, on)
    cookies = check_cookies(target.get("cookies"), len(offsets), on)

    def link(places: list[int], cookies: list[int] | None = None) -> int:
        return _link_many(handle, binary, places, cookies, target)

    with mapped(binary):
        try:
            return FdLink(link(offsets, cookies), on)
        except OSError as e:
            if e.errno != ENOTSUPP:
                raise
            place = find_unprobed(offsets, link)
    name = _name_at(binary, place, target, on)
    raise _refused(target, on, *explain_unprobed(binary, place, name), number=errno.EOPNOTSUPP)


def _link_many(
    handle: Any, binary: Path, offsets: list[int], cookies: list[int] | None, target: Target
) -> int:
    """Returns the descriptor of a link to these offsets in a file. Raises OSError."""
    attach_type = lib.bpf_program__expected_attach_type(handle)
    if attach_type != _TRACE_UPROBE_SESSION:
        attach_type = _TRACE_UPROBE_MULTI
    path = ffi.new("char[]", os.fsencode(binary))
    places = ffi.new("unsigned long[]", offsets)
    numbers = ffi.new("uint64_t[]", cookies) if cookies else ffi.NULL
    attributes = pack(
        ("I", lib.bpf_program__fd(handle)),
        ("I", 0),
        ("I", attach_type),
        ("I", 0),
        ("Q", address(path)),
        ("Q", address(places)),
        ("Q", 0),
        ("Q", address(numbers)),
        ("I", len(offsets)),
        ("I", _RETURN if returns(handle, target) else 0),
        ("I", max(process_id(target.get("pid")), 0)),
        ("I", 0),
    )
    return bpf(BPF_LINK_CREATE, attributes)


def _name_at(binary: Path, offset: int, target: Target, on: str) -> str:
    """Returns the name of the function that the target has at an offset in the file."""
    functions = target["functions"]
    if isinstance(functions, str):
        file = _functions(binary, target, on)
        functions = [f.name for f in file.matching(functions) if not f.is_ifunc]
    return next((n for n in functions if place_of(binary, n, target, on) == (binary, offset)), "a function")


def to_usdt(handle: Any, target: Target, on: str) -> Any:
    provider, _, name = target["usdt"].partition(":")
    binary = binary_of(target, on)
    settings = opts("bpf_usdt_opts", usdt_cookie=target.get("cookie", 0))
    return lib.bpf_program__attach_usdt(
        handle, process_id(target.get("pid")), os.fsencode(binary), provider.encode(), name.encode(), settings
    )


def binary_of(target: Target, on: str) -> Path:
    """Returns the file that the target names. Raises `AttachError` if there is none."""
    pid = process_id(target.get("pid"))
    found = find_binary(target["binary"], pid if pid > 0 else None)
    if found is None:
        raise AttachError(
            f"cannot attach {on}",
            on=f"to binary={str(target['binary'])!r}",
            why="there is no such file, and no library of that name is loaded here"
            if "/" not in os.fspath(target["binary"])
            else "there is no such file",
            fix=_like(target["binary"]),
            errno=errno.ENOENT,
        )
    return found


def _like(binary: str | os.PathLike[str]) -> str:
    """Returns advice with similar names: of loaded libraries, and for a path of files in its folder."""
    path = Path(binary)
    beside = [p.name for p in path.parent.iterdir()] if "/" in str(binary) and path.parent.is_dir() else []
    near = get_close_matches(path.name, {*(p.name for p in mapped_files()), *beside}, n=3, cutoff=0.7)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return "give the path of a program or library, or the name of one that is loaded here: 'libc'"


def place_of(binary: Path, name: str, target: Target, on: str) -> tuple[Path, int]:
    """Returns the file and the offset in it of the function that a process calls by that name.

    The name may be ``name@VERSION``. Raises `AttachError` for a name that does not exist, for a name that
    several functions have, and for an IFUNC whose code is not known yet.
    """
    file = _functions(binary, target, on)
    try:
        function = file.find(name)
    except Ambiguous as e:
        raise _refused(target, on, *_ambiguous(binary, file, name, e.functions)) from None
    if function is None:
        raise _refused(target, on, *_no_function(binary, file, name), number=errno.ENOENT)
    if not function.is_ifunc:
        return binary, file.offset(function.address)
    try:
        return _followed(binary, function, target)
    except NotChosen as e:
        why = f"{name!r} is an IFUNC: its resolver chooses the code when a program starts, and {e}"
        raise _refused(target, on, why, _instead(file, name)) from None


def _followed(binary: Path, function: Function, target: Target) -> tuple[Path, int]:
    pid = process_id(target.get("pid"))
    return chosen_code(binary, function, pid if pid > 0 else None)


def _functions(binary: Path, target: Target, on: str) -> ElfFunctions:
    try:
        found = elf_functions(binary)
    except (ElfError, OSError) as e:
        is_other = isinstance(e, IsADirectoryError) or "no ELF" in str(e)
        fix = "name the program itself, not a script or a folder" if is_other else None
        why = f"{binary}: {e.strerror}" if isinstance(e, OSError) else str(e)
        raise _refused(target, on, why, fix, number=errno.ENOEXEC) from None
    if not found.is_program:
        why = f"{binary} is an object that is not linked yet, which no process runs"
        raise _refused(target, on, why, "name the program or library that it is linked into")
    return found


def _refused(target: Target, on: str, why: str, fix: str | None, number: int = errno.EINVAL) -> AttachError:
    return AttachError(f"cannot attach {on}", on=show_target(target), why=why, fix=fix, errno=number)


def _ambiguous(binary: Path, file: ElfFunctions, name: str, functions: list[Function]) -> Explanation:
    if any(f.version for f in functions):
        versions = file.versions(name)
        why = f"{binary} has {', '.join(versions)}, none of them the default version"
        return Explanation(why, f"name the version: function={versions[0]!r}")
    places = [f"{f.source or 'a file'} at offset {file.offset(f.address):#x}" for f in functions]
    first = file.offset(functions[0].address)
    return Explanation(
        f"{binary} has {len(functions)} functions {name!r}: in {', in '.join(places)}",
        f"give the place instead of the name: attach(binary=…, offset={first:#x})",
    )


def _no_function(binary: Path, file: ElfFunctions, name: str) -> Explanation:
    base = name.partition("@")[0]
    if not file.has_names():
        return Explanation(
            f"{binary} has no symbols",
            "install its debug symbols, or give a file offset: attach(binary=…, offset=…)",
        )
    if versions := file.versions(base):
        return Explanation(f"{binary} has no function {name!r}", f"there are: {', '.join(versions)}")
    if parts := [part for part in file.starting(f"{base}.") if ".cold" not in part]:
        return Explanation(
            f"the compiler made {', '.join(map(repr, parts[:3]))} of {name!r}",
            "use that name; parts of the function may be inlined elsewhere",
        )
    return Explanation(f"{binary} has no function {name!r}", file.closest(name))


def _instead(file: ElfFunctions, name: str) -> str:
    base = name.partition("@")[0]
    near = [n for n in file.having(base) if n != base and not n.endswith(("_chk", "_ifunc"))]
    some = f", such as {near[0]!r}" if near else ""
    return f"attach when the program runs, with pid=; or name the code that is chosen{some}"


def explain_missing(target: Target, number: int) -> Explanation | None:
    """Explains which part of the target does not exist: a USDT in a binary, or the process."""
    binary = find_binary(target["binary"])
    if "usdt" in target and binary is not None:
        try:
            known = usdt_names(binary)
        except ElfError as e:
            return Explanation(str(e), None)
        if target["usdt"] not in known:
            return Explanation(f"{binary} has no USDT {target['usdt']!r}", closest(target["usdt"], known))
    if (
        number in (errno.ESRCH, errno.ENOENT)
        and "pid" in target
        and not os.path.exists(f"/proc/{process_id(target['pid'])}")
    ):
        return Explanation(f"there is no process {target['pid']}", None)
    if "usdt" not in target and "functions" not in target and number == ENOTSUPP and binary is not None:
        name = target.get("function")
        binary, place = place_of(binary, name, target, "") if name else (binary, 0)
        return explain_unprobed(binary, place + target.get("offset", 0))
    if "usdt" in target and number == errno.ENOTSUP and "pid" not in target:
        return Explanation(
            "the kernel has no cookies for uprobes (they came with Linux 5.15), so libbpf needs the process",
            "attach when it runs: attach(binary=…, usdt=…, pid=…)",
        )
    if "usdt" in target and number == errno.ESRCH:
        return Explanation(
            "its semaphore is in no segment: prelink(8) moved it, and left the old address in the note",
            "attach to a file that is not prelinked: prelink --undo FILE",
        )
    return None


def _places(binary: Path, target: Target, on: str) -> tuple[Path, list[int]]:
    """Returns the file, and the offset in it of each function; for a pattern, no offset comes twice."""
    functions = target["functions"]
    if not isinstance(functions, str):
        places = [place_of(binary, str(name), target, on) for name in functions]
        if not places:
            raise AttachError(f"cannot attach {on}", on=show_target(target), **NO_FUNCTIONS)
    elif not set(functions) & set("*?["):
        places = [place_of(binary, functions, target, on)]
    else:
        places = list(dict.fromkeys(_matching(binary, functions, target, on)))
    files = {file for file, _ in places}
    if len(files) > 1:
        why = f"these functions are in {len(files)} files: {', '.join(sorted(map(str, files)))}"
        raise _refused(target, on, why, "attach to the functions of each file by themselves")
    return next(iter(files)), [offset for _, offset in places]


def _matching(binary: Path, pattern: str, target: Target, on: str) -> Iterator[tuple[Path, int]]:
    file = _functions(binary, target, on)
    matching = file.matching(pattern)
    if not matching:
        raise _refused(target, on, "it has no such function", file.closest(pattern), number=errno.ENOENT)
    left_out = []
    for function in matching:
        if not function.is_ifunc:
            yield binary, file.offset(function.address)
            continue
        try:
            yield _followed(binary, function, target)
        except NotChosen as e:
            left_out.append(f"{function}: {e}")
    if len(left_out) == len(matching):
        why = f"all functions that fit are IFUNCs whose code is not known: {'; '.join(left_out)}"
        raise _refused(target, on, why, "attach when the program runs, with pid=; or name one function")
    if left_out:
        warnings.warn(
            f"{on} is not attached to these IFUNCs that fit {pattern!r}: {'; '.join(left_out)}", stacklevel=2
        )


def process_id(process: Any) -> int:
    """Returns the id of a process: a number, or an object with a `pid`, such as `subprocess.Popen`.

    For None it returns -1, which means all processes.
    """
    return -1 if process is None else int(getattr(process, "pid", process))
