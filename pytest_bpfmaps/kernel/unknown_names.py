"""Refusing names that no kernel has: what a probe has not found may be missing here, or be misspelt."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable

from ..errors import UnsupportedError, closest
from . import known_names as known
from .section_names import SECTIONS, TARGETED

_PATTERNS = ("kprobe.multi", "kretprobe.multi", "kprobe.session")
# by what the target is: whether there is one of that name, and the names to compare with
_TARGETS: dict[str, tuple[Callable[[str], bool], Callable[[str], str]]] = {
    "a function": (known.is_function, lambda name: known.closest_name("functions", name)),
    "a system call": (known.is_syscall, lambda name: closest(name, known.syscalls())),
    "a tracepoint": (known.is_tracepoint, lambda name: closest(name, known.names("tracepoints"))),
    "a raw tracepoint": (known.is_raw_tracepoint, lambda name: known.closest_name("raw_tracepoints", name)),
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


def refuse_unknown(kind: str, name: str) -> None:
    """Raises `UnsupportedError` with the closest names where no kernel on record has such a feature.

    `kind` and `name` are what `features.probe` takes. A pattern that fits nothing is a warning. Of options,
    which each architecture and vendor adds to, only one that nearly has a known name is taken for misspelt.
    """
    match kind:
        case "attach":
            _refuse_section(name)
        case "helper":
            if not known.is_helper(name):
                _refuse(name, "a helper of that name", closest(name, known.helpers()))
        case "kfunc":
            if not known.is_function(name):
                _refuse(name, "a function of that name", known.closest_name("functions", name))
        case "function":
            if not known.is_helper(name) and not known.is_function(name):
                helpers = [f"bpf_{helper}" for helper in known.names("helpers")]
                _refuse(
                    name, "a helper or kfunc of that name", known.closest_name("functions", name, helpers)
                )
        case "config":
            option = name.removeprefix("CONFIG_").partition("=")[0]
            if not known.is_option(option) and known.is_close_to_option(option):
                _refuse(f"CONFIG_{option}", "such an option", known.closest_name("options", option))


def _refuse_section(section: str) -> None:
    kind, slash, target = section.lstrip("?").partition("/")
    if kind not in TARGETED:
        if section.lstrip("?") not in SECTIONS:
            others = [f"{name}{slash}{target}" if name in TARGETED else name for name in SECTIONS]
            _refuse(section, "", closest(section, others))
        return
    what = _WHAT.get(kind.removesuffix(".s").removesuffix(".w"))
    if not target or what is None:
        return
    if kind in _PATTERNS and set(target) & set("*?"):
        if not known.fits_function(target):
            said = known.closest_name("functions", target)
            warnings.warn(f"{section!r} fits no function of {known.RECORDED}: {said}", stacklevel=3)
        return
    name = target.partition("+")[0]
    exists, find_closest = _TARGETS[what]
    if not exists(name):
        _refuse(section, f"{what} {name!r}", find_closest(name))


def _refuse(name: str, what: str, fix: str) -> None:
    why = f"no kernel on record ({known.RECORDED}) has {what}" if what else "no libbpf knows such a section"
    own = " (a module of your own must be loaded before the probe)" if "function" in what else ""
    raise UnsupportedError(
        "cannot probe",
        on=repr(name),
        why=why,
        fix=fix + own,
        errno=errno.EINVAL,
    )
