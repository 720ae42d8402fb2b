"""Reads from the declaration tags of a program what its source expects of the verifier.

The tags, and what follows from each, are those of the kernel's selftests: progs/bpf_misc.h and test_loader.c
in tools/testing/selftests/bpf. Their spelling has changed over time. It was ``comment:TAG`` first. Linux 6.12
has ``comment:TAG=NUMBER=TEXT`` for messages, and later releases have ``comment:NUMBER:TAG``. All three are
read. The numbers grow from the top of the source to its end, because compilers do not keep the order of tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pytest_bpfmaps.errors import LoadError
from pytest_bpfmaps.verifier.expected_messages import Message, by_text

_TAG = re.compile(r"comment:(?:(\d+):)?(test_\w+|load_mode)(?:=(.*))?$", re.DOTALL)
_NUMBERED = re.compile(r"(\d+)=(.*)$", re.DOTALL)
_CONSTANTS = {"INT_MIN": -(1 << 31), "_INT_MIN": -(1 << 31), "TEST_DATA_LEN": 64}
_ANY_VALUES = {"POINTER_VALUE", "0xcafe4all", "0xbadcafe"}
FLAGS = {
    "BPF_F_STRICT_ALIGNMENT": 1 << 0,
    "BPF_F_ANY_ALIGNMENT": 1 << 1,
    "BPF_F_TEST_RND_HI32": 1 << 2,
    "BPF_F_TEST_STATE_FREQ": 1 << 3,
    "BPF_F_SLEEPABLE": 1 << 4,
    "BPF_F_XDP_HAS_FRAGS": 1 << 5,
    "BPF_F_TEST_REG_INVARIANTS": 1 << 7,
}
"""The flags ``BPF_F_*`` of BPF_PROG_LOAD, from <linux/bpf.h>."""


@dataclass
class Expectation:
    """What is expected when a user with privileges, or one without, loads a program.

    - `failure`: the verifier rejects it.
    - `messages` are expected in the verifier's log, `xlated` in the rewritten program, `jited` in its machine
      code (by architecture), `stderr` and `stdout` in its streams.
    - `executes`: the program is run. Its return value is `retval`, or any value when that is None.
    - `capabilities` are bits: the capabilities that the user without privileges has nevertheless.
    """

    failure: bool = False
    messages: list[Message] = field(default_factory=list)
    xlated: list[Message] = field(default_factory=list)
    jited: dict[str, list[Message]] = field(default_factory=dict)
    stderr: list[Message] = field(default_factory=list)
    stdout: list[Message] = field(default_factory=list)
    executes: bool = False
    retval: int | None = None
    capabilities: int = 0


@dataclass
class Expected:
    """What a program's tags say. `privileged` and `unprivileged` say what is expected; None: do not try it.

    - `log_level` is the verifier's.
    - `set_flags` and `clear_flags` are ``BPF_F_*`` bits.
    - `architectures` and `jit` (True, False, None for both) say where the program can be tried at all.
    - An `auxiliary` program is loaded with the others, and is no test itself.
    - `linear_size` is the part of the packet outside of fragments, in bytes.
    """

    program: str
    description: str = ""
    privileged: Expectation | None = None
    unprivileged: Expectation | None = None
    auxiliary: frozenset[bool] = frozenset()  # for privileged (True), unprivileged (False) users
    log_level: int = 0
    set_flags: int = 0
    clear_flags: int = 0
    architectures: tuple[str, ...] = ()
    jit: bool | None = None
    btf_path: str = ""
    linear_size: int = 0


def expected_of(program: str, tags: Iterable[str]) -> Expected:
    """Reads the tags of a program. A program without tags is expected to load.

    Raises `LoadError` for a tag that can't be read.
    """
    reader = _Reader(program)
    for name, value in _in_order(tags):
        try:
            reader.take(name, value)
        except ValueError as e:
            raise LoadError(
                f"cannot read the expectation {name}",
                on=f"of program {program!r}",
                why=str(e),
                fix="see docs/expectations.md for the values that it takes",
            ) from e
    return reader.done()


def _in_order(tags: Iterable[str]) -> list[tuple[str, str]]:
    numbered = []
    for tag in tags:
        match = _TAG.match(tag)
        if match is None:
            continue
        number, name, value = match[1], match[2], match[3] or ""
        second = _NUMBERED.match(value) if number is None and "description" not in name else None
        if second is not None:
            number, value = second[1], second[2]
        numbered.append((int(number or 0), name.removeprefix("test_"), value))
    return [(name, value) for _, name, value in sorted(numbered, key=lambda t: t[0])]


class _Reader:
    """Takes the tags in order. A tag for users without privileges ends in ``_unpriv``."""

    def __init__(self, program: str) -> None:
        self.result = Expected(program)
        self.sides = {True: Expectation(), False: Expectation()}
        self.asked: set[bool] = set()
        self.given: set[str] = set()  # tags that users without privileges have of their own
        self.architecture = ""
        self.gap: set[object] = set()  # lists whose next message may be on any later line
        self.actions: dict[str, Callable[[str, Expectation], object]] = {
            "expect_failure": lambda _, side: setattr(side, "failure", True),
            "expect_success": lambda _, side: setattr(side, "failure", False),
            "expect_msg": lambda text, side: side.messages.append(by_text(text)),
            "expect_not_msg": lambda text, side: side.messages.append(by_text(text, negative=True)),
            "expect_xlated": lambda text, side: self._line(side.xlated, text),
            "expect_stderr": lambda text, side: self._line(side.stderr, text),
            "expect_stdout": lambda text, side: self._line(side.stdout, text),
            "jited": self._jited,
            "retval": self._retval,
            "caps": self._caps,
        }

    def take(self, name: str, value: str) -> None:
        """Takes one tag. Raises `ValueError`."""
        privileged = not name.endswith("_unpriv")
        base = name.removesuffix("_unpriv")
        if base == "auxiliary":
            self.result.auxiliary |= {privileged}
            self.asked.add(privileged)
        elif base in self.actions:
            self.actions[base](value, self.sides[privileged])
            if base not in ("expect_stderr", "expect_stdout"):
                self.asked.add(privileged)
            if not privileged:
                self.given.add(base)
        else:
            self._general(base, value)

    def done(self) -> Expected:
        """Returns what the tags said.

        Users without privileges take from those with privileges what their own tags do not say.
        """
        mine, theirs = self.sides[True], self.sides[False]
        if not self.given & {"expect_failure", "expect_success"}:
            theirs.failure = mine.failure
        if "retval" not in self.given:
            theirs.executes, theirs.retval = mine.executes, mine.retval
        for name in ("messages", "xlated", "jited", "stderr", "stdout"):
            setattr(theirs, name, getattr(theirs, name) or getattr(mine, name))
        asked = self.asked or {True}
        self.result.privileged = mine if True in asked else None
        self.result.unprivileged = theirs if False in asked else None
        return self.result

    def _general(self, name: str, value: str) -> None:
        result = self.result
        match name:
            case "description":
                result.description = value
            case "log_level":
                result.log_level = _number(value)
            case "prog_flags":
                self._flag(value)
            case "arch":
                self.architecture = value
                result.architectures += (value,)
            case "load_mode":
                result.jit = {"jited": True, "no_jited": False}.get(value)
            case "btf_path" | "btf_func_path":
                result.btf_path = value
            case "linear_size":
                result.linear_size = _number(value)

    def _flag(self, value: str) -> None:
        name = value.removeprefix("!")
        bit = FLAGS.get(name) or _number(name)
        on, off = self.result.set_flags, self.result.clear_flags
        if value.startswith("!"):
            self.result.set_flags, self.result.clear_flags = on & ~bit, off | bit
        else:
            self.result.set_flags, self.result.clear_flags = on | bit, off & ~bit

    def _jited(self, text: str, side: Expectation) -> None:
        if not self.architecture:
            raise ValueError("it must come after an __arch_… tag")
        self._line(side.jited.setdefault(self.architecture, []), text)

    def _line(self, messages: list[Message], text: str) -> None:
        """Adds a line that must follow the one before it, unless ``...`` stands between them."""
        if text == "...":
            self.gap.add(id(messages))
            return
        messages.append(by_text(text, next_line=bool(messages) and id(messages) not in self.gap))
        self.gap.discard(id(messages))

    def _retval(self, text: str, side: Expectation) -> None:
        side.executes = True
        any_value = text in _ANY_VALUES
        side.retval = None if any_value else _CONSTANTS[text] if text in _CONSTANTS else _number(text)

    def _caps(self, text: str, side: Expectation) -> None:
        for number in text.split("|"):
            side.capabilities |= 1 << _number(number.strip())


def _number(text: str) -> int:
    """Returns a decimal number, or a hexadecimal one with 0x before it. Raises `ValueError`."""
    try:
        return int(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
