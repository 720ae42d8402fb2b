"""Programs of an object that is opened, but not loaded yet."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import cache
from typing import Any

from pytest_bpfmaps.attach.missing_targets import explain_not_in_program
from pytest_bpfmaps.attach.module_functions import can_choose, choose, forget, too_new
from pytest_bpfmaps.attach.section_targets import kind, teach_unknown
from pytest_bpfmaps.errors import LoadError, NameLookupError, closest
from pytest_bpfmaps.kernel.attach_names import explain_no_type
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.duplicate_symbols import explain_not_there, explain_untyped
from pytest_bpfmaps.libbpf import check, lib, to_str
from pytest_bpfmaps.programs.program import Program

_SETTINGS = ("type", "expected_attach_type", "flags", "ifindex", "autoload")


@cache
def attach_types() -> list[str]:
    """Returns libbpf's names of ``enum bpf_attach_type``; the index is the number."""
    names: list[str] = []
    while name := to_str(lib.libbpf_bpf_attach_type_str(len(names))):
        names.append(name)
    return names


class ProgramSpec:
    """A program of an object that is opened, but not loaded yet."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        forget(handle)  # what was chosen for an earlier program at this address
        self._ifindex = 0
        self.changed: dict[str, int] = {}  # what was set, by libbpf's names
        self.target: tuple[str, Program | None] | None = None
        self.name = to_str(lib.bpf_program__name(handle))
        self.section = to_str(lib.bpf_program__section_name(handle))
        self.taught_section = teach_unknown(handle) or too_new(self.section)

    @property
    def type(self) -> ProgramType | int:
        """Its ``enum bpf_prog_type``, from the section's name; can be set, by number or name (``"xdp"``)."""
        return ProgramType.from_number(lib.bpf_program__type(self.handle))

    @type.setter
    def type(self, wanted: ProgramType | int | str) -> None:
        number = ProgramType.from_name(wanted) if isinstance(wanted, str) else wanted
        if number is None:
            known = map(str, ProgramType)
            raise NameLookupError("no program type", on=repr(wanted), fix=closest(str(wanted), known))
        self._set("type", number)

    @property
    def expected_attach_type(self) -> str | int:
        """Its ``enum bpf_attach_type`` as libbpf names it, ``"xdp_devmap"``; can be set, also by number."""
        number = int(lib.bpf_program__expected_attach_type(self.handle))
        return to_str(lib.libbpf_bpf_attach_type_str(number)) or number

    @expected_attach_type.setter
    def expected_attach_type(self, wanted: str | int) -> None:
        if isinstance(wanted, str):
            names = attach_types()
            name = wanted.lower().removeprefix("bpf_")
            if name not in names:
                raise NameLookupError("no attach type", on=repr(wanted), fix=closest(name, names))
            wanted = names.index(name)
        self._set("expected_attach_type", wanted)

    @property
    def flags(self) -> int:
        """The flags ``BPF_F_*`` of the load, such as ``BPF_F_SLEEPABLE``; can be set."""
        return int(lib.bpf_program__flags(self.handle))

    @flags.setter
    def flags(self, flags: int) -> None:
        self._set("flags", flags)

    @property
    def ifindex(self) -> int:
        """The index of the interface that it is loaded for; 0 for any; can be set.

        The interface is in this thread's network namespace. With ``BPF_F_XDP_DEV_BOUND_ONLY`` (64) in `flags`
        the program runs on the CPU, and may call the metadata kfuncs of that interface's driver (Linux 6.3).
        Without that flag it is for the interface's hardware.
        """
        return self._ifindex

    @ifindex.setter
    def ifindex(self, index: int) -> None:
        lib.bpf_program__set_ifindex(self.handle, index)
        self._ifindex = index

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Sets `type`, `expected_attach_type`, `flags`, `ifindex`, `autoload` by name.

        Raises `NameLookupError` for another name, and `LoadError` for a value that libbpf refuses.
        """
        for name, value in settings.items():
            if name not in _SETTINGS:
                raise NameLookupError("no setting", on=f"{name!r} of {self}", fix=closest(name, _SETTINGS))
            setattr(self, name, value)

    def _set(self, name: str, value: int) -> None:
        """Calls libbpf's setter of that name."""
        what, on = f"cannot set {name}={value}", f"of {self}"
        check(getattr(lib, f"bpf_program__set_{name}")(self.handle, value), LoadError, what, on=on)
        self.changed[name] = value

    def set_as(self, other: ProgramSpec) -> None:
        """Copies all settings that were changed in `other`, a program of the same source."""
        for name, value in other.changed.items():
            self._set(name, value)
        if other.ifindex:
            self.ifindex = other.ifindex
        if other.target is not None:
            self.set_attach_target(*other.target)

    @property
    def autoload(self) -> bool:
        """Whether loading the object loads this program."""
        return bool(lib.bpf_program__autoload(self.handle))

    @autoload.setter
    def autoload(self, wanted: bool) -> None:
        self._set("autoload", wanted)

    def set_attach_target(self, function: str, target: Program | None = None) -> None:
        """Sets the function that it is loaded for: a kernel function, or one of the loaded program `target`.

        This is for fentry, fexit, fmod_ret, LSM, tp_btf and freplace. freplace needs it, because its section
        can't name the program. SEC("fentry"), SEC("fexit") and SEC("fmod_ret") take ``MODULE:FUNCTION``, too,
        and ``vmlinux:FUNCTION`` for a function of the kernel itself. Raises `LoadError` with errno.
        """
        what, on = f"cannot set the target {function!r} of", str(self)
        forget(self.handle)
        if ":" in function and target is None:
            self._choose(function, what, on)
            return
        fd = target.fd if target else 0
        result = lib.bpf_program__set_attach_target(self.handle, fd, function.encode())
        if result in (-errno.ESRCH, -errno.ENOENT) and target is None:
            why, fix = explain_untyped(function) or explain_no_type(kind(self.section), function)
            raise LoadError(what, on=on, why=why, fix=fix, errno=-result)
        if result and target and (absent := explain_not_in_program(function, target)):
            raise LoadError(what, on=on, why=absent.why, fix=absent.fix, errno=-result)
        check(result, LoadError, what, on=on)
        self.target = function, target

    def _choose(self, function: str, what: str, on: str) -> None:
        if not can_choose(self.section):
            why = f'libbpf looks up the function of SEC("{self.section}") by its name alone'
            fix = f'write SEC("{kind(self.section)}"), without a target'
            raise LoadError(what, on=on, why=why, fix=fix, errno=errno.EINVAL)
        if not choose(self.handle, function):
            absent = explain_not_there(function)
            raise LoadError(what, on=on, why=absent.why, fix=absent.fix, errno=errno.ESRCH)
        self.target = function, None

    def __repr__(self) -> str:
        return f"<program {self.name!r} ({self.section})>"

    def __str__(self) -> str:
        return f"program {self.name!r} ({self.section})"
