"""Makes libbpf load fentry programs for the function of one module, ``fentry/MODULE:FUNCTION``.

libbpf before 1.5 does not know that notation. Later versions take any module whose name begins with MODULE:
for ``raid1:f`` they may choose the function of raid10. So the function is looked up here for every version.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.probe_programs import SLEEPABLE
from pytest_bpfmaps.kernel.vmlinux_btf import FUNC, NoTypesError, in_modules, type_id, vmlinux_btf
from pytest_bpfmaps.libbpf import ffi, lib, opts, to_str, version
from pytest_bpfmaps.libbpf.log import add_message

KERNEL = "vmlinux"
"""What stands in place of a module's name for a function of the kernel itself."""
ATTACH_TYPES = {"fentry": 24, "fexit": 25, "fmod_ret": 26}  # enum bpf_attach_type
_SINCE = (1, 5)
_NAMED = re.compile(rb"(?:fentry|fexit|fmod_ret)(?:\.s)?(?:/[\w-]+:[\w.$]+)?\0")
_NO_TARGET = "no BTF-based attach target is specified, use bpf_program__set_attach_target()"
_callbacks: list[Any] = []  # cffi callbacks must outlive the library that calls them
_chosen: dict[int, str] = {}  # address of a program's handle: the target that `choose` set
_open: list[int] = []  # descriptor of the BTF of the latest program's module; the load needs it open


def handle_sections(data: bytes) -> None:
    """Registers handlers with libbpf that look targets up here, if the object file `data` may need them.

    libbpf takes a section's handler when it opens an object. So the caller calls this before that.
    """
    if _callbacks or not _NAMED.search(data):
        return
    _callbacks.append(ffi.callback("libbpf_prog_prepare_load_fn_t", _prepare, error=-errno.EINVAL))
    for kind, attach_type in ATTACH_TYPES.items():
        for name, flags in ((f"{kind}+", 0), (f"{kind}.s+", SLEEPABLE)):
            settings = opts("libbpf_prog_handler_opts", cookie=flags, prog_prepare_load_fn=_callbacks[0])
            lib.libbpf_register_prog_handler(name.encode(), ProgramType.TRACING, attach_type, settings)


def choose(handle: Any, target: str) -> bool:
    """Sets the target of an opened program, ``MODULE:FUNCTION``; False if there is no such function."""
    found = _find(target)
    if found is None:
        return False
    if found[1]:
        os.close(found[1])
    _chosen[_address(handle)] = target
    return True


def forget(handle: Any) -> None:
    """Forgets the target that `choose` set. Its section, or libbpf's own setting, decides again."""
    _chosen.pop(_address(handle), None)


def load_object(handle: Any) -> int:
    """Loads an object by libbpf, and returns libbpf's result: 0, or a negative errno."""
    try:
        return int(lib.bpf_object__load(handle))
    finally:
        _close_types()


def can_choose(section: str) -> bool:
    """Returns whether `choose` works for a program of that section."""
    return _NAMED.fullmatch(section.lstrip("?").encode() + b"\0") is not None


def too_new(section: str) -> tuple[str, str] | None:
    """Returns what is wrong with a section that this libbpf does not know, and what to write; else None."""
    if version() >= _SINCE or ":" not in section or not can_choose(section):
        return None
    known = "libbpf {}.{}".format(*version())
    return f'SEC("{section}") is newer than {known}, which refuses it', "use libbpf 1.5 or later"


def _prepare(program: Any, settings: Any, flags: int) -> int:
    _close_types()
    settings.prog_flags |= flags
    target = _chosen.pop(_address(program), "")
    if settings.attach_btf_id and not target:
        return 0  # the target was set by libbpf's own function, and libbpf has found its type
    target = target or to_str(lib.bpf_program__section_name(program)).partition("/")[2]
    found = _find(target) if target else None
    if found is None:
        what = f"failed to find kernel BTF type ID of '{target}': -3" if target else _NO_TARGET
        add_message(f"prog '{to_str(lib.bpf_program__name(program))}': {what}\n")
        return -errno.ESRCH if target else -errno.EINVAL
    settings.attach_btf_id, settings.attach_btf_obj_fd = found
    if found[1]:
        _open.append(found[1])
    return 0


def _find(target: str) -> tuple[int, int] | None:
    """Returns the id of a function's type, and a descriptor of its module's BTF (0: of the kernel itself)."""
    module, _, function = target.rpartition(":")
    try:
        number = type_id(vmlinux_btf(), function, FUNC) if module in ("", KERNEL) else 0
        if number:
            return number, 0
        found = None if module == KERNEL else next(in_modules(function, FUNC, module), None)
    except NoTypesError:
        return None
    return found


def _close_types() -> None:
    while _open:
        os.close(_open.pop())


def _address(handle: Any) -> int:
    return int(ffi.cast("uintptr_t", handle))
