"""What a run with ``--bpf-cost-check`` shows when one program has grown."""

from __future__ import annotations

import pytest


def assert_turns_has_grown(result: pytest.RunResult, kernel: str, source: str, of: int) -> None:
    """Asserts that of so many programs only ``turns`` of that kernel costs more, in the line ``// the work``.

    Kernels before Linux 6.10 do not tell the number of the line, so the line above may be named.
    """
    assert result.ret == 1
    (line,) = (n for n, text in enumerate(source.splitlines(), 1) if text.endswith("// the work"))
    result.stdout.re_match_lines(
        [
            r"program +kernel +figure +before +now +change",
            rf"turns\.bpf\.c: turns +{kernel} +instructions +\d+ +\d+ +\+\d+\.\d%",
            r" +the lines that cost more instructions than before:",
            r" +before +now$",
            rf" +\d+ +\d+  turns\.bpf\.c:({line}|{line - 1}): ",
            rf"FAILED: 1 of {of} programs cost more than costs allows",
        ]
    )
