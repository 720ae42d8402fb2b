"""Returns the command that installs something on this distribution."""

from __future__ import annotations

import platform
from functools import cache

# What is needed, with its name in each family of distributions: Debian, Fedora, openSUSE, Arch, Alpine.
_NAMES = {
    "clang": ("clang", "clang", "clang", "clang", "clang"),
    "libbpf": ("libbpf1", "libbpf", "libbpf1", "libbpf", "libbpf"),
    "headers": ("libbpf-dev", "libbpf-devel", "libbpf-devel", "libbpf", "libbpf-dev"),
    "qemu": ("qemu-system-x86", "qemu-system-x86-core", "qemu-x86", "qemu-system-x86", "qemu-system-x86_64"),
    "busybox": ("busybox-static", "busybox", "busybox-static", "busybox", "busybox-static"),
    "kmod": ("kmod", "kmod", "kmod", "kmod", "kmod"),
}
_COMMANDS = ("apt-get install", "dnf install", "zypper install", "pacman -S", "apk add")
_FAMILIES = {
    "debian": 0,
    "ubuntu": 0,
    "fedora": 1,
    "rhel": 1,
    "suse": 2,
    "opensuse": 2,
    "arch": 3,
    "alpine": 4,
}


@cache
def _family() -> int:
    try:
        facts = platform.freedesktop_os_release()
    except OSError:
        return 0
    for name in (facts.get("ID", ""), *facts.get("ID_LIKE", "").split()):
        if name in _FAMILIES:
            return _FAMILIES[name]
    return 0


def install(*wanted: str) -> str:
    """Returns the command that installs what is `wanted` (keys of `_NAMES`)."""
    family = _family()
    return f"{_COMMANDS[family]} " + " ".join(dict.fromkeys(_NAMES[w][family] for w in wanted))
