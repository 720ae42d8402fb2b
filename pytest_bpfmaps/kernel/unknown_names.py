"""Refuses names that no kernel has, because they are misspelt; this kernel may lack any other name."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from pytest_bpfmaps.errors import UnsupportedError, closest
from pytest_bpfmaps.kernel import known_names as known
from pytest_bpfmaps.kernel.bpf_types import COMMANDS
from pytest_bpfmaps.kernel.section_names import SECTIONS, TARGETED

# the structs that Linux 5.6 to 7.2 register for struct_ops maps; modules may register others
_STRUCT_OPS = [
    "tcp_congestion_ops",
    "bpf_dummy_ops",
    "hid_bpf_ops",
    "sched_ext_ops",
    "sched_ext_ops_cid",
    "Qdisc_ops",
    "io_uring_bpf_ops",
    "smc_hs_ctrl",
]
_PATTERNS = ("kprobe.multi", "kretprobe.multi", "kprobe.session")
# what the target is: (whether a name exists, a sentence with the closest names)
_TARGETS: dict[str, tuple[Callable[[str], bool], Callable[[str], str]]] = {
    "a function": (known.is_function, lambda name: known.closest_name("functions", name)),
    "a system call": (known.is_syscall, lambda name: closest(name, known.syscalls())),
    "a tracepoint": (known.is_tracepoint, lambda name: closest(name, known.names("tracepoints"))),
    "a raw tracepoint": (
        known.is_raw_tracepoint,
        lambda name: known.closest_name("raw_tracepoints", name),
    ),
    "an LSM hook": (known.is_lsm_hook, lambda name: closest(name, known.lsm_hooks())),
    "an iterator": (known.is_iterator, lambda name: closest(name, known.names("iterators"))),
}
_WHAT = {
    **dict.fromkeys(("kprobe", "kretprobe", "fentry", "fexit", "fmod_ret", "fsession"), "a function"),
    **dict.fromkeys(_PATTERNS, "a function"),
    **dict.fromkeys(("ksyscall", "kretsyscall"), "a system call"),
    **dict.fromkeys(("tracepoint", "tp"), "a tracepoint"),
    **dict.fromkeys(("raw_tp", "raw_tracepoint", "tp_btf"), "a raw tracepoint"),
    **dict.fromkeys(("lsm", "lsm_cgroup"), "an LSM hook"),
    "iter": "an iterator",
}


@dataclass(frozen=True, slots=True)
class Unknown:
    """A name that no recorded kernel has: `what` it would be, and a function that finds close names.

    A pattern that fits nothing is not an error, because the user may have modules of their own.
    """

    name: str
    what: str
    find_closest: Callable[[], str]
    is_pattern: bool = False

    def error(self) -> UnsupportedError:
        """Returns the error to raise for it."""
        why = f"no kernel on record ({known.RECORDED}) has {self.what}"
        hints = ["a module of your own must be loaded before the probe"] if "function" in self.what else []
        if self.what and "option" not in self.what:
            hints.append(
                "a name of another kernel is known once the catalogue has that kernel: bpfmaps kernels fetch "
                "SOURCE, or bpfmaps kernels add /boot/vmlinuz-RELEASE, with its System.map-RELEASE beside it"
            )
        return UnsupportedError(
            "cannot probe",
            on=repr(self.name),
            why=why if self.what else "no libbpf knows such a section",
            fix=self.find_closest() + (f" ({'; '.join(hints)})" if hints else ""),
            errno=errno.EINVAL,
        )


def refuse_unknown(kind: str, name: str) -> None:
    """Raises `UnsupportedError` with the closest names if no recorded kernel has such a feature.

    `kind` and `name` are what `features.probe` takes. A pattern that fits nothing is a warning. Architectures
    and vendors add configuration options, and modules add structs for struct_ops, so such an unknown name
    counts as misspelt only if it is close to a known one.
    """
    unknown = find_unknown(kind, name)
    if unknown is None:
        return
    if not unknown.is_pattern:
        raise unknown.error()
    said = f"{name!r} fits no function of {known.RECORDED}: {unknown.find_closest()}"
    warnings.warn(said, stacklevel=2)


def find_unknown(kind: str, name: str) -> Unknown | None:
    """Returns the unknown name, or None; it does not search the closest names yet, which takes longer."""
    match kind:
        case "attach":
            return _find_section(name)
        case "helper":
            if not known.is_helper(name):
                return Unknown(name, "a helper of that name", lambda: closest(name, known.helpers()))
        case "kfunc":
            if not known.is_function(name):
                return Unknown(name, "a function of that name", lambda: known.closest_name("functions", name))
        case "function":
            if not known.is_helper(name) and not known.is_function(name):
                what = "a helper or kfunc of that name"
                return Unknown(name, what, lambda: known.closest_name("functions", name, known.helpers()))
        case "command":
            plain = name.lower().removeprefix("bpf_")
            if plain not in COMMANDS:
                return Unknown(name, "a command of bpf(2) of that name", lambda: closest(plain, COMMANDS))
        case "config":
            option = name.removeprefix("CONFIG_").partition("=")[0]
            if not known.is_option(option) and known.is_close_to_option(option):
                return Unknown(
                    f"CONFIG_{option}", "such an option", lambda: known.closest_name("options", option)
                )
        case "struct_ops":
            return _find_struct(name)
    return None


def _find_struct(name: str) -> Unknown | None:
    if name in _STRUCT_OPS or not get_close_matches(name, _STRUCT_OPS, n=1, cutoff=0.85):
        return None
    return Unknown(name, "a struct for struct_ops of that name", lambda: closest(name, _STRUCT_OPS))


def _find_section(section: str) -> Unknown | None:
    kind, slash, target = section.lstrip("?").partition("/")
    if kind not in TARGETED:
        if section.lstrip("?") in SECTIONS:
            return None
        others = [f"{name}{slash}{target}" if name in TARGETED else name for name in SECTIONS]
        return Unknown(section, "", lambda: closest(section, others))
    what = _WHAT.get(kind.removesuffix(".s").removesuffix(".w"))
    if not target or what is None:
        return None
    if kind in _PATTERNS and set(target) & set("*?"):
        if known.fits_function(target):
            return None
        return Unknown(section, "", lambda: known.closest_name("functions", target), is_pattern=True)
    name = target.partition("+")[0]
    exists, find_closest = _TARGETS[what]
    return None if exists(name) else Unknown(section, f"{what} {name!r}", lambda: find_closest(name))
