"""Finds kernel functions that share a name; a unique symbol before each function identifies it."""

from __future__ import annotations

import re
from bisect import bisect, bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.attach_names import Functions, functions
from pytest_bpfmaps.kernel.kallsyms import kernel_symbols
from pytest_bpfmaps.kernel.kprobe_trial import has_symbol
from pytest_bpfmaps.kernel.tracefs import tracefs
from pytest_bpfmaps.kernel.vmlinux_btf import FUNC, owner_has_type

_LINE = re.compile(rb"([0-9a-f]{16}) ([tTwW]) ([\w.]+)(?:\t\[(\w+)\])?")
_BEFORE = 40  # lines to search, for the kernel's own symbols
_OF_MODULE = 2000  # lines to search for a module, whose symbols are not sorted
_MOST = 4
_PADDING = ("__pfx_", "__cfi_")
_PROLOGUE = 32  # bytes after the address of a function, in which ftrace's address is
_LISTED = re.compile(rb"^([0-9a-f]{16}) (?:[tTwW] )?([\w.$]+)", re.MULTILINE)
_OF_KERNEL = re.compile(rb"^([0-9a-f]{16}) [tTwW] ([\w.$]+)$", re.MULTILINE)  # without modules


@cache
def same_named() -> frozenset[str]:
    """Returns the names that several functions of the kernel itself share. They never change at run time."""
    return frozenset(_same_named(kernel_symbols().text).decode().split())


def _same_named(text: bytes) -> bytes:
    """Returns these names as one text.

    Small objects that are made beside 200,000 others would keep the memory of those, also in a saved state.
    """
    begin, end = Functions(text).text_range
    found = (m[2] for m in _OF_KERNEL.finditer(text) if not end or begin <= m[1] < end)
    return b" ".join(name for name, count in Counter(found).items() if count > 1)


def traceable_places(names: Iterable[str]) -> list[tuple[str, int]]:
    """Returns each name with the address of each of its functions; nothing when the kernel hides addresses.

    Before Linux 6.5 the kernel does not say which of several functions can be traced.
    """
    wanted = {name.encode() for name in names}
    found = _places(kernel_symbols().text, wanted)
    root = tracefs()
    try:
        text = (root / "available_filter_functions_addrs").read_bytes() if root else b""
    except OSError:
        text = b""
    # this file has the address that ftrace changes, which is after the function's first instructions
    traced = sorted(place for _, place in _places(text, wanted))
    if traced:
        found = [(name, at) for name, at in found if bisect(traced, at + _PROLOGUE) > bisect_left(traced, at)]
    return found if all(place for _, place in found) else []


def _places(text: bytes, wanted: set[bytes]) -> list[tuple[str, int]]:
    return [(m[2].decode(), int(m[1], 16)) for m in _LISTED.finditer(text) if m[2] in wanted]


def places_of(name: str, owner: str = "") -> list[tuple[str, int]]:
    """Returns (symbol, offset in bytes) of the first few functions of that name, or of those of one `owner`.

    A kprobe takes them as ``function=SYMBOL, offset=OFFSET``. A function without a unique symbol before it is
    left out. An owner is ``vmlinux``, or a module's name.
    """
    text = kernel_symbols().text
    found: list[tuple[str, int]] = []
    ends = {"": rb"[\t\n]", "vmlinux": rb"\n"}
    end = ends.get(owner, rb"\t\[%b\]" % re.escape(owner.encode()))
    for match in re.finditer(
        rb"^[0-9a-f]{16} [tTwW] %b(?=%b)" % (re.escape(name.encode()), end), text, re.MULTILINE
    ):
        place = _before(text, match.start())
        if place is not None:
            found.append(place)
        if len(found) == _MOST:
            break
    return found


def explain_shared(name: str, section: str) -> Explanation | None:
    """Explains that a program of a section such as ``fentry`` is for a name that several functions have.

    Returns None if only one function has the name, or if ``OWNER:FUNCTION`` names one function. The types
    of a module leave out a function if the kernel itself has one of that name with the same parameters.
    """
    owner, _, function = name.rpartition(":")
    owners = functions().owners(function)
    if (owners.count(owner) if owner else len(owners)) < 2:
        return None
    why, fix = explain_same_name(function, owners.count(owner) if owner else len(owners))
    if owner or len(set(owners)) < len(owners):
        return Explanation(why, fix)
    typed = [each for each in owners if owner_has_type(each, function, FUNC)][:_MOST]
    ways = [f'SEC("{section}/{each}:{function}")' for each in typed]
    ways += [
        f'SEC("kprobe") and program.attach(function="{each}:{function}")'
        for each in owners[:_MOST]
        if each not in typed
    ]
    return Explanation(why, f"say whose it is: {' or '.join(ways)}")


def explain_kprobe(name: str) -> Explanation | None:
    """Explains that a kprobe is for a name that a module and the kernel, or two modules, have; else None.

    Some kernels refuse such a kprobe. Others take the kernel's own function, as Linux 7.2 does, or the
    first function that they find.
    """
    if has_symbol(name) is False:
        return None
    owners = functions().owners(name)
    return explain_same_name(name, len(owners)) if len(set(owners)) > 1 else None


def explain_not_there(name: str) -> Explanation:
    """Explains that an owner of ``OWNER:FUNCTION`` has no function of that name, or no types of it."""
    owner, _, function = name.rpartition(":")
    owners = functions().owners(function)
    whose = "the kernel itself" if owner == "vmlinux" else f"the module {owner}"
    if owner in owners:
        why = f"this kernel's types lack the function {function!r} of {whose}"
        return Explanation(why, f'use SEC("kprobe") and program.attach(function="{name}")')
    if not owners:
        return Explanation(f"no function is called {function!r}", functions().closest(function))
    of = " or ".join(f"'{each}:{function}'" for each in dict.fromkeys(owners))
    if owner != "vmlinux" and not Path(f"/sys/module/{owner}").is_dir():
        return Explanation(f"{whose} is not loaded", f"load it before: modprobe {owner}; or use {of}")
    return Explanation(f"{whose} has no function {function!r}", f"did you mean {of}?")


def place_of_owner(name: str) -> tuple[str, int]:
    """Returns the symbol and the offset in bytes by which a kprobe finds the function ``OWNER:FUNCTION``.

    Raises `LookupError` with the `Explanation` if there is none, or if there are several.
    """
    owner, _, function = name.rpartition(":")
    owners = functions().owners(function)
    if owner not in owners:
        raise LookupError(explain_not_there(name))
    if len(owners) == 1:
        return function, 0
    if owners.count(owner) > 1:
        why, fix = explain_same_name(function, owners.count(owner))
        raise LookupError(Explanation(f"{why} in {owner}", fix))
    if owner != "vmlinux" and has_symbol(name):  # not on Linux 5.10
        return name, 0
    places = places_of(function, owner)
    if not places:
        why = f"this kernel finds {function!r} of {owner} neither by that name, nor by a symbol before it"
        raise LookupError(Explanation(why, "use another function: one that calls it, or that it calls"))
    return places[0]


def explain_same_name(name: str, count: int) -> Explanation:
    """Explains that a kprobe can't be attached to a name that several functions have."""
    owners = functions().owners(name)
    why = f"{count} functions of this kernel have the name {name!r}"
    if len(set(owners)) == len(owners) > 1:
        whose = " or ".join(f"attach(function='{owner}:{name}')" for owner in owners[:_MOST])
        return Explanation(why, f'say whose it is: SEC("kprobe") and program.{whose}')
    ways = " or ".join(
        f"attach(function={symbol!r}, offset={offset:#x})" for symbol, offset in places_of(name)
    )
    return Explanation(
        why,
        f"name it by a unique symbol before it, which is usually in the same file: "
        f'SEC("kprobe") and program.{ways}'
        if ways
        else "use another function: one that calls it, or that it calls",
    )


def explain_untyped(name: str) -> Explanation | None:
    """Explains that the kernel's types lack a function that the kernel has; None for another function."""
    if ":" in name:
        return explain_not_there(name)
    count = 0 if has_symbol(name) is False else functions().count(name)
    if not count:
        return None
    if count > 1:
        why, fix = explain_same_name(name, count)
        return Explanation(f"{why}, so the kernel's types have none of them", fix)
    return Explanation(
        f"this kernel has {name!r}, but its types do not: it is written in assembler, or the compiler has "
        "changed its parameters",
        f'use a kprobe, SEC("kprobe/{name}")',
    )


def _before(text: bytes, start: int) -> tuple[str, int] | None:
    line = _LINE.match(text, start)
    if line is None:
        return None
    address, module = int(line[1], 16), line[4]
    near = ((int(other[1], 16), other[3].decode()) for other in _around(text, start, module))
    for at, symbol in sorted((n for n in near if n[0] < address), reverse=True):
        if not symbol.startswith(_PADDING) and "." not in symbol and functions().count(symbol) == 1:
            return symbol, address - at
    return None


def _around(text: bytes, start: int, module: bytes | None) -> Iterator[re.Match[bytes]]:
    """Yields the lines before the one at `start`; for a symbol of a module, also the lines after it."""
    begin = start
    for _ in range(_BEFORE if module is None else _OF_MODULE):
        begin = text.rfind(b"\n", 0, max(begin - 1, 0)) + 1
        line = _LINE.match(text, begin)
        if line is not None and line[4] == module:
            yield line
        if not begin or (module and not _of(text, begin, module)):
            break
    end = start
    while module is not None and (end := text.find(b"\n", end) + 1) and _of(text, end, module):
        if line := _LINE.match(text, end):
            yield line


def _of(text: bytes, begin: int, module: bytes) -> bool:
    """Returns whether the line at that offset belongs to a module."""
    return text[begin : text.find(b"\n", begin)].endswith(b"\t[%b]" % module)
