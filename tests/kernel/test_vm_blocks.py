"""Coverage by the emulator's record of executed code, in a guest: `pytest --bpf-cov-engine=blocks`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from caches import CACHE

from pytest_bpfmaps.coverage.data import Coverage, KernelCoverage
from pytest_bpfmaps.vm.executed.plugin import SOURCE, plugin_for
from pytest_bpfmaps.vm.machine.qemu import find_qemu

EXECUTED = Path(__file__).parent / "executed"
sys.path.insert(0, str(EXECUTED))
from run_programs import THREADS, TIMES, packets  # noqa: E402

KERNEL = os.environ.get("BPFMAPS_BLOCKS_KERNEL", "6.1")  # another one, to try this test with
PROGRAMS = ["loops", "early_returns", "functions", "callbacks", "tail_calls"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> KernelCoverage:
    """What the programs of the folder `executed` ran."""
    return measure(EXECUTED / "run_programs.py", EXECUTED, tmp_path_factory.mktemp("measured"))


def measure(tests: Path, root: Path, folder: Path, *options: str, engine: str = "blocks") -> KernelCoverage:
    """What a run of the file `tests` in a guest has measured."""
    data = folder / "data.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    command += [f"--rootdir={root}", f"--bpf-kernel={KERNEL}", "--bpf-vm-timeout=120", "--bpf-cov"]
    command += [f"--bpf-cov-engine={engine}", "--bpf-cov-report=none", *options, str(tests)]
    environment = {**os.environ, "BPFMAPS_CACHE": str(CACHE), "BPF_COVERAGE_FILE": str(data)}
    environment["PYTEST_ADDOPTS"] = "-p no:hypothesispytest"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Coverage.from_plain(json.loads(data.read_text())).kernels[KERNEL]


def native_lines(source: Path, folder: Path) -> dict[int, int]:
    """How often gcov says that each line ran in the native form."""
    build = [
        "gcc",
        "-O0",
        "-w",
        "-DNATIVE",
        "--coverage",
        str(source),
        str(EXECUTED / "driver.c"),
        "-o",
        "native",
    ]
    subprocess.run(build, cwd=folder, check=True)
    subprocess.run(["./native"], cwd=folder, input=b"".join(packets()), stdout=subprocess.DEVNULL, check=True)
    (notes,) = (path.name for path in folder.glob("*.gcda") if "driver" not in path.name)
    told = subprocess.run(
        ["gcov", "--json-format", "--stdout", notes], cwd=folder, stdout=subprocess.PIPE, check=True
    )
    (file,) = (file for file in json.loads(told.stdout)["files"] if file["file"] == str(source))
    return {line["line_number"]: line["count"] for line in file["lines"]}


@pytest.mark.parametrize("name", PROGRAMS)
def test_lines_run_as_often_as_natively(measured: KernelCoverage, tmp_path: Path, name: str) -> None:
    source = EXECUTED / f"{name}.bpf.c"
    if str(source) not in measured.files:
        pytest.skip(f"{KERNEL} lacks helper bpf_loop")
    native = native_lines(source, tmp_path)
    mine = measured.files[str(source)].lines
    text = dict(enumerate(source.read_text().splitlines(), 1))
    assert {n for n in text if "] " in text[n] and "seen[" in text[n]} <= mine.keys() & native.keys()
    # The compiler knows how the first test of a loop ends, and has several returns of one value be one.
    exact = [n for n in mine.keys() & native.keys() if not text[n].strip().startswith(("for", "return XDP_"))]
    assert {n: mine[n] for n in exact} == {n: native[n] for n in exact}


def test_several_cpus_at_once_are_counted(measured: KernelCoverage) -> None:
    runs = THREADS * TIMES
    lines = measured.files[str(EXECUTED / "concurrent.bpf.c")].lines
    assert (lines[5], lines[8], lines[10]) == (runs, 20 * runs, 10 * runs)


def test_functions_begin_where_they_are_defined(measured: KernelCoverage) -> None:
    functions = measured.files[str(EXECUTED / "functions.bpf.c")].functions
    runs = len(packets())
    assert {(f.name, f.line): count for f, count in functions.items()} == {
        ("program", 23): runs,
        ("global_function", 17): runs,
        ("below", 9): 2 * runs,
    }


def test_branches_go_as_often_as_the_lines_behind_them(measured: KernelCoverage) -> None:
    file = measured.files[str(EXECUTED / "functions.bpf.c")]
    ways = sorted(count for branch, count in file.branches.items() if branch.line == 12)
    large = file.lines[13]
    assert ways == sorted([large, 2 * len(packets()) - large])


def build_object(folder: Path, *options: str) -> Path:
    """An object whose source is beside it; the first byte of a packet chooses the verdict."""
    source = folder / "other.bpf.c"
    source.write_text(
        """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int other(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data;
	if ((long)(data + 1) > ctx->data_end)
		return XDP_ABORTED;
	if (*data == 'x')
		bpf_printk("x");
	else
		bpf_printk("other");
	return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""
    )
    made = folder / "other.bpf.o"
    include = "/usr/include/x86_64-linux-gnu"
    clang = ["clang", "-target", "bpf", "-O2", *options, "-I", include, "-c", str(source), "-o", str(made)]
    subprocess.run(clang, check=True)
    return made


RUN_LOADER = """
import subprocess

def test_other_loader(bpf):
    done = subprocess.run([{loader!r}, {made!r}, "xaxbc"], capture_output=True, text=True)
    assert done.stdout.split() == ["2"] * 5
"""


def test_what_another_process_loads(tmp_path: Path) -> None:
    made, loader = build_object(tmp_path, "-g"), tmp_path / "loader"
    subprocess.run(["gcc", str(EXECUTED / "loader.c"), "-o", str(loader), "-lbpf"], check=True)
    tests = tmp_path / "test_loader.py"
    tests.write_text(RUN_LOADER.format(loader=str(loader), made=str(made)))
    found = measure(tests, tmp_path, tmp_path)
    lines = found.files[str(tmp_path / "other.bpf.c")].lines
    assert (lines[8], lines[9], lines[11]) == (5, 2, 3)
    assert [(p.object, p.program, p.engine) for p in found.programs] == [
        ("(loaded by loader)", "other", "blocks")
    ]


LOAD_OBJECT = """
def test_object(bpf):
    loaded = bpf.load({made!r})
    for byte in b"xab":
        loaded.programs.other.run(bytes([byte]) * 16)
"""


def test_a_prebuilt_object_where_the_other_engine_cannot(tmp_path: Path) -> None:
    tests = tmp_path / "test_object.py"
    tests.write_text(LOAD_OBJECT.format(made=str(build_object(tmp_path, "-g"))))
    found = measure(tests, tmp_path, tmp_path, engine="auto")
    lines = found.files[str(tmp_path / "other.bpf.c")].lines
    assert (lines[8], lines[9], lines[11]) == (3, 1, 2)
    assert [(p.program, p.engine) for p in found.programs] == [("other", "blocks")]


def test_an_object_without_line_information(tmp_path: Path) -> None:
    tests = tmp_path / "test_object.py"
    tests.write_text(LOAD_OBJECT.format(made=str(build_object(tmp_path))))
    found = measure(tests, tmp_path, tmp_path)
    assert not found.files
    ((program, _),) = found.programs.items()
    assert program.engine == ""
    assert program.reason.startswith(
        "blocks: it has no line information: compile it with -g, and keep its BTF"
    )


SWITCHED = """
from pathlib import Path

def test_object(bpf):
    for switch, value in (("kernel/kptr_restrict", "2"), ("net/core/bpf_jit_enable", "0")):
        path = Path("/proc/sys", switch)
        before = path.read_text()
        path.write_text(value)
        loaded = bpf.load({made!r})
        path.write_text(before)
        loaded.programs.other.run(bytes(16))
        loaded.close()
"""


def test_a_kernel_that_hides_or_does_not_compile(tmp_path: Path) -> None:
    tests = tmp_path / "test_object.py"
    tests.write_text(SWITCHED.format(made=str(build_object(tmp_path, "-g"))))
    found = measure(tests, tmp_path, tmp_path)
    assert not found.files
    assert sorted(program.reason.partition(" (")[0] for program in found.programs) == [
        "blocks: the kernel has not compiled it to machine code",
        "blocks: the kernel hides its addresses",
    ]


def test_the_plugin_speaks_the_newest_version_of_this_qemu(tmp_path: Path) -> None:
    qemu = find_qemu("x86_64")
    version = int(plugin_for(qemu, None).stem.rpartition("-")[2])
    newer = tmp_path / "newer.so"
    build = ["clang", "-shared", "-fPIC", "-nostdlib", f"-DQEMU_PLUGIN_VERSION={version + 1}", str(SOURCE)]
    subprocess.run([*build, "-o", str(newer)], check=True)
    ask = [qemu, "-machine", "none", "-nodefaults", "-display", "none", "-plugin", str(newer)]
    said = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=60).stderr
    assert f"supports only up to version {version}" in said
