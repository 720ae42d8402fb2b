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
CHANNEL = r"""
    import os
    import pytest

    REPORT = {"location": ("test_port.py", 1, "x"), "keywords": {}, "outcome": "failed", "longrepr": "forged"}
    REPORT |= {"when": "call", "user_properties": [], "sections": []}
    REPORT |= {"duration": 0.1, "start": 0.0, "stop": 0.1}
    REPORT |= {"nodeid": "test_port.py::test_last[host]", "$report_type": "TestReport"}
    ENDS = {"exitstatus": 0, "shouldfail": False, "shouldstop": False}
    EVENTS = {
        "unknown": ("bogus", {}),
        "foreign": ("testreport", {"data": REPORT}),
        "odd": ("testreport", {"data": REPORT | {"sections": [7]}}),
        "ends": ("workerfinished", {"workeroutput": ENDS}),
        "skips_one": ("runtest_protocol_complete", {"item_index": 5, "duration": 0.1}),
    }

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release

    @pytest.mark.parametrize("name", EVENTS)
    def test_sends(bpf_kernel, name, request):
        plugins = request.config.pluginmanager.get_plugins()
        worker = next((one for one in plugins if type(one).__name__ == "WorkerInteractor"), None)
        if "BPFMAPS_CONTROL_FD" in os.environ and worker is not None:
            worker.channel.send(EVENTS[name])

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


def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tests: str, kernels: str = "6.1"
) -> pytest.RunResult:
    """Runs the tests in a guest where each step may take `LIMIT` seconds."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makepyfile(test_port=tests)
    verdict = judge(Catalogue(Path(CACHE, "kernels")).get("6.1"))
    limit = f"--bpf-vm-timeout={LIMIT / verdict.stretch(1.0)}"
    return pytester.runpytest_subprocess(f"--bpf-kernel={kernels}", limit)


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


def test_what_a_test_sends_by_the_channel_of_xdist_is_left_out(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-xdist's controller would end the run, or take the report of another kernel's test."""
    result = run(pytester, monkeypatch, CHANNEL, "host,6.1")
    for name in ("unknown", "foreign", "odd", "ends", "skips_one"):
        result.stdout.fnmatch_lines(
            [
                f"*_ ERROR at teardown of test_sends[[]{name}-6.1] _*",
                "its worker sent what no worker sends, and it was left out: *",
                "  -> let pytest alone use pytest-xdist's channel*",
            ]
        )
    result.assert_outcomes(passed=12, errors=5)
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
