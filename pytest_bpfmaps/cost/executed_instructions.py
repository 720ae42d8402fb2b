"""Counts the machine instructions that a program executes: in emulated guests, where QEMU sees each of them.

The kernel's helpers are not part of a program, so what they execute does not count.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.kernel.program_code import program_code
from pytest_bpfmaps.vm.executed.modules import module_parts
from pytest_bpfmaps.vm.protocol.rpc import Host

NO_GUEST = "instructions are counted in emulated guests only (--bpf-kernel=NAME)"
HIDDEN = "the kernel hides where the program's machine code is (no JIT, or kernel.kptr_restrict)"
CHANGING = "it executes another number in each run"
TOO_LATE = "the counting did not begin with the tests: take bpf_benchmark as an argument of the test"
_RUNS = 3


@cache
def begin() -> str:
    """Begins to count in this guest; returns why that is impossible, or an empty text.

    It is to be called before any program of a test runs: QEMU counts only what it translates afterwards.
    """
    host = Host.connect()
    if host is None:
        return NO_GUEST
    try:
        host.call("executed", json.dumps({"modules": module_parts()}))
    except (BpfError, OSError) as error:
        return getattr(error, "why", None) or str(error)
    except KeyError:  # the gateway knows no such call
        return "this guest was started without the counting of instructions"
    return ""


def has_begun() -> bool:
    """Returns whether `begin` was called."""
    return begin.cache_info().currsize > 0


class InstructionCounter:
    """Counts for programs of this process. `why` tells why it can't, and is empty where it can."""

    def __init__(self) -> None:
        self._host = Host.connect()
        self.why = NO_GUEST if self._host is None else begin() if has_begun() else TOO_LATE

    def of_run(self, program_id: int, run: Callable[[], Any]) -> int | str:
        """Returns how many instructions one `run` of a program executes; why that is unknown where it is."""
        if self.why:
            return self.why
        parts = _parts(program_id)
        if not parts:
            return HIDDEN
        run()  # QEMU translates the code, and caches of maps fill
        found = [self._one(parts, run) for _ in range(_RUNS)]
        if why := next((each for each in found if isinstance(each, str)), None):
            return why
        if len(set(found)) > 1:
            return f"{CHANGING}: {', '.join(map(str, found))}"
        return found[0] or "QEMU saw none of them: the program was translated before the counting began"

    def _one(self, parts: list[tuple[int, int]], run: Callable[[], Any]) -> int | str:
        assert self._host is not None
        asked = json.dumps({"count": parts})
        try:
            before = json.loads(self._host.call("executed", asked))
            run()
            after = json.loads(self._host.call("executed", asked))
        except BpfError as error:
            return error.why or str(error)
        return int(after["executed"]) - int(before["executed"])


def _parts(program_id: int) -> list[tuple[int, int]]:
    """Returns where the machine code of a program's functions is; none where the kernel hides it."""
    facts = program_code(program_id)
    starts, sizes = facts["jited_ksyms"], facts["jited_func_lens"]
    pairs = zip(struct.iter_unpack("=Q", starts), struct.iter_unpack("=I", sizes), strict=False)
    return [(start, start + size) for (start,), (size,) in pairs if start]
