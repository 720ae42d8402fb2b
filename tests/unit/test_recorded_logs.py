"""Tests recorded logs of several kernels for fixtures/rejected: each gives the same sentence and line."""

import re
from pathlib import Path

import pytest

from pytest_bpfmaps.verifier import advise, parse_log

FIXTURES = Path(__file__).parents[2] / "fixtures"
LOGS = sorted((FIXTURES / "verifier_logs").glob("*/*.log"))


def source_of(log):
    return FIXTURES / "rejected" / f"{log.stem}.bpf.c"


def test_there_are_logs_of_several_kernels():
    kernels = {log.parent.name for log in LOGS}
    assert {"5.10", "6.1", "6.12", "7.2"} <= kernels
    assert len(LOGS) > 15 * len(kernels)


@pytest.mark.parametrize("log", LOGS, ids=lambda log: f"{log.parent.name}-{log.stem}")
def test_each_kernel_gets_the_same_sentence_and_line(log):
    text = source_of(log).read_text()
    found = parse_log(log.read_text())
    advice = advise(found.text)
    assert advice, found.text
    assert re.search(re.match(r"// expect: (.*)", text)[1], advice.why), found.text
    marked = [line.strip() for line in text.splitlines() if "// rejected" in line]
    assert not marked or found.source in marked
