"""Whether this kernel, in this process, can do something: probed, never guessed from its version."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import UnsupportedError, closest
from ..libbpf import capture_log, check_pointer, ffi, lib
from .running import release
from .targets import probe_target
from .types import MapType, ProgramType

_FUNC, _ENUM = 12, 6  # BTF kinds
UNLISTED = "the kernel's BTF does not list it"
REFUSED = "the kernel refuses it"


@dataclass(frozen=True, slots=True)
class Feature:
    """The answer of a probe: what was asked for, whether it is there, and if not, why."""

    name: str
    present: bool
    why: str = ""

    def __bool__(self) -> bool:
        return self.present


def probe(kind: str, name: str) -> Feature:
    """Probes one feature.

    `kind` is ``map_type``, ``program_type``, ``helper``, ``kfunc``, ``config`` or ``attach``. Raises
    `UnsupportedError` for a kind or name that does not exist anywhere.
    """
    asked = _PROBES.get(kind)
    if asked is None:
        raise UnsupportedError("cannot probe", on=f"{kind!r}", why="no such kind", fix=closest(kind, _PROBES))
    return _probe(asked, name)


def probe_any(name: str) -> Feature:
    """Probes a feature whose kind its name tells: see `kind_of`."""
    return probe(*asked_for(name))


def asked_for(name: str) -> tuple[str, str]:
    """Kind and name of a feature that may be written with its kind: ``map_type:ringbuf``. See `kind_of`."""
    kind, _, rest = name.partition(":")
    return (kind, rest) if rest and kind in _PROBES else (kind_of(name), name)


def kind_of(name: str) -> str:
    """The kind of a feature, by its name.

    ``CONFIG_X`` is ``config``; what has a slash is ``attach``, written as in ``SEC()``; ``bpf_x`` a helper or
    a kfunc; else the name of a map type or program type, ``ringbuf`` or ``xdp``.
    """
    if name.startswith("CONFIG_"):
        return "config"
    if "/" in name:
        return "attach"
    if name.startswith("bpf_"):
        return "function"
    if MapType.from_name(name):
        return "map_type"
    if ProgramType.from_name(name):
        return "program_type"
    known = [str(t) for t in (*MapType, *ProgramType)]
    raise UnsupportedError(
        "cannot probe",
        on=repr(name),
        why="it is no map type, program type, helper, kfunc, CONFIG_ option or attach point",
        fix=closest(name, known),
    )


@cache
def _probe(asked: Callable[[str], Feature], name: str) -> Feature:
    return asked(name)


def _map_type(name: str) -> Feature:
    wanted = MapType.from_name(name)
    if wanted is None:
        raise UnsupportedError("no map type", on=repr(name), fix=closest(name, (str(t) for t in MapType)))
    return _by_libbpf(f"map type {wanted}", lib.libbpf_probe_bpf_map_type, wanted, "map_type")


def _program_type(name: str) -> Feature:
    wanted = ProgramType.from_name(name)
    if wanted is None:
        raise UnsupportedError(
            "no program type", on=repr(name), fix=closest(name, (str(t) for t in ProgramType))
        )
    return _by_libbpf(f"program type {wanted}", lib.libbpf_probe_bpf_prog_type, wanted, "prog_type")


def _by_libbpf(what: str, call: Callable[..., int], wanted: MapType | ProgramType, enum: str) -> Feature:
    with capture_log():
        answer = call(wanted, ffi.NULL)
    if answer == 1:
        return Feature(what, True)
    if answer == 0:
        return Feature(what, False, REFUSED)
    # a type that is newer than this libbpf: whether the kernel's own list has it
    if f"BPF_{enum.upper()}_{wanted.name}" in enumerators(vmlinux_btf(), f"bpf_{enum}"):
        return Feature(what, True)
    return Feature(what, False, UNLISTED)


def function_in(btf: object, name: str) -> Feature:
    """Whether a kernel with that BTF has a helper or a kfunc of that name."""
    helper = helper_in(btf, name)
    return helper if helper else kfunc_in(btf, name)


def helper_in(btf: object, name: str) -> Feature:
    """Whether a kernel with that BTF has a helper."""
    what = f"helper {name}"
    wanted = "BPF_FUNC_" + name.removeprefix("bpf_")
    if wanted in enumerators(btf, "bpf_func_id"):
        return Feature(what, True)
    return Feature(what, False, UNLISTED)


def kfunc_in(btf: object, name: str) -> Feature:
    """Whether a kernel with that BTF has a kfunc."""
    what = f"kfunc {name}"
    found = lib.btf__find_by_name_kind(btf, name.encode(), _FUNC) > 0
    return Feature(what, found, "" if found else "the kernel's BTF has no such function")


@cache
def vmlinux_btf() -> object:
    """The kernel's own BTF; kept for the life of the process."""
    return check_pointer(
        lib.btf__load_vmlinux_btf(),
        UnsupportedError,
        "cannot read the types of this kernel",
        on="/sys/kernel/btf/vmlinux",
        fix="boot one with CONFIG_DEBUG_INFO_BTF=y, or run the test in a virtual machine: "
        "pytest --bpf-kernel=6.1",
        **({} if os.path.exists("/sys/kernel/btf/vmlinux") else {"why": "there is no such file"}),
    )


@cache
def enumerators(btf: object, enum: str) -> frozenset[str]:
    """The names in an enum of a kernel's; none when it has no such enum. The BTF is one that stays."""
    type_id = lib.btf__find_by_name_kind(btf, enum.encode(), _ENUM)
    if type_id < 0:
        return frozenset()
    words = ffi.cast("uint32_t *", lib.btf__type_by_id(btf, type_id))
    count = words[1] & 0xFFFF
    names = (lib.btf__name_by_offset(btf, words[3 + 2 * i]) for i in range(count))
    return frozenset(ffi.string(n).decode() for n in names)


def config_in(settings: Mapping[str, str] | None, name: str) -> Feature:
    """Whether a kernel with that configuration, as `kernel_config` gives it, has an option."""
    option, _, wanted = name.removeprefix("CONFIG_").partition("=")
    if settings is None:
        return Feature(f"CONFIG_{option}", False, "this kernel's configuration is not to be found")
    value = settings.get(option)
    fits = value == wanted if wanted else value in ("y", "m")
    return Feature(f"CONFIG_{name.removeprefix('CONFIG_')}", fits, f"it is {value or 'not set'}")


@cache
def kernel_config() -> dict[str, str] | None:
    """This kernel's ``CONFIG_`` options without the prefix; None when they are not to be found.

    Looks at ``$BPFMAPS_KERNEL_CONFIG``, /proc/config.gz, then /boot.
    """
    places = (os.environ.get("BPFMAPS_KERNEL_CONFIG"), "/proc/config.gz", f"/boot/config-{release()}")
    for place in places:
        if place and Path(place).is_file():
            return read_config(Path(place))
    return None


def read_config(path: Path) -> dict[str, str]:
    """The options of a configuration file."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    pairs = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
    return {k.removeprefix("CONFIG_"): v.strip('"') for k, v in pairs}


def _attach(section: str) -> Feature:
    what = f"attach point {section}"
    why = probe_target(section, _program_type, vmlinux_btf)
    return Feature(what, not why, why)


_PROBES: dict[str, Callable[[str], Feature]] = {
    "map_type": _map_type,
    "program_type": _program_type,
    "helper": lambda name: helper_in(vmlinux_btf(), name),
    "kfunc": lambda name: kfunc_in(vmlinux_btf(), name),
    "function": lambda name: function_in(vmlinux_btf(), name),
    "config": lambda name: config_in(kernel_config(), name),
    "attach": _attach,
}
KINDS = tuple(_PROBES)
