"""Reads a verifier's log: the rejected instruction, its C source line, the registers that matter.

The log is for people, and changes between releases. These lines have the same form from Linux 5.10 on: an
instruction (``12: (61) r0 = *(u32 *)(r1 +0)``, from 5.18 on with the changed registers after a ``;``), a
source line (``; return *p;``, from 6.10 on with `` @ file.c:7``), and a state (``12: R1=ctx R10=fp0``, or
``from 4 to 9: R0=...``). Any other lines at the end are the complaint. From 7.3 on, the kernel's own
explanation follows (kernel/bpf/diagnostics.c): ``Verification failed: …``, and sections with titles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pytest_bpfmaps.errors import Explanation

_INSTRUCTION = re.compile(r"^(\d+): \([0-9a-f]{2}\) (.*?)(?:\s+;(?: (R.*))?)?$")
# kernels print the state at the start of a callback on the same line as the call that gets the callback
_JOINED = re.compile(r"^(\d+: \(85\) call \S+) (\d+: frame\d)", re.MULTILINE)
_UNFINISHED = re.compile(r"^(.* goto pc[+-]\d+) (\S.*)$")  # the complaint follows on the same line
_POISONED = re.compile(r"^(\d+): <(invalid .*)>$")  # libbpf's text for a relocation that failed
_SOURCE = re.compile(r"^; (.*?)(?: @ ([^@]+):(\d+))?$")
# old kernels write the state without a number in front, after the last instruction
_STATE = re.compile(
    r"^(?:from \d+ to )?\d+:(?: safe)? ?(R\d.*|frame\d.*)?$|^((?:frame\d+: )?R\d(?:_\w+)?=.* R10=fp.*)$"
)
_SETS = re.compile(r"^[rw](\d+) \S*= ")
_REGISTER = re.compile(r"\b(R\d+)(?:_\w+)?=(\S+?\([^()]*(?:\([^()]*\)[^()]*)*\)|\S+)")
_WITHOUT_NEWLINE = re.compile(r"processed \d+ insns \(limit.*$")  # follows a complaint without a newline
_VALIDATING = re.compile(r"^Validating (\w+)\(\) func#\d+")
_VALID = re.compile(r"^Func#\d+ .*is safe for any args")
_EXPLAINED = "Verification failed: "
_TITLE = re.compile(r"^(Reason|At|Causal path|Suggestion):$")
_UNSIZED = re.compile(r"^arg#\d+ reference type\(.*\) size cannot be determined")
_NOISE = (
    "processed ",
    "verification time",
    "stack depth",
    "max_states_per_insn",
    "peak_states",
    "mark_precise",
    "regs=",
    "parent ",
    "last_idx",
    "first_idx",
    "insns processed ",
    "func#",
    "caller",
    "callee",
    "returning from callee",
    "arg#0 reference type",
    "to caller",
)


@dataclass(frozen=True, slots=True)
class VerifierStep:
    """An instruction, and the C line that it comes from."""

    index: int
    instruction: str
    source: str
    file: str
    line: int | None


@dataclass
class Rejection:
    """Why a program was rejected.

    `complaint` has the verifier's last lines. `index` and `instruction` are number and text of the last
    instruction that it checked. `source` is the C line of that instruction, with `file` and `line` if the
    kernel names them. `registers` has the last known state of each register. `steps` has each instruction
    that the log shows, by number, with its C line. `function` is the global function that was being verified
    by itself; it is empty in a program. `explained` is what the kernel itself says of it (Linux 7.3).
    """

    complaint: list[str] = field(default_factory=list)
    index: int | None = None
    instruction: str = ""
    source: str = ""
    file: str = ""
    line: int | None = None
    function: str = ""
    registers: dict[str, str] = field(default_factory=dict)
    steps: dict[int, VerifierStep] = field(default_factory=dict)
    explained: Explanation | None = None

    @property
    def text(self) -> str:
        """The whole complaint as text."""
        return "\n".join(self.complaint)

    @property
    def acquired(self) -> VerifierStep | None:
        """The call that acquired what is not released; None if the log does not show it."""
        found = re.search(r"alloc_insn=(\d+)", self.text)
        return self.steps.get(int(found[1])) if found else None

    def relevant_registers(self) -> dict[str, str]:
        """Returns the registers that the complaint or the rejected instruction names."""
        named = set(re.findall(r"\b[Rr](\d+)\b", f"{self.text} {self.instruction}"))
        return {r: v for r, v in self.registers.items() if r[1:] in named}


def parse_log(log: str) -> Rejection:
    """Returns what a whole log says about the instruction that was rejected."""
    log, _, explained = log.partition(f"\n{_EXPLAINED}")
    found = Rejection()
    found.explained = _kernels_own(explained)
    source: tuple[str, str, int | None] = ("", "", None)
    unsized = ""
    changed: set[str] = set()  # registers with a new value that the log has not shown yet
    for text in _JOINED.sub(r"\1\n\2", log).splitlines():
        line = text.strip()
        if _UNSIZED.match(line):
            unsized = line
        if not line or line.startswith(_NOISE):
            continue
        if match := _INSTRUCTION.match(line):
            _forget_registers(found, changed)  # of the instruction before: the verifier accepted it
            found.index, found.instruction = int(match[1]), match[2]
            found.source, found.file, found.line = source
            found.complaint = []
            if unfinished := _UNFINISHED.match(found.instruction):
                found.instruction, said = unfinished.groups()
                found.complaint.append(said)
            found.steps[found.index] = VerifierStep(found.index, found.instruction, *source)
            changed = _set_by(found.instruction) - _note_registers(found, match[3] or "")
        elif match := _VALIDATING.match(line):
            found.function = match[1]
        elif _VALID.match(line):
            found.function = ""
        elif match := _POISONED.match(line):
            found.index, found.instruction = int(match[1]), match[2]
            found.source, found.file, found.line = source
        elif match := _SOURCE.match(line):
            source = (match[1].strip(), match[2] or "", int(match[3]) if match[3] else None)
        elif match := _STATE.match(line):
            state, is_whole = match[1] or match[2] or "", line.startswith("from ")
            changed -= _note_registers(found, state, is_whole=is_whole)
        else:
            found.complaint.append(_WITHOUT_NEWLINE.sub("", line))
    if unsized and not found.complaint:
        found.complaint.append(unsized)  # old kernels write no other complaint about such a call
    return found


def _kernels_own(explained: str) -> Explanation | None:
    """Returns the kernel's reason and suggestion, each in one line."""
    said: dict[str, list[str]] = {}
    title = ""
    for line in map(str.strip, explained.splitlines()):
        if match := _TITLE.match(line):
            title = match[1]
        elif line and not line.startswith(_NOISE):
            said.setdefault(title, []).append(line)
    reason, suggestion = (" ".join(said.get(each, ())) for each in ("Reason", "Suggestion"))
    return Explanation(reason, suggestion or None) if reason else None


def _note_registers(found: Rejection, state: str, *, is_whole: bool = False) -> set[str]:
    """Notes the registers of a state, and returns their names. A whole state has each register in use."""
    if is_whole:
        found.registers.clear()
    shown = {m[1]: m[2] for m in _REGISTER.finditer(state)}
    found.registers.update(shown)
    return set(shown)


def _forget_registers(found: Rejection, names: set[str]) -> None:
    for name in names:
        found.registers.pop(name, None)


def _set_by(instruction: str) -> set[str]:
    """Returns the registers that an instruction changes. A call changes those of its arguments, too."""
    if instruction.startswith("call "):
        return {f"R{n}" for n in range(6)}
    match = _SETS.match(instruction)
    return {f"R{match[1]}"} if match else set()
