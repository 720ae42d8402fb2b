"""Runs the program and the test that the README shows."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def block(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_openat")
def test_the_example(bpf, tmp_path):
    program = tmp_path / "opens.bpf.c"
    program.write_text(block("c"))
    text = block("python")
    assert '"opens.bpf.c"' in text
    names = {}
    exec(compile(text.replace("opens.bpf.c", str(program)), "README.md", "exec"), names)
    assert names["pytestmark"].args == ("tracepoint/syscalls/sys_enter_openat",)
    names["test_counts_files_per_process"](bpf)
