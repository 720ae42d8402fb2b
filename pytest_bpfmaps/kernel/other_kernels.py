"""Finds the kernel of the catalogue to propose for a feature that the running kernel lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pytest_bpfmaps.kernel import release as running_release
from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.kernel.feature_releases import since
from pytest_bpfmaps.kernel.known_names import is_recorded_helper, kernels_with, module_of
from pytest_bpfmaps.paths import kernels_dir

_USUAL = "6.1"  # the kernel that is proposed where nothing says which one has the feature
_TRACEPOINTS = ("tracepoint", "tp", "raw_tracepoint", "raw_tp", "tp_btf")
# What the kernel's BTF has where the section's kind of attachment is built in.
_OF_SECTION = {
    "kprobe.multi": ("bpf_kprobe_multi_link",),
    "kretprobe.multi": ("bpf_kprobe_multi_link",),
    "kprobe.session": ("bpf_kprobe_multi_link", "bpf_session_run_ctx"),
    "uprobe.multi": ("bpf_uprobe_multi_link",),
    "uretprobe.multi": ("bpf_uprobe_multi_link",),
    "uprobe.session": ("bpf_uprobe_multi_link", "bpf_session_run_ctx"),
    "tcx": ("tcx_link",),
    "netkit": ("netkit_link",),
}
_OPTION = re.compile(r"^(CONFIG_\w+)=[ym]$", re.MULTILINE)


def advise_other_kernel(kind: str, name: str, feature: str) -> str:
    """Returns advice to run in a virtual machine with a kernel that has a feature, as the end of a sentence.

    `kind` and `name` are as for `probe`, and `feature` is the name that the probe gives. If no kernel of the
    catalogue has the feature, the text names the first release that has it. It is empty if that is not known,
    and on an emulated CPU, as in a guest.
    """
    if running_release.is_emulated():
        return ""
    first = since(feature)
    having = _having(kind, name, first)
    if having:
        return f"; run it in a virtual machine: pytest --bpf-kernel={having}"
    too_old = first and all(_numbers(_release(kernel)) < _numbers(first) for kernel in _kernels())
    return f"; it came with Linux {first}: see bpfmaps kernels fetch --help" if too_old else ""


def _having(kind: str, name: str, first: str | None) -> str | None:
    """Returns the name of a kernel that has the feature; None if there is none, or it is not known."""
    kernels = [*_kernels()]
    names = _names_in_btf(kind, name)
    if not kernels and kind != "config":  # an empty catalogue: the usual kernel can be fetched
        return _USUAL if not names and _numbers(first or _USUAL) <= _numbers(_USUAL) else None
    for kernel in kernels:
        if first and _numbers(_release(kernel)) < _numbers(first):
            continue
        if kind == "config" and name not in _options(kernel):
            continue
        if all(kernel.name in kernels_with(each) for each in names):
            return kernel.name
    return None


def _kernels() -> Iterator[Path]:
    """Yields the folders of the catalogue's kernels, that of the usual one first."""
    found = (path.parent for path in kernels_dir().glob("*/btf"))
    yield from sorted(found, key=lambda folder: (folder.name != _USUAL, folder.name))


def _release(kernel: Path) -> str:
    """Returns the release of a stored kernel, ``6.1.0-56-amd64``; else its name."""
    config = next(kernel.glob("boot/config-*"), None)
    return config.name.removeprefix("config-") if config else kernel.name


def _numbers(release: str) -> tuple[int, ...]:
    found = re.match(r"\D*(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else ()


def _options(kernel: Path) -> list[str]:
    config = next(kernel.glob("boot/config-*"), None)
    return _OPTION.findall(config.read_text(errors="replace")) if config else []


def _names_in_btf(kind: str, name: str) -> tuple[str, ...]:
    """Returns the names that a kernel's BTF has if the kernel has the feature; none if BTF does not tell."""
    if kind == "attach":
        return _names_of_target(name)
    if kind == "helper" or (kind == "function" and is_recorded_helper(name)):
        return (f"BPF_FUNC_{name.removeprefix('bpf_')}",)
    if kind in ("map_type", "program_type"):
        found = MapType.from_name(name) if kind == "map_type" else ProgramType.from_name(name)
        return (f"BPF_{'MAP' if kind == 'map_type' else 'PROG'}_TYPE_{found.name}",) if found else ()
    if kind == "command":
        return (f"BPF_{name.upper().removeprefix('BPF_')}",)
    if kind == "struct_ops":
        return (f"bpf_struct_ops_{name}",)
    return (name,) if kind in ("kfunc", "function") else ()


def _names_of_target(name: str) -> tuple[str, ...]:
    """Returns the names in BTF for a section with its target, ``fentry/vfs_read``."""
    section, _, target = name.partition("/")
    section = section.removesuffix(".s")
    names = _OF_SECTION.get(section, ())
    last = target.rpartition("/")[2]
    if not last or set(last) & set("*?+"):
        return names
    if section.startswith(("kprobe", "kretprobe", "fentry", "fexit", "fmod_ret")):
        return (*names, target)
    if section == "lsm":
        return (f"bpf_lsm_{target}",)
    if section == "iter":
        return (f"bpf_iter__{target}",)
    if section in _TRACEPOINTS and not target.startswith("syscalls/") and not module_of(f"tracepoint:{last}"):
        return (f"btf_trace_{last}",)
    return names
