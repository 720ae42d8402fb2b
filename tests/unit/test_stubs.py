"""Tests `bpfmaps stubs`: what mypy finds with the module, and objects that are hard to describe."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.cli import main

BPF = Path(__file__).parents[2] / "bpf"
FIRST = """\
from bpf_types import Bpf


def test_it(bpf: Bpf) -> None:
"""
HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
KEYED = "pytest_bpfmaps.objects.stub_types.KeyedMap"
ODD = """
enum color { RED, GREEN };
struct inner { __u8 bytes; char str[8]; };
struct record { __u32 pid; enum color class; struct inner in; __u16 ports[4]; unsigned char raw[6];
                __u64 __hidden; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, struct inner);
         __type(value, struct record); } lambda SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 1);
         __type(value, struct record); } names SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, __u64); } bytes SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
__u32 None, plain; _Bool flag;
struct record last = {};
SEC("xdp") int import(void *ctx) { return XDP_PASS; }
"""


@pytest.fixture
def checked(tmp_path, monkeypatch, mypy_cache, capsys):
    """Makes stubs, and gives what mypy says of lines of a test that uses them."""
    monkeypatch.chdir(tmp_path)

    def check(sources, lines):
        assert main(["stubs", *map(str, sources)]) == 0
        (tmp_path / "bpf_types.py").write_text(capsys.readouterr().out)
        (tmp_path / "test_user.py").write_text(FIRST + "".join(f"    {line}\n" for line in lines))
        options = ["--strict", f"--cache-dir={mypy_cache}", "--no-error-summary"]
        command = [sys.executable, "-m", "mypy", *options, "bpf_types.py", "test_user.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return [
            re.sub(r"^test_user.py:(\d+): (error|note): ", r"\1 ", line) for line in done.stdout.splitlines()
        ]

    return check


def test_mypy_finds_what_is_misspelt(checked):
    right = [
        'obj = bpf.load("exec_events.bpf.c", globals={})',
        "with obj.attach(), obj.maps.events.capture() as events:",
        '    events.expect(pid=1, comm="true", count=1)',
        "assert events[0].pid + events[0].timestamp and events[0].comm.upper()",
        'counter = bpf.load("process_counter.bpf.c")',
        "assert counter.maps.process_count[1] + 1 == counter.maps['process_count'].get(1)",
        "assert [pid + n for pid, n in counter.maps.process_count.items()]",
        "counter.programs.count_openat.attach().close()",
        'bpf.load("drop_port.bpf.c").globals.closed_port += 1',
        'assert bpf.load(code="…").maps.any_name[1]',
    ]
    wrong = {
        "counter.maps.proces_count": '"ProcessCounterMaps" has no attribute "proces_count"',
        "counter.programs.count": '"ProcessCounterPrograms" has no attribute "count"',
        "counter.globals.x": '"ProcessCounterGlobals" has no attribute "x"',
        "events[0].pidd": '"ExecEventsEvent" has no attribute "pidd"',
        "counter.maps.process_count[1].x": '"int" has no attribute "x"',
        "counter.maps.process_count.lookup()": '"KeyedMap[int, int]" has no attribute "lookup"',
    }
    sources = [BPF / f"{name}.bpf.c" for name in ("exec_events", "process_counter", "drop_port")]
    found = checked(sources, [*right, *wrong])
    first = FIRST.count("\n") + 1 + len(right)
    assert len(found) == len(wrong)
    for number, (line, message) in enumerate(zip(found, wrong.values(), strict=True), first):
        assert line.startswith(f"{number} {message}")


def test_keywords_nested_structs_and_names_of_python(checked, tmp_path):
    (tmp_path / "odd-one.bpf.c").write_text(HEAD + ODD)
    lines = [
        'obj = bpf.load("odd-one.bpf.c")',
        'reveal_type(obj.maps["lambda"])',
        "reveal_type(obj.maps.names.pop())",
        "reveal_type(obj.maps.bytes)",
        'reveal_type(obj.programs["import"])',
        "reveal_type(obj.globals.flag)",
        "reveal_type(obj.globals.last.raw)",
        "reveal_type(obj.globals.last.ports)",
        "reveal_type(obj.globals.last['class'])",
        "reveal_type(obj.globals.last)",
        "last = obj.globals.last",
        "reveal_type(getattr(last, 'in'))",
        "assert obj.maps.names.drain() == [{}]",
        "obj.globals.last.inner",
    ]
    found = [line.split(" ", 1)[1].replace("builtins.", "") for line in checked(["odd-one.bpf.c"], lines)]
    assert found[:9] == [
        f'Revealed type is "{KEYED}[bpf_types.OddOneInner, bpf_types.OddOneRecord]"',
        'Revealed type is "bpf_types.OddOneRecord"',
        'Revealed type is "pytest_bpfmaps.objects.any_map.Map"',
        'Revealed type is "pytest_bpfmaps.programs.program.Program"',
        'Revealed type is "bool"',
        'Revealed type is "bytes"',
        'Revealed type is "typing.Sequence[int]"',
        'Revealed type is "Any"',
        'Revealed type is "bpf_types.OddOneRecord"',
    ]
    assert found[-1].startswith('"OddOneRecord" has no attribute "inner"')


def test_two_structs_of_one_name(checked, tmp_path):
    (tmp_path / "a.bpf.c").write_text(
        HEAD + "struct twin { __u32 a; } first = {};" + 'SEC("xdp") int p(void *c) { return 0; }'
    )
    (tmp_path / "b.bpf.c").write_text(
        HEAD + "struct twin { __u64 b; } first = {};" + 'SEC("xdp") int q(void *c) { return 0; }'
    )
    lines = [
        'reveal_type(bpf.load("a.bpf.c").globals.first.a)',
        'reveal_type(bpf.load("b.bpf.c").globals.first.b)',
    ]
    lines += ['bpf.load("b.bpf.c").globals.first.a']
    found = checked(["a.bpf.c", "b.bpf.c"], lines)
    assert [line.split(" ", 1)[1].replace("builtins.", "") for line in found[:2]] == [
        'Revealed type is "int"'
    ] * 2
    assert '"BTwin" has no attribute "a"' in found[2]
    same = tmp_path / "more" / "a.bpf.c"
    same.parent.mkdir()
    same.write_text(HEAD + 'SEC("xdp") int p(void *c) { return 0; }')
    assert checked(["a.bpf.c", "more/a.bpf.c"], ["pass"]) == []  # the second gets other names of classes


def test_an_object_without_types(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare.c").write_text('__attribute__((section("xdp"), used)) int p(void *c) { return 0; }')
    subprocess.run(["clang", "-target", "bpf", "-O2", "-c", "bare.c", "-o", "bare.o"], check=True)
    assert main(["stubs", "bare.o"]) == 1
    assert capsys.readouterr() == (
        "",
        "bpfmaps: cannot make stubs for bare.o: it has no BTF, so it has no types\n"
        "  -> compile it with 'clang -g', or give its source\n"
        "  see: bpfmaps docs no-types-in-object\n",
    )
    subprocess.run(["clang", "-target", "bpf", "-g", "-O2", "-c", "bare.c", "-o", "bare.o"], check=True)
    assert main(["stubs", "bare.o"]) == 0


@pytest.mark.parametrize("text", [None, "no object"])
def test_what_is_no_object(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "x.o").write_text(text)
    assert main(["stubs", "x.o"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("bpfmaps: cannot open x.o")


def test_the_module_can_be_imported(tmp_path, monkeypatch, capsys):
    assert main(["stubs", str(BPF / "exec_events.bpf.c")]) == 0
    names = {}
    exec(capsys.readouterr().out, names)
    assert names["Bpf"].__module__ == "pytest_bpfmaps.harness"
    assert names["ExecEventsObject"].__name__ == "LoadedObject"
    assert names["ExecEventsEvent"].__name__ == "Record"
