"""Tests `bpfmaps verify`: verdicts of objects without a test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shown_blocks import shows

from pytest_bpfmaps.btf.types import Kind
from pytest_bpfmaps.cli import main
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.cost.verdict_table import kernels_in_order, losses, refusals, table
from pytest_bpfmaps.elf.editor import Elf

pytestmark = pytest.mark.bpf_kernels("host")  # the command has kernels of its own

HEAD = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
MIXED = (
    HEAD
    + """const volatile unsigned rounds = 4;
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, int);
         __type(value, int); } sized_by_its_loader SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, int);
         __uint(pinning, LIBBPF_PIN_BY_NAME); } bpfmaps_verify_kept SEC(".maps");
SEC("xdp") int good(struct xdp_md *ctx)
{
    int key = 0, sum = 0;
    for (unsigned i = 0; i < rounds; i++)
        sum += bpf_get_prandom_u32();
    return !bpf_map_lookup_elem(&bpfmaps_verify_kept, &key) + sum;
}
SEC("xdp") int bad(struct xdp_md *ctx)
{
    int key = 0, *value = bpf_map_lookup_elem(&sized_by_its_loader, &key);
    return *value; // not checked
}
"""
)


@pytest.fixture
def verify(bpf, tmp_path, monkeypatch, capsys):
    """Returns a function that runs the command with files of these contents, and gives code and JSON."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **sources):
        for name, text in sources.items():
            Path(f"{name}.bpf.c").write_text(text)
        files = [f"{name}.bpf.c" for name in sources]
        code = main(["verify", "--json", "--kernel=host", *files, *arguments])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else said.err

    return run


TAIL_CALLS = (
    HEAD
    + """int bad(struct xdp_md *ctx);
int good(struct xdp_md *ctx);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __uint(key_size, 4);
         __array(values, int(struct xdp_md *)); } table SEC(".maps") = {.values = {&bad, &good}};
SEC("xdp") int bad(struct xdp_md *ctx) { return *(int *)(long)ctx->data; }
SEC("xdp") int good(struct xdp_md *ctx) { return 2; }
SEC("xdp") int caller(struct xdp_md *ctx) { bpf_tail_call(ctx, &table, 0); return 1; }
"""
)


def test_a_refused_target_of_tail_calls_is_no_fault_of_its_caller(verify):
    code, found = verify(calls=TAIL_CALLS)
    assert code == 1
    bad, good, caller = found["programs"]
    assert [each["verdict"] for each in (bad, good, caller)] == ["refused", "accepted", "accepted"]
    assert bad["text"].startswith('SEC("xdp") int bad')
    assert (good["instructions"], good["stack_depths"]) == (2, {"good": 0})
    assert caller["instructions"] > 2


def test_programs_are_judged_one_by_one(verify):
    code, found = verify(mixed=MIXED, simple=HEAD + 'SEC("xdp") int simple(struct xdp_md *c) { return 2; }')
    assert code == 1
    assert found["kernels"] == ["host"]
    good, bad, simple = found["programs"]
    assert [each["program"] for each in (good, bad, simple)] == ["good", "bad", "simple"]
    assert [each["verdict"] for each in (good, bad, simple)] == ["accepted", "refused", "accepted"]
    assert (simple["instructions"], simple["object"]) == (2, "simple.bpf.c")
    assert good["stack_depths"].keys() == {"good"}
    assert (Path(bad["file"]).name, bad["text"]) == ("mixed.bpf.c", "return *value; // not checked")
    assert MIXED.splitlines()[bad["line"] - 1].strip() == bad["text"]
    assert "if (" in bad["fix"]
    assert not Path("/sys/fs/bpf/bpfmaps_verify_kept").exists()


def test_the_manual_shows_the_table(bpf, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mixed.bpf.c").write_text(MIXED)
    assert main(["verify", "--kernel=host", "mixed.bpf.c"]) == 1
    shows("cost.md", "mixed.bpf.c", capsys.readouterr().out)


def test_all_accepted(verify):
    code, found = verify("--program=good", mixed=MIXED)
    assert code == 0
    assert [each["program"] for each in found["programs"]] == ["good"]


def test_a_global_changes_the_walk(verify):
    def instructions(*arguments):
        return verify("--program=good", *arguments, mixed=MIXED)[1]["programs"][0]["instructions"]

    few, many = instructions("-G", "rounds=1"), instructions("-G", "rounds=0x29")
    assert many - few >= 40


def test_a_global_that_no_object_has(verify):
    code, said = verify("-G", "round=1", mixed=MIXED)
    assert code == 1
    assert said.startswith("bpfmaps: no global variable 'round' in mixed.bpf.c\n  -> ")
    assert "rounds" in said


def test_a_global_without_a_value(verify, capsys):
    with pytest.raises(SystemExit) as caught:
        verify("-G", "rounds", mixed=MIXED)
    assert caught.value.code == 2
    assert "-G rounds=8" in capsys.readouterr().err


def test_a_kernel_that_is_not_there(capsys, tmp_path):
    path = tmp_path / "x.bpf.c"
    path.write_text(MIXED)
    assert main(["verify", str(path), "--kernel=9.99"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("bpfmaps: no kernel '9.99'")
    assert "\n  -> " in said


def test_a_source_that_clang_refuses(verify):
    code, found = verify(broken="int x = ;", mixed=MIXED)
    assert code == 1
    assert found["programs"][0]["verdict"] == "refused"
    assert "error: expected expression" in found["programs"][0]["message"]
    assert found["programs"][1]["verdict"] == "accepted"


@pytest.mark.parametrize("damage", ["cut", "big-endian", "text", "absent", "types"])
def test_a_file_that_is_no_object(verify, tmp_path, damage):
    source, path = tmp_path / "x.c", tmp_path / "wrong.bpf.o"
    source.write_text('__attribute__((section("xdp"))) int f(void *c) { return 1; }')
    target = "bpfeb" if damage == "big-endian" else "bpf"
    clang = LocalCompiler().clang.path
    subprocess.run([clang, "-target", target, "-g", "-O2", "-c", str(source), "-o", str(path)], check=True)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "text":
        path.write_text("no object")
    elif damage == "absent":
        path.unlink()
    elif damage == "types":
        refer_to_no_type(path)
    code, found = verify(str(path))
    assert code == 1
    (only,) = found["programs"]
    assert (only["verdict"], only["program"], only["object"]) == ("refused", "", "wrong.bpf.o")
    assert only["message"].startswith(("cannot open", "cannot read BTF: the object is big-endian"))
    said = {"absent": "no such file", "big-endian": "big-endian", "types": "type 1 refers to type 9999"}
    assert said.get(damage, "") in only["message"]


def refer_to_no_type(path):
    """Has the first type of an object, the pointer, refer to a type that its BTF lacks."""
    data = bytearray(path.read_bytes())
    elf = Elf(bytes(data))
    first = data.index(elf.content(elf.section(".BTF"))) + 24  # the header
    assert data[first + 7] == Kind.PTR
    data[first + 8 : first + 12] = (9999).to_bytes(4, sys.byteorder)
    path.write_bytes(data)


def test_the_table():
    def cell(program, kernel, **facts):
        whole = dict.fromkeys(("why", "fix", "file", "text", "message", "details"), "") | {
            "line": 0,
            "verdict": "accepted",
        }
        return whole | {"object": "a.o", "program": program, "kernel": kernel, **facts}

    why = {"verdict": "refused", "why": "too large", "text": "x[9] = 1;", "fix": "less"}
    cells = [
        cell("one", "5.10", instructions=1234),
        cell("one", "6.1", instructions=7),
        cell("two", "5.10", **why),
        cell("two", "6.1", **why, file="/b/a.c", line=7),
    ]
    assert table(cells, ["5.10", "6.1"]) == [
        "            5.10        6.1",
        "a.o",
        "  one      1,234          7",
        "  two    refused    refused",
    ]
    assert refusals(cells) == [
        "",
        "program 'two' of a.o on 5.10, 6.1: too large",
        "    a.c:7: x[9] = 1;",
        "  -> less",
    ]


def test_a_kernel_that_gave_no_answer_is_told_once():
    lost = {"program": "", "verdict": "lost", "message": "it did not boot\n  -> wait longer"}
    cells = [
        {**lost, "object": name, "kernel": kernel} for name in ("a.o", "b.o") for kernel in ("6.1", "5.10")
    ]
    assert losses([*cells[:1], cells[2]]) == ["", f"no answer from 6.1 about 2 objects: {lost['message']}"]
    assert losses(cells[:1]) == ["", f"no answer from 6.1 about a.o: {lost['message']}"]
    assert kernels_in_order([*cells, {"kernel": "host"}, {"kernel": ""}]) == ["host", "5.10", "6.1"]


def test_details_stand_below_a_refusal_without_a_line():
    refused = {"object": "a.o", "program": "p", "kernel": "6.1", "verdict": "refused", "why": "no map"}
    cell = {
        **refused,
        **dict.fromkeys(("message", "fix", "file", "text"), ""),
        "line": 0,
        "details": "  x.c:7: m;\n",
    }
    assert refusals([cell]) == ["", "program 'p' of a.o on 6.1: no map", "    x.c:7: m;"]


def test_a_map_that_the_kernel_refuses_names_its_line(verify):
    text = """struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, 1 << 30);
         __type(key, int); __type(value, int); } wrong SEC(".maps");
    SEC("xdp") int uses(struct xdp_md *ctx) { int key = 0; return !bpf_map_lookup_elem(&wrong, &key); }
    """
    code, found = verify(refused=HEAD + text)
    assert code == 1
    (only,) = found["programs"]
    assert (only["program"], only["verdict"]) == ("uses", "refused")
    assert "refused.bpf.c:" in only["details"]
    assert 'wrong SEC(".maps")' in only["details"]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can give up capabilities"
)
def test_a_user_that_may_not_load_gets_no_verdict(tmp_path):
    """The kernel has said nothing of the program, so it is not refused."""
    path = LocalCompiler().compile(CompileRequest(code=HEAD + 'SEC("xdp") int p(void *c) { return 2; }'))
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable]
    command += ["-c", "from pytest_bpfmaps.cli import main; raise SystemExit(main())"]
    done = subprocess.run(
        [*command, "verify", str(path), "--kernel=host"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "refused" not in done.stdout
    assert f"no answer from host about {path.name}: BPF programs can't be loaded here: " in done.stdout
    assert "no CAP_BPF" in done.stdout
    assert "  -> run it as root, or name a guest: --kernel" in done.stdout


def test_an_answer_of_no_kernel_has_no_name():
    cell = {"verdict": "lost", "kernel": "", "object": "x", "program": "", "message": "why"}
    assert losses([cell]) == ["", "no answer about x: why"]


@pytest.mark.parametrize("name", [b"a\x1b[31mb\n.bpf.o", b"a\xff.bpf.o", b"a\xe2\x80\xae.bpf.o"])
def test_a_name_that_is_no_text(capsys, tmp_path, name):
    """Escape sequences would reach the terminal, and bytes that are no UTF-8 can't be printed."""
    (tmp_path / "good.bpf.c").write_text(HEAD + 'SEC("xdp") int good(struct xdp_md *ctx) { return 2; }')
    path = os.fsencode(tmp_path) + b"/" + name
    shutil.copy(LocalCompiler().compile(CompileRequest(source=str(tmp_path / "good.bpf.c"))), path)
    gone = os.fsencode(tmp_path) + b"/none" + name
    assert main(["verify", "--kernel=host", os.fsdecode(path), os.fsdecode(gone)]) == 1
    shown = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert ".bpf.o'\n  good" in shown
    assert "there is no such file" in shown


@pytest.mark.parametrize(("path", "why"), [("/dev/zero", "it is no file"), ("/", "it is a folder")])
def test_what_is_no_file(verify, path, why):
    code, found = verify(path)
    assert code == 1
    assert why in found["programs"][0]["message"]
