"""Coverage by the emulator's record of executed code, in a guest: `pytest --bpf-cov-engine=blocks`."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from pytest_bpfmaps.vm.executed.plugin import SOURCE, plugin_for
from pytest_bpfmaps.vm.machine.qemu import find_qemu

EXECUTED = Path(__file__).parent / "executed"
sys.path.insert(0, str(EXECUTED))
from in_guest import measure as measure_on  # noqa: E402

KERNEL = os.environ.get("BPFMAPS_BLOCKS_KERNEL", "6.1")  # another one, to try this test with
measure = partial(measure_on, kernel=KERNEL)


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
