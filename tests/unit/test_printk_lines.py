"""Tests lines of trace_pipe, and which of them a format can have printed."""

import os
import re
import threading
from pathlib import Path

import pytest

from pytest_bpfmaps.events.printk import _pattern, parse

TRACE = """\
          python-123     [001] d..31   12.345678: bpf_trace_printk: hello
 Web Content X-7       [000] d.h1  1500.000001: bpf_trace_printk: two
lines
CPU:1 [LOST 5 EVENTS]
          <idle>-0       [003] d.s.. 99.5: bpf_trace_printk: \n"""


def test_text_and_who_printed_it():
    first, second, third = parse(TRACE.split("\n"))
    assert (first, first.comm, first.pid, first.cpu, first.timestamp) == (
        "hello",
        "python",
        123,
        1,
        12.345678,
    )
    assert (second, second.comm) == ("two\nlines", "Web Content X")
    assert (third, third.comm, third.pid) == ("", "<idle>", 0)


def test_a_thread_whose_name_the_trace_lacks_is_asked_for_it():
    pid = threading.get_native_id()
    form = "{}-{} [000] d..31 1.5: bpf_trace_printk: x"
    unknown, gone, known = parse(
        [form.format("<...>", pid), form.format("<...>", 1 << 30), form.format("(sd-pam)", pid)]
    )
    assert unknown.comm == Path(f"/proc/{os.getpid()}/task/{pid}/comm").read_text().rstrip("\n")
    assert (gone.comm, known.comm) == ("<...>", "(sd-pam)")


@pytest.mark.parametrize(
    "trace",
    [  # with and without the thread group
        "          python-123     (  123) [001] d..31   12.3: bpf_trace_printk: hello",
        "          python-123     (-----) [001] d..31   12.3: bpf_trace_printk: hello",
        "          python-123     [001] d..31   12.3: hello",
    ],
)
def test_other_forms_of_a_line(trace):
    (line,) = parse(["of an older line", trace, ""])
    assert (line, line.pid, line.cpu) == ("hello", 123, 1)


@pytest.mark.parametrize(
    ("format", "fits", "fits_not"),
    [
        ("plain", ["plain"], ["plain and more", "plai"]),
        ("pid %d of %u", ["pid -1 of 7"], ["pid x of 7"]),
        ("%s: %llx %c", ["a b: ff x"], ["a b ff x"]),
        ("100%% of %pI4\n", ["100% of 10.0.0.1"], ["100 of 10.0.0.1"]),
        ("a.b", ["a.b"], ["axb"]),
        ("%08lx|%-4d|%5s", ["00000001|3   |    x"], ["1|2"]),
    ],
)
def test_what_a_format_can_print(format, fits, fits_not):
    pattern = re.compile(_pattern(format), re.DOTALL)
    assert all(pattern.fullmatch(text) for text in fits)
    assert not any(pattern.fullmatch(text) for text in fits_not)
