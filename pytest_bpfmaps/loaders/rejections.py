"""Explains what a loader wrote when the kernel refused its programs: the verifier's log, or libbpf's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.objects.diagnosis.libbpf_log import explain_log
from pytest_bpfmaps.objects.diagnosis.refused_helpers import refused_helper
from pytest_bpfmaps.objects.diagnosis.relocations import explain_relocation
from pytest_bpfmaps.verifier import Rejection, advise, advise_closer, parse_log

_BLOCK = re.compile(  # libbpf's
    r"^(?:libbpf: )?(?:prog '(?P<name>[^']+)': )?-- BEGIN PROG LOAD LOG --\n(?P<log>.*?)"
    r"^(?:libbpf: )?-- END PROG LOAD LOG --",
    re.MULTILINE | re.DOTALL,
)
_FAILED = re.compile(
    r"^(?:libbpf: )?prog '([^']+)': (?:BPF program load failed|failed to load)", re.MULTILINE
)
_GO = re.compile(r"\bprogram (\w+): load program: [^:]+: ")
_BEGIN = re.compile(
    r"^\s*(?:\d+: \([0-9a-f]{2}\) |\d+: R1=|func#0 @0|Validating \w+\(\) func#)", re.MULTILINE
)
_END = re.compile(r"^\s*processed \d+ insns.*$", re.MULTILINE)
_PARSED = 1 << 18  # characters from the end of a log
_MOST_SAID = 6
_PREFIX = re.compile(r"^libbpf: ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why programs were refused. `details` has the C line and the verifier's words; `log` is all it said."""

    explanation: Explanation
    details: str
    log: str


def explain_rejection(text: str) -> Refusal | None:
    """Explains the verifier's log in what a loader wrote, or libbpf's; None if neither is known."""
    found = _log_in(text)
    if found is None:
        known = explain_log(_PREFIX.sub("", text))
        return None if known is None else Refusal(known, "", "")
    name, log = found
    rejection = parse_log(log[-_PARSED:])
    if not rejection.complaint:
        return None
    advice = _advice(rejection)
    program = f"program {name!r}" if name else "a program"
    why = advice.why if advice else rejection.complaint[-1]
    fix = advice.fix if advice else "the whole log is in the error's log attribute"
    return Refusal(Explanation(f"the verifier rejected {program}: {why}", fix), _rejected_at(rejection), log)


def _log_in(text: str) -> tuple[str, str] | None:
    """Returns the name of a program, empty if unknown, and the verifier's log."""
    block = _BLOCK.search(text)
    if block:
        failed = _FAILED.findall(text[: block.end()])
        return block["name"] or (failed[-1] if failed else ""), block["log"]
    named = _GO.search(text)
    begin = named.end() if named else None
    if begin is None:
        first = _BEGIN.search(text)
        if first is None:
            return None
        begin = first.start()
    end = _END.search(text, begin)
    return named[1] if named else "", text[begin : end.end() if end else len(text)]


def _advice(found: Rejection) -> Explanation | None:
    helper = refused_helper(found.text, found.source, ProgramType.UNSPEC)
    if helper:  # no loader writes the type
        helper = helper._replace(why=helper.why.replace(f" ({ProgramType.UNSPEC})", ""))
    return explain_relocation(found.text) or helper or advise_closer(found) or advise(found.text)


def _rejected_at(found: Rejection) -> str:
    lines = []
    if found.source:
        place = f"{found.file}:{found.line}" if found.line else "C source"
        lines.append(f"  {place}: {found.source}")
    if found.index is not None:
        lines.append(f"      instruction {found.index}: {found.instruction}")
    lines += [f"      {register} = {state}" for register, state in found.relevant_registers().items()]
    lines += [f"  verifier: {said}" for said in found.complaint[-_MOST_SAID:]]
    return "\n".join(lines)
