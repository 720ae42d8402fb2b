"""Explains clang's errors, and says what the user can do about them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches

from pytest_bpfmaps.compiler.clang import INSTALL
from pytest_bpfmaps.compiler.library_names import explain_builtin

_MISSING_HEADER = re.compile(r"(?:fatal )?error: '([^'\n]+)' file not found")
_ERROR_COUNT = re.compile(r"^(?:\d+ warnings? and )?(\d+) errors? generated\.$", re.MULTILINE)

_STACK = re.compile(r"BPF stack limit (?:of \d+ bytes )?is exceeded")
_BUILTIN = re.compile(r"error: .*[Aa] call to built-in function '(\w+)' is not supported")
_LINE = re.compile(r":\d+: error: .*to built-in function.*")  # clang prints several for one source line
_NOWHERE = "could not determine the original source location"
_REDEFINED = re.compile(
    r"^(\S+?):\d+:\d+: error: (?:typedef redefinition|redefinition of|redeclaration of|redefinition)"
    r"(?:[^\n]* '(\w+)'| with)[^\n]*\n(?:(?!\S+:\d+:\d+: error: )[^\n]*\n)*?(\S+?):\d+:\d+: note: previous",
    re.MULTILINE,
)
_TYPEDEF = re.compile(r"\A[^\n]*typedef redefinition[^\n]*\n[^\n]*\btypedef\b[^\n;]*\b(\w+);")
_INCLUDED = re.compile(
    r"^In file included from [^\n]*\.c:\d+:\nIn file included from /usr/include/(\S+?):\d+", re.MULTILINE
)
_ERROR = re.compile(r"^\S+:\d+:\d+: error: ", re.MULTILINE)
_FIRST_ERROR = re.compile(r"^([^:\n]+):(\d+):\d+: (?:fatal )?error: (.*)$", re.MULTILINE)
_LIBBPF = (
    "install libbpf's headers: 'apt-get install libbpf-dev' on Debian and Ubuntu, 'dnf install libbpf-devel' "
    "on Fedora and RHEL, 'zypper install libbpf-devel' on openSUSE, 'pacman -S libbpf' on Arch, "
    "'apk add libbpf-dev' on Alpine"
)
_LINUX = (
    "install the kernel's user headers: 'apt-get install linux-libc-dev' on Debian and Ubuntu, "
    "'dnf install kernel-headers' on Fedora and RHEL, 'zypper install linux-glibc-devel' on openSUSE, "
    "'pacman -S linux-api-headers' on Arch, 'apk add linux-headers' on Alpine"
)
_KERNELS_OWN = ("linux/", "net/", "uapi/", "trace/", "crypto/", "kernel/")
_LIBC = (
    "a BPF program has no C library: leave out the libc header that includes it, and include "
    '<linux/types.h> or "vmlinux.h" for types'
)


_OF_LIBBPF = ("bpf_helpers.h", "bpf_tracing.h", "bpf_core_read.h", "bpf_endian.h", "usdt.bpf.h")
_FROM = re.compile(r"^In file included from (?:/usr(?:/local)?/include/)([^\n:]+):\d+", re.MULTILINE)


def missing_header(output: str) -> str | None:
    """Returns the header that clang did not find, as the source names it."""
    found = _MISSING_HEADER.search(output)
    return found[1] if found else None


def reason(output: str, source: str) -> str:
    """Returns why clang failed, in a few words; `source` is the name of the file that was compiled."""
    header = missing_header(output)
    if header:
        return f"'{header}' not found"
    if _STACK.search(output):
        return "a function needs more than the 512 bytes of stack that BPF has"
    if builtin := _BUILTIN.search(output):
        return explain_builtin(builtin[1]).why
    if name := _taken_name(output):
        return f"vmlinux.h has a {name} of its own"
    if conflict := _conflict(output):
        return f"vmlinux.h and <{conflict}> define the same types"
    first, count = _FIRST_ERROR.search(output), _ERROR_COUNT.search(output)
    if first is None:
        return "clang failed"
    more = int(count[1]) - 1 if count else 0
    others = f", and {more} more error{'s' if more > 1 else ''}" if more > 0 else ""
    name = os.path.basename(first[1])
    where = f"line {first[2]}" if name == source else f"line {first[2]} of {name}"
    return f"{where}: {first[3]}{others}"


def remedy(output: str, folders: Sequence[str]) -> str | None:
    """Returns what to do about the failure, if known; `folders` are those where clang looked for headers."""
    header = missing_header(output)
    if header:
        return _remedy_of_libc(header, output) or _remedy_for_header(header, folders)
    if _STACK.search(output):
        return (
            "keep large variables in a per-CPU array map, or in ring buffer memory, instead of on the stack"
        )
    if builtin := _BUILTIN.search(output):
        return explain_builtin(builtin[1]).fix
    if name := _taken_name(output):
        return f"the kernel has this name: rename your {name}, or leave your definition out"
    if conflict := _conflict(output):
        return (
            f"leave out <{conflict}>: vmlinux.h has all types of the kernel; a macro that it "
            "lacks, such as ETH_P_IP, is written as #define in the source"
        )
    if "unable to create target" in output or "unknown target triple" in output:
        return f"this clang was built without the BPF target; {INSTALL}"
    return None


def _conflict(output: str) -> str | None:
    """Returns the kernel header that defines the same types as ``vmlinux.h``, as the source includes it.

    Returns ``linux/…`` if clang does not name the header, and None for another clash.
    """
    clash = _REDEFINED.search(output)
    if clash is None or not {"vmlinux.h", "system"} <= {_side(clash[1]), _side(clash[3])}:
        return None
    found = (m[1] for m in _INCLUDED.finditer(output))
    return next((header for header in found if header.startswith(("linux/", "asm", "net/"))), "linux/…")


def _taken_name(output: str) -> str | None:
    """Returns the name that the source defines although ``vmlinux.h`` defines it; None for another clash."""
    clash = _REDEFINED.search(output)
    if clash is None or {"vmlinux.h", "source"} != {_side(clash[1]), _side(clash[3])}:
        return None
    if clash[2] in ("_Bool", None) and (name := _TYPEDEF.search(output[clash.start() :])):
        return name[1]
    return clash[2]


def _side(path: str) -> str:
    if path.endswith("vmlinux.h"):
        return "vmlinux.h"
    return "system" if path.startswith(("/usr/include/", "/usr/local/include/")) else "source"


def without_repetitions(output: str) -> str:
    """Returns clang's diagnostics, each once: clang repeats some for every instruction, or every type."""
    if _conflict(output):
        first, second = [*(m.start() for m in _ERROR.finditer(output)), len(output), len(output)][:2]
        return output[: output.find("\nIn file included", first, second) + 1 or second]
    if not _STACK.search(output) and not _BUILTIN.search(output):
        return output
    parts = re.split(r"(?m)^(?=\S[^\n]*?:\d+:\d+: (?:error|warning|note): )", output)
    kept = {_LINE.sub("", part.partition("\n")[0]): part for part in reversed(parts) if _NOWHERE not in part}
    text = "".join(part for part in parts if part in kept.values())
    return re.sub(r"\n\s*\n", "\n", text)


_DIAGNOSTIC = re.compile(r"^\S[^\n]*?:\d+:\d+: (error|fatal error|warning): |^(?:fatal )?error: ")
_COUNT = re.compile(r"^\d+ (?:errors?|warnings?)\b.* generated\.$")
_INCLUDING = ("In file included from ", "                 from ")


def errors_first(output: str) -> str:
    """Returns clang's diagnostics with the errors before the warnings, each with its notes."""
    blocks: list[list[str]] = [[]]
    kinds = [""]
    joined = False
    for line in output.splitlines(keepends=True):
        found = _DIAGNOSTIC.match(line)
        including = line.startswith(_INCLUDING)
        if (found or including or _COUNT.match(line)) and not joined:
            blocks.append([])
            kinds.append("count" if _COUNT.match(line) else "")
        if found:
            kinds[-1] = found[1] or "error"
        joined = including
        blocks[-1].append(line)
    order = {"warning": 1, "count": 2}
    ordered = sorted(zip(kinds, blocks, strict=True), key=lambda pair: order.get(pair[0], 0))
    return "".join("".join(block) for _, block in ordered)


def _near(header: str, folders: Sequence[str]) -> str:
    """Returns advice with headers of a similar name in the expected folder; empty if there is none."""
    folder, _, name = header.rpartition("/")
    beside = {n for f in folders for n in _listed(os.path.join(f, folder))} if folder else set()
    near = get_close_matches(name, beside, n=2, cutoff=0.75)
    return f"did you mean {' or '.join(f'<{folder}/{n}>' for n in near)}?" if near else ""


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _remedy_of_libc(header: str, output: str) -> str | None:
    """Returns advice for a header of the C library, with the included header that leads to it; else None."""
    if not header.startswith(("gnu/", "bits/", "sys/cdefs")):
        return None
    included = _FROM.search(output)
    if included is None or not included[1].startswith(("linux/", "asm", "net/")):
        return _LIBC
    return (
        f"<{included[1]}> includes headers of the C library, which BPF programs don't have: replace all "
        'kernel headers by "vmlinux.h"'
    )


def _remedy_for_header(header: str, folders: Sequence[str]) -> str:
    if header in _OF_LIBBPF:
        return f"write <bpf/{header}>"
    if header.rpartition("/")[2] == "vmlinux.h":
        return 'write #include "vmlinux.h": the header is made for a source that includes it by that name'
    if near := _near(header, folders):
        return near
    if header.startswith("bpf/"):
        return _LIBBPF
    if header.startswith(_KERNELS_OWN) and any(os.path.exists(f"{each}/linux/bpf.h") for each in folders):
        return (
            f"<{header}> is a header of the kernel's own code, which BPF programs do not include: include "
            '"vmlinux.h", in place of other headers of the kernel'
        )
    if header.startswith(("linux/", "asm/", "asm-generic/")):
        return _LINUX
    return (
        f"add the header's folder with bpf_paths or cflags; clang looked in the including file's folder, "
        f"{', '.join(folders)}"
    )
