"""Tests what outlives its test, where one file is enough to make it."""

from __future__ import annotations

import pytest
from shown_blocks import shows

HEAD = """
import os
import pytest
from pathlib import Path
from pytest_bpfmaps.maps.create import create_map
from pytest_bpfmaps.objects import OpenedObject

CODE = '''
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct {
    __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, int); __type(value, long);
} counts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
struct event { int pid; } an_event;
SEC("xdp") int watch(struct xdp_md *ctx) { return XDP_PASS; }
'''
kept = []
"""


def run(pytester: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=HEAD + tests)
    return pytester.runpytest_subprocess("-p", "no:xdist", *arguments)


def line_of(pytester: pytest.Pytester, text: str) -> int:
    lines = (pytester.path / "test_it.py").read_text().splitlines()
    return 1 + next(n for n, line in enumerate(lines) if text in line)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (
            "object test_it.bpf.o",
            'kept.append(OpenedObject(bpf.compile(code=CODE), name="test_it.bpf.o").load())',
        ),
        (
            "map 'mine' (array)",
            'kept.append(create_map(None, "array", key=4, value=8, max_entries=1, name="mine"))',
        ),
        ("capture of map 'events' (ringbuf)", 'bpf.load(code=CODE).maps.events.capture("event")'),
        ("pin {path} of map 'mine' (array)", "pin(bpf.pin_root)"),
        ("network namespace bpfmaps-*", "kept.append(namespace())"),
    ],
)
def test_what_is_left_has_its_line(pytester: pytest.Pytester, what: str, code: str) -> None:
    result = run(
        pytester,
        f"""
def pin(folder):
    with create_map(None, "array", key=4, value=8, max_entries=1, name="mine") as made:
        made.pin(folder / "mine")  # pinned

def namespace():
    from pytest_bpfmaps.triggers.netns import NetNsFactory
    factory = NetNsFactory()
    return factory, factory()  # namespace

def test_leaves(bpf_session):
    bpf = bpf_session
    {code}  # here

def test_next(bpf): pass
""",
    )
    result.assert_outcomes(passed=2, errors=1)
    line = line_of(pytester, "# pinned" if "pin " in what else "# namespace" if "netw" in what else "# here")
    what = what.format(path="*/mine").replace("[", "[[]")
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_leaves*",
            f"1 thing outlives the test: {what}, made at test_it.py:{line}",
            "  -> close it, best by 'with', or have a fixture make it: bpf, *",
        ]
    )


def test_a_line_in_a_helper_comes_with_the_test_s_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        helper="from pytest_bpfmaps.maps.create import create_map\ndef new():\n"
        "    return create_map(None, 'array', key=4, value=8, max_entries=1)\n"
    )
    result = run(pytester, "import helper\ndef test_x(bpf):\n    kept.append(helper.new())\n")
    line = line_of(pytester, "helper.new()")
    result.stdout.fnmatch_lines(
        [f"1 thing outlives the test: map 'array' (array), made at test_it.py:{line}, in helper.py:3"]
    )


def test_the_manual_shows_the_report(pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("tests")
    (folder / "helpers.py").write_text(
        "def records(loaded):\n    return loaded.maps.events.capture('event')\n"
    )
    code = HEAD + (
        "from helpers import records\n"
        "def test_counts(bpf_session):\n"
        "    path = bpf_session.compile(code=CODE)\n"
        "    kept.append(OpenedObject(path, name='counter.bpf.o').load())\n"
        "    kept.append(records(bpf_session.load(path)))\n"
    )
    (folder / "test_counter.py").write_text(code)
    result = pytester.runpytest_subprocess("-p", "no:xdist", "--rootdir=.")
    result.assert_outcomes(passed=1, errors=1)
    shows("leaks.md", "things outlive", result.stdout.str())


def test_a_descriptor_of_unknown_origin(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_duplicates(bpf):
    made = bpf.create_map("array", value="u64", max_entries=1)
    print("id", made.id)
    os.dup(made.fd)
    os.dup(bpf.load(code=CODE).programs.watch.fd)
""",
        "-rP",
    )
    result.assert_outcomes(passed=1, errors=1)
    line = line_of(pytester, "def test_duplicates")
    result.stdout.fnmatch_lines(
        [
            "2 things outlive the test, such as descriptor * of a map (map id *):",
            f"  descriptor * of a map (map id *), opened while test_it.py:{line} ran",
            f"  descriptor * of a program (prog id *), opened while test_it.py:{line} ran",
        ]
    )


def test_a_namespace_that_was_entered_for_ever(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_enters(bpf_netns, bpf):
    from pytest_bpfmaps.kernel.netns import _switch
    _switch(bpf_netns().fileno())

def test_next(bpf): pass
""",
    )
    result.assert_outcomes(passed=2, errors=1)
    line = line_of(pytester, "def test_enters")
    result.stdout.fnmatch_lines(
        [
            "1 thing outlives the test: "
            f"this thread is inside a network namespace that it entered while test_it.py:{line} ran",
        ]
    )


def test_what_belongs_to_a_wider_scope_is_none(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
@pytest.fixture(scope="module")
def own():
    with create_map(None, "array", key=4, value=8, max_entries=1) as made:
        yield made

def test_first_of_own(own): pass

def test_loads_in_the_module(bpf_module, bpf_netns):
    loaded = bpf_module.load(code=CODE)
    loaded.programs.watch.attach(interface=bpf_netns().interface("lo"))
    kept.append(loaded)

def test_pins_in_the_session(bpf_session):
    bpf_session.create_map("array", value="u64", max_entries=1, name="kept").pin("kept")

def test_uses_it(bpf_session):
    assert bpf_session.pinned("kept")[0] == 0
    assert kept[0].programs.watch.run(bytes(64)).retval == 2

def test_netns_of_a_wider_fixture(spaces):
    spaces()

@pytest.fixture(scope="module")
def spaces():
    from pytest_bpfmaps.triggers.netns import NetNsFactory
    with NetNsFactory() as factory:
        yield factory

@pytest.fixture(scope="module")
def inside():
    from pytest_bpfmaps.triggers.netns import NetNsFactory
    with NetNsFactory() as factory, factory().enter():
        yield

def test_is_inside(inside, bpf): pass
def test_still_is(inside, bpf): pass
""",
    ).assert_outcomes(passed=7)


def test_what_only_the_test_refers_to_is_none(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
class Holder:
    pass

@pytest.fixture
def inner():
    holder = Holder()
    holder.maps = {"one": create_map(None, "array", key=4, value=8, max_entries=1)}
    return holder

def test_a_fixture_holds_it(inner):
    assert inner.maps["one"][0] == bytes(8)

def test_a_cycle_holds_it(bpf):
    cycle = [create_map(None, "array", key=4, value=8, max_entries=1)]
    cycle.append(cycle)
""",
    ).assert_outcomes(passed=2)


def test_a_failure_is_not_covered_by_what_it_left(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_fails(bpf):
    made = create_map(None, "array", key=4, value=8, max_entries=1)
    assert made is None

def test_is_expected_to_fail(bpf):
    with create_map(None, "array", key=4, value=8, max_entries=1) as made:
        pytest.xfail("so")

def test_next(bpf): pass
""",
    )
    result.assert_outcomes(passed=1, failed=1, xfailed=1)


def test_it_can_be_switched_off(pytester: pytest.Pytester) -> None:
    test = "def test_x(bpf):\n    kept.append(create_map(None, 'array', key=4, value=8, max_entries=1))\n"
    run(pytester, test, "-o", "bpf_leaks=false").assert_outcomes(passed=1)
    run(pytester, test).assert_outcomes(passed=1, errors=1)
