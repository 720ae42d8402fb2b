"""What a BPF token delegates: the mount options of a bpf file system, by the kernel's names.

Source: ``kernel/bpf/token.c`` and ``kernel/bpf/inode.c``, Linux 6.9, commits 6fe01d3cbb92 and 35f96de04127.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pytest_bpfmaps.errors import LoaderError, closest
from pytest_bpfmaps.kernel.vmlinux_btf import enumerators, vmlinux_btf

Delegated = Mapping[str, str | Iterable[str]]

_ALL = (1 << 64) - 1
# the mount option, its enum in <linux/bpf.h>, the prefix of that enum's names, what it has in messages
_OPTIONS = {
    "delegate_cmds": ("bpf_cmd", "BPF_", "command"),
    "delegate_maps": ("bpf_map_type", "BPF_MAP_TYPE_", "map type"),
    "delegate_progs": ("bpf_prog_type", "BPF_PROG_TYPE_", "program type"),
    "delegate_attachs": ("bpf_attach_type", "BPF_", "attach type"),
}


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a token delegates. `masks` are the bits of each mount option, `names` what the test wrote."""

    masks: Mapping[str, int]
    names: Mapping[str, tuple[str, ...]]

    def mount_options(self) -> dict[str, str]:
        """Returns the options for the kernel."""
        return {name: hex(bits) for name, bits in self.masks.items() if bits}

    def has(self, option: str, number: int) -> bool:
        """Returns whether it delegates that number of ``enum bpf_cmd``, ``bpf_map_type``, …"""
        return bool(self.masks.get(option, 0) >> number & 1)

    def __str__(self) -> str:
        return ", ".join(f"{option}={':'.join(names)}" for option, names in self.names.items() if names)


def what_is(option: str) -> str:
    """Returns what a mount option delegates, for messages: ``program type``."""
    return _OPTIONS[option][2]


def delegation(given: Delegated) -> Delegation:
    """Returns the delegation that a test asks for, such as ``{"delegate_progs": ["xdp"]}``.

    A value is a list of the kernel's names in lower case without prefix, or the text of the mount option:
    names with colons between. ``any`` is all. Raises `LoaderError` for a name that this kernel does not have.
    """
    if not isinstance(given, Mapping):
        raise _wrong(
            repr(given), "it is no mapping", 'write {"delegate_cmds": "any", "delegate_progs": ["xdp"]}'
        )
    masks: dict[str, int] = {}
    names: dict[str, tuple[str, ...]] = {}
    for option, value in given.items():
        if option not in _OPTIONS:
            raise _wrong(
                repr(option), "bpf file systems have no such mount option", closest(option, _OPTIONS)
            )
        enum, prefix, what = _OPTIONS[option]
        if not isinstance(value, Iterable):
            raise _wrong(f"{option}={value!r}", "it is no list", 'write a list of names, or "any"')
        listed = value.split(":") if isinstance(value, str) else [*value]
        plain = [str(each).lower().removeprefix(prefix.lower()) for each in listed if each]
        known = _numbers(enum, prefix)
        for name in plain:
            if name != "any" and name not in known:
                raise _wrong(f"{option}={name}", f"this kernel has no such {what}", closest(name, known))
        names[option] = tuple(plain)
        masks[option] = _ALL if "any" in plain else sum({1 << known[name] for name in plain})
    if not any(masks.values()):
        fix = 'delegate something: token={"delegate_cmds": "any", "delegate_maps": "any", …}'
        raise _wrong(repr(dict(given)), "it delegates nothing, and the kernel makes no such token", fix)
    return Delegation(masks, names)


def _numbers(enum: str, prefix: str) -> dict[str, int]:
    found = enumerators(vmlinux_btf(), enum)
    return {
        name.removeprefix(prefix).lower(): number
        for name, number in found.items()
        if name.startswith(prefix) and number < 64
    }


def _wrong(on: str, why: str, fix: str) -> LoaderError:
    return LoaderError("cannot make a BPF token", on=on, why=why, fix=fix)
