"""Tests that docs/map-types.md, which ci/map-types makes, has an answer for every map type and kernel."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.kernel.bpf_types import MapType

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/map-types.md"


def rows():
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in lines}


def test_every_type_has_an_answer_for_every_kernel():
    table = rows()
    kernels = table.pop("map type")
    assert {"host", "5.10", "6.1", "6.12", "7.2"} <= set(kernels)
    assert set(table) == {t.name for t in MapType} - {"UNSPEC", "INSN_ARRAY"}
    notes = set(re.findall(r"^\[\^(\d+)\]: .", PAGE.read_text(), re.MULTILINE))
    for name, cells in table.items():
        assert len(cells) == len(kernels), name
        for cell in cells:
            number = re.fullmatch(r"[1-9]\d*|no\[\^(\d+)\]", cell)
            assert number, f"{name}: {cell!r}"
            assert number[1] is None or number[1] in notes


XML = """<testsuites><testsuite>
<testcase classname="t" name="test_a[host]"><properties><property name="bpf_kernel" value="host"/>
<property name="map_types" value="hash lru_hash"/></properties></testcase>
<testcase classname="t" name="test_a[5.10]">
<properties><property name="bpf_kernel" value="5.10"/></properties>
{}</testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("end", "cell", "word"),
    [
        ('<skipped message="5.10.0 lacks helper x: y; run it in a virtual machine: z"/>', "no[^1]", ""),
        ("<failure/>", "", "failed: t.test_a[] on 5.10"),
    ],
)
def test_the_table_of_a_run(tmp_path, end, cell, word):
    run = tmp_path / "run.xml"
    run.write_text(XML.format(end))
    done = subprocess.run(
        [sys.executable, ROOT / "ci/map-types", run], capture_output=True, text=True, check=False
    )
    assert f"| HASH | 1 | {cell} |" in done.stdout
    assert "[^1]: helper x: y\n" in done.stdout or word
    assert word in done.stderr
    assert done.returncode == 1  # most types have no test in this run
    assert "empty cell: | QUEUE |" in done.stderr
