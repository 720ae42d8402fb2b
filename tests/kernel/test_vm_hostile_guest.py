"""What a test in a guest writes to the ports of the harness: it is named, and harms no other test."""

from __future__ import annotations

from pathlib import Path

import pytest
from caches import CACHE

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.machine.kvm import judge

LIMIT = 24  # seconds for each step
TESTS = r"""
    import json, os
    import pytest

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release

    def write(text):
        data = memoryview(text.encode())
        while data:
            data = data[os.write(int(os.environ["BPFMAPS_CONTROL_FD"]), data):]

    LINES = {
        "endless": '{"phase": "runs", "at": "x", "more": 1e999}',
        "large": '{"phase": "runs", "at": "x", "more": ' + "9" * 400 + "}",
        "long": '{"x": "' + "A" * 5_000_000 + '"}',
        "deep": "[" * 100_000,
        "fork": json.dumps({"fork": "\x1b[31m" + "z" * 100_000}),
        "answer": '{"result": 1}',
    }
    CALLS = [{"call": [1], "argument": {}}, {"call": "digest"}, {"call": "compile", "argument": "3"}]
    CALLS += [{"call": "digest", "argument": "/dev/zero"}, {"call": "link", "argument": '["/dev/zero", 3]'}]

    @pytest.mark.parametrize("name", LINES)
    def test_line(bpf_kernel, name):
        write(f"\n{LINES[name]}\n")

    def test_calls(bpf_kernel):
        write("".join(f"\n{json.dumps(call)}\n" for call in CALLS))

    def test_flood(bpf_kernel):
        code = json.dumps({"code": "int x;", "include": [], "cflags": [], "defines": []})
        write(f"\n{json.dumps({'call': 'compile', 'argument': code})}\n" * 3000)

    def test_last(bpf_kernel):
        pass
"""
WORKER = r"""
    import os, struct
    from pathlib import Path
    import pytest

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release

    def port():
        names = Path("/sys/class/virtio-ports").glob("*/name")
        ports = {each.read_text().strip(): f"/dev/{each.parent.name}" for each in names}
        opened = Path("/proc/self/fd").iterdir()
        return next(int(each.name) for each in opened if os.readlink(each) == ports["bpfmaps.stream"])

    CUT = struct.pack("!bii", 4, 1, 1 << 20)

    @pytest.mark.parametrize("data", [bytes(range(256)), CUT], ids=["any", "cut"])
    def test_bytes(bpf_kernel, data):
        os.write(port(), data)

    def test_last(bpf_kernel):
        pass
"""
LINE = "a line came on the port of this harness, and the harness did not send it: "
SAID = {
    "line[[]endless-6.1]": f"{LINE}{{'phase': 'runs', 'at': 'x', 'more': inf}}",
    "line[[]large-6.1]": f"{LINE}{{'phase': 'runs', 'at': 'x', 'more': 999*",
    "line[[]long-6.1]": f"{LINE}{{'x': 'AAA*",
    "line[[]deep-6.1]": f"{LINE}'[[][[]*",
    "line[[]fork-6.1]": f"{LINE}{{'fork': '*x1b[[]31mzzz*",
    "line[[]answer-6.1]": f"{LINE}{{'result': 1}}",
    "flood[[]6.1]": "more than 16 requests at a time came on the port of this harness",
}


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tests: str) -> pytest.RunResult:
    """Runs the tests in a guest where each step may take `LIMIT` seconds."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makepyfile(test_port=tests)
    verdict = judge(Catalogue(Path(CACHE, "kernels")).get("6.1"))
    limit = f"--bpf-vm-timeout={LIMIT / verdict.stretch(1.0)}"
    return pytester.runpytest_subprocess("--bpf-kernel=6.1", limit)


def test_what_comes_on_the_port_is_named_and_all_else_runs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(pytester, monkeypatch, TESTS)
    for name, said in SAID.items():
        result.stdout.fnmatch_lines([f"*_ ERROR at teardown of test_{name} _*", said])
    result.assert_outcomes(passed=9, errors=7)
    text = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in text
    assert "\x1b" not in text
    assert len(text) < 20_000


def test_what_comes_on_the_port_of_the_worker_ends_the_guest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """execnet alone would wait for the rest of a message, for ever."""
    result = run(pytester, monkeypatch, WORKER)
    result.stdout.fnmatch_lines(
        [
            "VmLostError: guest ended: kernel 6.1 *: on its worker's port came a message of kind 0, *",
            "  -> leave *the ports /dev/vport[*] alone: this harness uses them",
        ]
    )
    result.stdout.fnmatch_lines(["*: on its worker's port, a message has no end: *bytes of 1048576 did not*"])
    result.assert_outcomes(passed=1, failed=2)
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
