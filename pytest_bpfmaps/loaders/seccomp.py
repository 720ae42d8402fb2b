"""Makes a seccomp filter of a container's profile, in the format of Docker, Podman, containerd and the OCI.

libseccomp compiles it, as it does for container runtimes. Source: the OCI runtime specification
(config-linux.md, "Seccomp"), Docker's profile format (``includes``, ``excludes``, ``archMap``), seccomp(2).
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import Explanation, LoaderError, closest, strerror
from pytest_bpfmaps.kernel.release import version
from pytest_bpfmaps.libbpf import ffi, lib

Profile = Mapping[str, Any] | str | PathLike[str]

_DECLARATIONS = """
struct scmp_arg_cmp { unsigned int arg; int op; uint64_t datum_a; uint64_t datum_b; };
void *seccomp_init(uint32_t def_action);
void seccomp_release(void *ctx);
uint32_t seccomp_arch_resolve_name(const char *arch_name);
int seccomp_arch_add(void *ctx, uint32_t arch_token);
int seccomp_attr_set(void *ctx, int attr, uint32_t value);
int seccomp_syscall_resolve_name(const char *name);
int seccomp_rule_add_array(void *ctx, uint32_t action, int syscall, unsigned int arg_cnt,
                           const struct scmp_arg_cmp *arg_array);
uint32_t seccomp_arch_native(void);
char *seccomp_syscall_resolve_num_arch(uint32_t arch_token, int num);
int seccomp_export_bpf(void *ctx, int fd);
struct sock_fprog { unsigned short len; void *filter; };
"""
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_ERRNO = "SCMP_ACT_ERRNO"
_ALLOWING = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
_COMPARISONS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # enum scmp_compare, from 1
_UNKNOWN = -1  # __NR_SCMP_ERROR
_INSTRUCTION = 8  # bytes of a struct sock_filter
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _MODE_FILTER = 38, 22, 2  # prctl(2)
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}  # as `includes.arches` has them


@dataclass(frozen=True, slots=True)
class SeccompFilter:
    """The instructions of a filter.

    `actions` has the action of each system call that a rule names, if the rule is for all arguments, or
    allows some. Other calls have the action `default`. `more` has, by system call, the capabilities with
    which a rule would allow the call that does not apply now. `install` may be called after a fork: it only
    calls the kernel.
    """

    name: str
    actions: Mapping[str, str]
    default: str
    more: Mapping[str, set[str]]
    _memory: Any
    _program: Any

    def refuses(self, syscall: str) -> bool:
        """Returns whether the profile refuses that system call, whatever its arguments."""
        return self.actions.get(syscall, self.default) not in _ALLOWING

    def install(self) -> None:
        """Installs the filter for this thread, and for all that it will execute. Raises OSError.

        Without CAP_SYS_ADMIN the kernel requires ``no_new_privs``; then this sets it.
        """
        number = self._install()
        if number == errno.EACCES:
            lib.prctl(_SET_NO_NEW_PRIVS, *_longs(1))
            number = self._install()
        if number:
            raise OSError(number, os.strerror(number))

    def _install(self) -> int:
        where = int(_ffi().cast("uintptr_t", self._program))
        return int(ffi.errno) if lib.prctl(_SET_SECCOMP, *_longs(_MODE_FILTER, where)) < 0 else 0


def seccomp_filter(profile: Profile, has_capability: Callable[[str], bool]) -> SeccompFilter:
    """Returns the filter of a profile, a mapping or the path of a JSON file.

    `has_capability` says whether the process will have a capability such as ``CAP_BPF``; rules that are for
    some capabilities ask it. Raises `LoaderError` for what is no such profile, and without libseccomp.
    """
    name, facts = _read(profile)
    try:
        return _compiled(name, facts, has_capability)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        said = f"it has no {e}" if isinstance(e, KeyError) else str(e)
        raise _wrong(name, said) from e


def refused_by(seccomp: SeccompFilter | None, *syscalls: str) -> Explanation | None:
    """Explains that a profile refuses one of the system calls; None if it refuses none of them."""
    refused = [each for each in syscalls if seccomp is not None and seccomp.refuses(each)]
    if seccomp is None or not refused:
        return None
    caps = sorted(each.removeprefix("CAP_") for each in seccomp.more.get(refused[0], ()))
    by = f", or give {' or '.join(caps)} by caps=, for which it allows {refused[0]}" if caps else ""
    return Explanation(
        f"its seccomp profile, {seccomp.name}, refuses {refused[0]}(2)",
        f"allow {' and '.join(refused)} there{by}",
    )


def explain_kill(seccomp: SeccompFilter, number: int | None) -> Explanation:
    """Explains that the filter ended a process for system call `number`, if that is known."""
    which = "a system call" if number is None else f"{_syscall_name(number)}(2)"
    fix = "allow it there; the action SCMP_ACT_LOG lets a call through, and the kernel's log has its number"
    return Explanation(f"its seccomp profile, {seccomp.name}, forbids {which}", fix)


def _syscall_name(number: int) -> str:
    native = _libseccomp().seccomp_arch_native()
    found = _libseccomp().seccomp_syscall_resolve_num_arch(native, number)
    if found == _ffi().NULL:
        return f"system call {number}"
    try:
        return str(_ffi().string(found).decode())
    finally:
        lib.free(ffi.cast("void *", int(_ffi().cast("uintptr_t", found))))


def _read(profile: Profile) -> tuple[str, Mapping[str, Any]]:
    if isinstance(profile, Mapping):
        return "the mapping", profile
    name = os.fspath(profile)
    try:
        facts = json.loads(Path(name).read_bytes())
    except OSError as e:
        raise _wrong(name, strerror(e.errno or 0), "give the path of a JSON file, or a mapping") from e
    except (ValueError, RecursionError) as e:
        raise _wrong(name, f"it is no JSON: {e}") from e
    if not isinstance(facts, dict):
        raise _wrong(name, f"it is a {type(facts).__name__}, not an object")
    return name, facts


def _wrong(name: str, why: str, fix: str = "see the format in the OCI runtime specification") -> LoaderError:
    return LoaderError("cannot use a seccomp profile", on=name, why=why, fix=fix)


def _compiled(name: str, facts: Mapping[str, Any], has: Callable[[str], bool]) -> SeccompFilter:
    default = _action(facts["defaultAction"], facts.get("defaultErrnoRet"))
    with _Compiler(default) as compiler:
        compiler.add_architectures(facts)
        actions: dict[str, str] = {}
        more: dict[str, set[str]] = {}
        for rule in facts.get("syscalls") or []:
            names = rule["names"] if "names" in rule else [rule["name"]]
            if not _applies(rule, has):
                if rule["action"] in _ALLOWING and _applies(rule, lambda _: True):
                    for syscall in names:
                        more.setdefault(syscall, set()).update(rule["includes"]["caps"])
                continue
            action, conditions = _action(rule["action"], rule.get("errnoRet")), _conditions(rule)
            for syscall in names:
                compiler.add(action, syscall, conditions)
                if not conditions or rule["action"] in _ALLOWING:  # with conditions some calls are allowed
                    actions.setdefault(syscall, rule["action"])
        memory, count = compiler.instructions()
    program = _ffi().new("struct sock_fprog *", (count, memory))
    return SeccompFilter(name, actions, facts["defaultAction"], more, memory, program)


def _action(name: str, number: int | None) -> int:
    if name not in _ACTIONS:
        raise ValueError(f"it has an action that is not known here, {name!r}; {closest(name, _ACTIONS)}")
    return _ACTIONS[name] | ((errno.EPERM if number is None else number & 0xFFFF) if name == _ERRNO else 0)


def _applies(rule: Mapping[str, Any], has: Callable[[str], bool]) -> bool:
    """Returns whether a rule is for this machine, kernel and process."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    machine = _GO_NAMES.get(os.uname().machine, os.uname().machine)
    wanted = includes.get("arches") or [machine]
    return (
        machine in wanted
        and machine not in (excludes.get("arches") or [])
        and all(has(each) for each in includes.get("caps") or [])
        and not any(has(each) for each in excludes.get("caps") or [])
        and _is_as_new_as(includes.get("minKernel", "0.0"))
        and not ("minKernel" in excludes and _is_as_new_as(excludes["minKernel"]))
    )


def _is_as_new_as(release: str) -> bool:
    found = re.fullmatch(r"(\d+)\.(\d+)", release)
    if not found:
        raise ValueError(f"it has a minKernel that is no version such as '4.8': {release!r}")
    return version()[:2] >= (int(found[1]), int(found[2]))


def _conditions(rule: Mapping[str, Any]) -> list[list[tuple[int, int, int, int]]]:
    """Returns the conditions on arguments: one of the lists must hold, and in a list all must hold.

    Several conditions on one argument are alternatives, as container runtimes have it.
    """
    found = []
    for each in rule.get("args") or []:
        operator = str(each["op"]).removeprefix("SCMP_CMP_")
        if operator not in _COMPARISONS:
            raise ValueError(f"it has an operator that is not known here, {each['op']!r}")
        values = int(each["value"]), int(each.get("valueTwo") or 0)
        found.append((int(each["index"]), _COMPARISONS.index(operator) + 1, *values))
    several = len({each[0] for each in found}) < len(found)
    return [[each] for each in found] if several else [found] if found else []


class _Compiler:
    """A filter of libseccomp while it is made; use it with ``with``."""

    def __init__(self, default: int) -> None:
        self._default = default
        self._library, self._ffi = _libseccomp(), _ffi()

    def __enter__(self) -> _Compiler:
        self._filter = self._library.seccomp_init(self._default)
        if self._filter == self._ffi.NULL:
            raise ValueError("libseccomp refuses its default action")
        return self

    def __exit__(self, *_: object) -> None:
        self._library.seccomp_release(self._filter)

    def add_architectures(self, facts: Mapping[str, Any]) -> None:
        """Adds the architectures that the profile names, besides this machine's."""
        for name in _architectures(facts):
            token = self._library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            if not token:
                raise ValueError(f"it has an architecture that libseccomp does not know, {name!r}")
            self._check(self._library.seccomp_arch_add(self._filter, token), name, allowed=errno.EEXIST)

    def add(self, action: int, syscall: str, conditions: list[list[tuple[int, int, int, int]]]) -> None:
        """Adds what happens on a system call. One that this libseccomp does not know is left out."""
        number = self._library.seccomp_syscall_resolve_name(syscall.encode())
        if number == _UNKNOWN or action == self._default:
            return
        for each in conditions or [[]]:
            given = self._ffi.new("struct scmp_arg_cmp[]", each) if each else self._ffi.NULL
            added = self._library.seccomp_rule_add_array(self._filter, action, number, len(each), given)
            self._check(added, syscall, allowed=errno.EEXIST)

    def instructions(self) -> tuple[Any, int]:
        """Returns the memory of the filter's instructions, and their number."""
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        with open(fd, "rb") as file:
            self._check(self._library.seccomp_export_bpf(self._filter, fd), "the filter")
            file.seek(0)
            code = file.read()
        return self._ffi.new("char[]", code), len(code) // _INSTRUCTION

    def _check(self, result: int, name: str, allowed: int = 0) -> None:
        if result < 0 and -result != allowed:
            raise ValueError(f"libseccomp refuses {name}: {strerror(-result)}")


def _architectures(facts: Mapping[str, Any]) -> Iterator[str]:
    yield from facts.get("architectures") or []
    for each in facts.get("archMap") or []:
        if each["architecture"].removeprefix("SCMP_ARCH_").lower() == os.uname().machine:
            yield from each.get("subArchitectures") or []


@cache
def _ffi() -> Any:
    from cffi import FFI

    ffi: Any = FFI()
    ffi.cdef(_DECLARATIONS)
    return ffi


@cache
def _libseccomp() -> Any:
    try:
        return _ffi().dlopen("libseccomp.so.2")
    except OSError as e:
        fix = "install libseccomp2 (Debian, Ubuntu) or libseccomp (Fedora)"
        raise _wrong("libseccomp.so.2", "libseccomp, which compiles it, is not installed", fix) from e


def _longs(*numbers: int) -> list[Any]:
    return [ffi.cast("unsigned long", number) for number in (*numbers, 0, 0, 0, 0)[:4]]
