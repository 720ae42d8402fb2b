"""Finds the kernel's complaints in its log: where one begins and ends, and which lines to show.

Lines may have a time, as on a console, or none, as from ``/dev/kmsg``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LONGEST, LAST = 60, 12

_STAMP = re.compile(r"^\[ *\d+\.\d+\] ?(?:\[ *[CT]\d+\] ?)?")
_CUT = re.compile(r"-+\[ cut here \]-+$")
_BANNER = re.compile(r"={10,}$")
_END = re.compile(r"---\[ end ")
_START = re.compile(
    r"(?:[\w/.-]+: )?(?:WARNING: |BUG: |\[ BUG: |BUG [\w-]+ \(|kernel BUG at |UBSAN: |Oops: |double fault: "
    r"|general protection fault|stack segment|unreferenced object 0x|\d+ new suspected memory leaks"
    r"|INFO: task \S+ .*blocked|INFO: .*detected (?:expedited )?stall"
    r"|INFO: (?:suspicious|possible|trying to))"
)
_GOES_ON = re.compile(r"Oops: ")  # may be the second line of a complaint
_FRAMED = re.compile(r"BUG: K")  # sanitizers also print a line of "=" below the headline
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)|Uhhuh\. NMI received")
_TRACE = re.compile(r"Call Trace:|stack backtrace:|Backtrace:")
_OF_A_TRACE = re.compile(r"\s|RIP: |CPU: |Call Trace|---\[|Tainted: |Workqueue: |Stack:|task:|RAX|EFLAGS|$")
# Lines that are not shown: registers, bytes of code and of pages, guesses of the unwinder, the state of
# interrupts, idle CPUs.
_NOISE = re.compile(
    r"Modules linked in:|Code: |RSP: |R[A-Z0-9]{2}: [0-9a-f]{16}|[CDFG]S: |CR2: |DR[0-7]: |PKRU: "
    r"|Hardware name: |RIP: 0033:|ORIG_RAX: |\s+\? |\s*</?[A-Z]+>$|Kernel Offset: "
    r"|irq event stamp: |(?:hard|soft)irqs last +(?:en|dis)abled at |(?:raw|head): [0-9a-f]{16}"
    r"|NMI backtrace for cpu \d+ skipped|INFO: NMI handler .* took too long"
)
_CPU = re.compile(r"NMI backtrace for cpu \d+$")
_ASKS = re.compile(r" nmi_trigger_cpumask_backtrace\+")
_OTHER_CPUS = re.compile(r"Sending NMI from CPU ")
_OLD_WARNING = re.compile(
    r"WARNING: CPU: \d+ PID: \d+ at (?:(\S+:\d+) )?(\S+?)\+0x[0-9a-fx/]+(?: (\[\w+\]))?"
)
_NEW_WARNING = re.compile(r"WARNING: (?:.* )?(\S+:\d+) at (\S+?)\+0x[0-9a-fx/]+(?: (\[\w+\]))?")
_WHERE = re.compile(r"RIP: 0010:(\S+?)\+0x")


@dataclass(frozen=True)
class Splat:
    """One complaint of the kernel; `is_whole` is False if more of it may come."""

    lines: tuple[str, ...]
    is_whole: bool = True

    @property
    def headline(self) -> str:
        """What the kernel complains about, and where, in one line."""
        first = next(i for i, line in enumerate(self.lines) if _START.match(line))
        line = self.lines[first].strip()
        if found := _OLD_WARNING.match(line) or _NEW_WARNING.match(line):
            file, function, module = found.groups()
            where = f"WARNING at {file} in {function}()" if file else f"WARNING in {function}()"
            said = [text for text in self.lines[:first] if not _CUT.match(text) and text.strip()]
            return " ".join(filter(None, [where, module])) + (f": {said[0].strip()}" if said else "")
        places = [place[1] for place in map(_WHERE.match, self.lines) if place]
        return f"{line} at {places[0]}()" if places and places[0] not in line else line

    @property
    def text(self) -> str:
        """Its readable lines as text."""
        return "\n".join(readable(self.lines))


def splats(lines: Sequence[str]) -> list[Splat]:
    """Returns the complaints in `lines`, each with all lines that belong to it."""
    found: list[Splat] = []
    held: list[str] = []  # an opening line, and the lines after it that may belong to it
    current: list[str] = []
    traced = False

    def end(is_whole: bool = True) -> None:
        if current:
            found.append(Splat(tuple(current), is_whole))
        current.clear()

    for line in lines:
        banner = bool(_BANNER.match(line))
        if current and (_END.match(line) or (banner and _BANNER.match(current[0]))):
            current.append(line)
            end()
            continue
        if current and (_CUT.match(line) or banner or _is_next(line, current, traced)):
            end()
        if current:
            current.append(line)
            traced = traced or bool(_TRACE.match(line))
        elif _START.match(line):
            current[:], held, traced = [*held, line], [], False
        elif _CUT.match(line) or banner:
            held = [line]
        elif held:
            held = [*held, line] if len(held) < 6 else []
    end(is_whole=False)
    return found


def _is_next(line: str, current: list[str], traced: bool) -> bool:
    """Returns whether `line` no longer belongs to the splat `current`."""
    if any(map(_FRAMED.match, current[1:2])):
        return False
    if _START.match(line):
        return not _GOES_ON.match(line)
    return traced and not (_OF_A_TRACE.match(line) or _NOISE.match(line))


def bare(line: str) -> str:
    """Returns a line of a console without its time."""
    return _STAMP.sub("", line)


def complaint_start(lines: Sequence[str]) -> int | None:
    """Returns the index of the first line of a complaint or a panic; None if there is none."""
    for index, line in enumerate(map(bare, lines)):
        if _START.match(line) or _PANIC.match(line):
            opened = index > 0 and _CUT.match(bare(lines[index - 1]))
            return index - 1 if opened else index
    return None


def panic_start(lines: Sequence[str]) -> int | None:
    """Returns the index where the first panic begins; None if there is none.

    It begins with the first complaint in the 60 lines before it. Earlier ones may have another cause.
    """
    panics = [index for index, line in enumerate(map(bare, lines)) if _PANIC.match(line)]
    if not panics:
        return None
    first = max(panics[0] - LONGEST, 0)
    return first + (complaint_start(lines[first:]) or 0)


def reason(lines: Sequence[str]) -> str | None:
    """Returns why the kernel panicked, in its own words; None if it did not."""
    panics = [found[1] for found in map(_PANIC.match, map(bare, lines)) if found and found[1]]
    return panics[0].strip() if panics else None


def headlines(lines: Sequence[str]) -> list[str]:
    """Returns one line for each complaint of the kernel."""
    return [splat.headline for splat in splats([*map(bare, lines)])]


def readable(lines: Sequence[str]) -> list[str]:
    """Returns `lines` without registers and guesses; of many lines only the first and the last ones."""
    kept = [line for line in _without_asking(lines) if line.strip() and not _NOISE.match(bare(line))]
    if len(kept) <= LONGEST:
        return kept
    left_out = len(kept) - LONGEST + 1
    return [*kept[: LONGEST - LAST - 1], f"[... {left_out} lines ...]", *kept[-LAST:]]


def _without_asking(lines: Sequence[str]) -> Iterator[str]:
    """Yields the lines without the stack of the CPU that requests the stacks of all CPUs."""
    asking = False
    for index, line in enumerate(map(bare, lines)):
        if _CPU.match(line):
            asking = any(_ASKS.match(bare(each)) for each in lines[index : index + LONGEST])
        if _OTHER_CPUS.match(line):
            asking = False
        elif not asking:
            yield lines[index]
