"""Probes whether this kernel has a feature, for this process; it never guesses from the version."""

from __future__ import annotations

import errno
import gzip
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_bpfmaps.errors import UnsupportedError, closest, strerror
from pytest_bpfmaps.kernel.attach_points import probe_target
from pytest_bpfmaps.kernel.bpf_types import COMMANDS, MapType, ProgramType
from pytest_bpfmaps.kernel.known_names import is_recorded_helper
from pytest_bpfmaps.kernel.probe_functions import may_call_helper, may_call_kfunc
from pytest_bpfmaps.kernel.probe_maps import try_map
from pytest_bpfmaps.kernel.probe_programs import Verdict, try_type
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.kernel.section_names import SECTIONS, TARGETED
from pytest_bpfmaps.kernel.symbol_changes import loaded_modules
from pytest_bpfmaps.kernel.vmlinux_btf import (
    FUNC,
    STRUCT,
    NoTypesError,
    enumerators,
    has_type,
    type_id,
    vmlinux_btf,
)
from pytest_bpfmaps.libbpf.syscalls import BPF_TOKEN_CREATE, bpf, pack

UNLISTED = "the kernel's BTF does not list it"
NO_KFUNC = "this kernel has the function, but not as a kfunc"
REFUSED = "the kernel refuses it"
_IN_MODULES = ("attach", "kfunc", "function", "struct_ops")  # a module that is loaded may bring them


@dataclass(frozen=True, slots=True)
class Feature:
    """The answer of a probe: the feature's name, whether it is present, and if not, why."""

    name: str
    present: bool
    why: str = ""

    def __bool__(self) -> bool:
        return self.present


def probe(kind: str, name: str) -> Feature:
    """Probes one feature.

    `kind` is ``map_type``, ``program_type``, ``helper``, ``kfunc``, ``function`` (a helper or a kfunc),
    ``command``, ``config``, ``struct_ops`` or ``attach``. Raises `UnsupportedError` for any other kind, for a
    map type or program type that is not in <linux/bpf.h>, and for a section that ends with a slash.
    """
    asked = _PROBES.get(kind)
    if asked is None:
        raise UnsupportedError("cannot probe", on=f"{kind!r}", why="no such kind", fix=closest(kind, _PROBES))
    return _probe(asked, name, loaded_modules() if kind in _IN_MODULES else None)


def probe_any(name: str) -> Feature:
    """Probes a feature whose kind is found by its name: see `kind_of`."""
    return probe(*asked_for(name))


def asked_for(name: str) -> tuple[str, str]:
    """Returns kind and name of a feature that may be written with its kind: ``map_type:ringbuf``.

    See `kind_of` for a name without a kind. Raises `UnsupportedError` for what is no text, and for
    ``struct_ops/NAME``, which asks for nothing.
    """
    if not isinstance(name, str):
        raise UnsupportedError(
            "cannot probe",
            on=repr(name),
            why=f"it is {type(name).__name__}, not the name of a feature",
            fix='give names one by one: "xdp", "ringbuf"',
        )
    if match := re.match(r"\??struct_ops(?:\.s)?/(.+)", name):
        raise UnsupportedError(
            "cannot probe",
            on=repr(name),
            why="libbpf ignores what follows the slash, so this does not tell what the kernel must have",
            fix=f"write 'struct_ops:{match[1]}' if the kernel must register that struct, else 'struct_ops'",
        )
    kind, _, rest = name.partition(":")
    return (kind, rest) if rest and kind in _PROBES else (kind_of(name), name)


def kind_of(name: str) -> str:
    """Returns the kind of a feature, by its name.

    ``CONFIG_X`` is ``config``. A name with a slash is ``attach``, written as in ``SEC()``. So is a section
    such as ``kprobe``, which needs more than a program type. ``bpf_x`` is ``function``: a helper or a kfunc.
    Other names are those of a map type or program type, ``ringbuf`` or ``xdp``, of a command of bpf(2),
    ``token_create``, or of any other section, ``tc``.
    Raises `UnsupportedError` for a name that is none of these.
    """
    if name.startswith("CONFIG_"):
        return "config"
    if "/" in name or (name in TARGETED and name not in ("struct_ops", "freplace")):
        return "attach"
    if name.startswith("bpf_"):
        return "function"
    if MapType.from_name(name):
        return "map_type"
    if ProgramType.from_name(name):
        return "program_type"
    if name in COMMANDS:
        return "command"
    if name in SECTIONS:
        return "attach"
    known = [*SECTIONS, *COMMANDS, *(str(t) for t in (*MapType, *ProgramType))]
    raise UnsupportedError(
        "cannot probe",
        on=repr(name),
        why="it is not a map type, program type, helper, kfunc, command, CONFIG_ option or attach point",
        fix=closest(name, known),
    )


@cache
def _probe(asked: Callable[[str], Feature], name: str, _modules: object) -> Feature:
    try:
        return asked(name)
    except NoTypesError as error:
        kind = next(k for k, v in _PROBES.items() if v is asked)
        return Feature(f"{_SAID.get(kind, kind)} {name}", False, f"{error}".replace("\n  -> ", "; "))


def _map_type(name: str) -> Feature:
    wanted = MapType.from_name(name)
    if wanted is None:
        raise UnsupportedError("no map type", on=repr(name), fix=closest(name, (str(t) for t in MapType)))
    return _by_trial(f"map type {wanted}", try_map(wanted))


def _program_type(name: str) -> Feature:
    wanted = ProgramType.from_name(name)
    if wanted is None:
        raise UnsupportedError(
            "no program type", on=repr(name), fix=closest(name, (str(t) for t in ProgramType))
        )
    return _by_trial(f"program type {wanted}", try_type(wanted))


def _by_trial(what: str, verdict: Verdict) -> Feature:
    return Feature(what, True) if verdict.has_type else Feature(what, False, refusal(verdict.errno))


def refusal(number: int) -> str:
    """Returns why a feature is missing, by the error of a trial; `EINVAL` itself is not shown."""
    return REFUSED if number == errno.EINVAL else f"{REFUSED}: {strerror(number)}"


def helper_number(name: str) -> int | None:
    """Returns the number of a helper in the running kernel's BTF."""
    return enumerators(vmlinux_btf(), "bpf_func_id").get(_helper_id(name))


def _helper(name: str) -> Feature:
    number = helper_number(name)
    if number == 0:  # this number means no helper
        return Feature(f"helper {name}", False, UNLISTED)
    # the list in the BTF decides, unless the kernel refuses a call in every type of program
    if number is None or may_call_helper(number) is not False:
        return helper_in(vmlinux_btf(), name)
    return Feature(f"helper {name}", False, "no type of program may call it with this kernel's configuration")


def _kfunc(name: str) -> Feature:
    answer = may_call_kfunc(name)
    if answer is not False:
        return Feature(f"kfunc {name}", True)
    listed = kfunc_in(vmlinux_btf(), name)
    return Feature(f"kfunc {name}", False, listed.why or NO_KFUNC)


def _function(name: str) -> Feature:
    helper = _helper(name)
    return helper if helper or is_recorded_helper(name) else _kfunc(name)


def function_in(btf: object, name: str) -> Feature:
    """Returns whether a kernel with that BTF has a helper or a kfunc of that name."""
    helper = helper_in(btf, name)
    return helper if helper or is_recorded_helper(name) else kfunc_in(btf, name)


def helper_in(btf: object, name: str) -> Feature:
    """Returns whether a kernel with that BTF has a helper."""
    what = f"helper {name}"
    if _helper_id(name) in enumerators(btf, "bpf_func_id"):
        return Feature(what, True)
    return Feature(what, False, UNLISTED)


def _helper_id(name: str) -> str:
    return "BPF_FUNC_" + name.removeprefix("bpf_")


def kfunc_in(btf: object, name: str) -> Feature:
    """Returns whether a kernel with that BTF has a kfunc."""
    what = f"kfunc {name}"
    found = type_id(btf, name, FUNC) > 0
    return Feature(what, found, "" if found else "the kernel's BTF has no such function")


def _command(name: str) -> Feature:
    listed = command_in(vmlinux_btf(), name)
    if not listed or not name.lower().endswith("token_create"):
        return listed
    try:
        bpf(BPF_TOKEN_CREATE, pack(("I", 0), ("i", -1)))
    except OSError as e:
        return listed if e.errno == errno.EBADF else Feature(listed.name, False, refusal(e.errno or 0))
    return listed


def command_in(btf: object, name: str) -> Feature:
    """Returns whether a kernel with that BTF has a command of bpf(2), ``token_create``."""
    plain = name.lower().removeprefix("bpf_")
    found = f"BPF_{plain.upper()}" in enumerators(btf, "bpf_cmd")
    return Feature(f"command {plain}", found, "" if found else UNLISTED)


def config_in(settings: Mapping[str, str] | None, name: str) -> Feature:
    """Returns whether a kernel with that configuration, as `kernel_config` gives it, has an option.

    ``X=VALUE`` asks for that value. ``X`` alone asks for any value but ``n`` and an empty text: an option may
    be a number or a text, which is never ``y``.
    """
    option, _, wanted = name.removeprefix("CONFIG_").partition("=")
    if settings is None:
        return Feature(f"CONFIG_{option}", False, "this kernel's configuration can't be found")
    value = settings.get(option)
    fits = (value or "n") == wanted if wanted else value not in (None, "n", "")
    return Feature(f"CONFIG_{name.removeprefix('CONFIG_')}", fits, f"it is {value or 'not set'}")


@cache
def kernel_config() -> dict[str, str] | None:
    """Returns this kernel's ``CONFIG_`` options without the prefix; None if they can't be found.

    It looks at ``$BPFMAPS_KERNEL_CONFIG``, /proc/config.gz, then /boot.
    """
    places = (os.environ.get("BPFMAPS_KERNEL_CONFIG"), "/proc/config.gz", f"/boot/config-{release()}")
    for place in places:
        if place and Path(place).is_file():
            return read_config(Path(place))
    return None


def read_config(path: Path) -> dict[str, str]:
    """Returns the options of a configuration file."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    pairs = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
    return {k.removeprefix("CONFIG_"): v.strip('"') for k, v in pairs}


def _struct_ops(name: str) -> Feature:
    """Returns whether the kernel, or a loaded module, registers a struct for struct_ops maps."""
    there = has_type(name, STRUCT) and has_type(f"bpf_struct_ops_{name}", STRUCT)
    why = "neither the kernel nor a loaded module registers it"
    return Feature(f"struct_ops struct {name}", there, "" if there else why)


def _attach(section: str) -> Feature:
    if section.endswith("/"):
        kind = section.rstrip("/")
        raise UnsupportedError(
            "cannot probe",
            on=repr(section),
            why="it names no target after the slash",
            fix=f"write {kind!r} for such programs with any target, or {section}TARGET",
        )
    why = probe_target(section)
    return Feature(f"attach point {section}", not why, why)


_PROBES: dict[str, Callable[[str], Feature]] = {
    "map_type": _map_type,
    "program_type": _program_type,
    "helper": _helper,
    "kfunc": _kfunc,
    "function": _function,
    "command": _command,
    "config": lambda name: config_in(kernel_config(), name),
    "attach": _attach,
    "struct_ops": _struct_ops,
}
_SAID = {"attach": "attach point", "map_type": "map type", "program_type": "program type"}
KINDS = tuple(_PROBES)
