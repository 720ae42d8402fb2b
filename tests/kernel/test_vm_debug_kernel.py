"""Tests a kernel that finds faults that LKDTM causes in it: each fails its test, and all tests run."""

from __future__ import annotations

import os
import re

import pytest
from caches import CACHE

KERNEL = os.environ.get("BPFMAPS_DEBUG_KERNEL", "")

pytestmark = pytest.mark.skipif(
    not KERNEL, reason="BPFMAPS_DEBUG_KERNEL names no kernel; ci/debug-kernel builds one, which takes a while"
)

SURVIVED = {
    "WARNING": r"WARNING at \S*drivers/misc/lkdtm/bugs\.c:\d+ in lkdtm_WARNING\(\)",
    "CORRUPT_LIST_ADD": r"WARNING at \S*lib/list_debug\.c:\d+ in .*list_add corruption",
    "REFCOUNT_INC_ZERO": r"WARNING at \S*lib/refcount\.c:\d+ in refcount_warn_saturate\(\): .*use-after-free",
    "ARRAY_BOUNDS": r"UBSAN: array-index-out-of-bounds in \S*drivers/misc/lkdtm/bugs\.c",
    # Lockdep reports one of these two.
    "SPINLOCKUP": r"(WARNING: lock held when returning to user space|\[ BUG: Invalid wait context)",
    "READ_AFTER_FREE": r"BUG: KASAN: slab-use-after-free in lkdtm_READ_AFTER_FREE",
    "WRITE_AFTER_FREE": r"BUG: KASAN: slab-use-after-free in lkdtm_WRITE_AFTER_FREE",
}
ENDED = {
    "PANIC": "dumptest",
    "BUG": "Fatal exception",
    "ACCESS_NULL": "Fatal exception",
    "SOFTLOCKUP": "softlockup: hung tasks",
    "HARDLOCKUP": "Hard LOCKUP",
    "HUNG_TASK": "hung_task: blocked tasks",
}
TESTS = f"""
    import os, pytest

    def provoke(name):
        child = os.fork()  # the child may not survive
        if child == 0:
            with open("/sys/kernel/debug/provoke-crash/DIRECT", "w") as file:
                file.write(name)
            os._exit(0)
        os.waitpid(child, 0)

    @pytest.mark.parametrize("name", {[*SURVIVED]})
    def test_survives(bpf_kernel, name):
        provoke(name)

    @pytest.mark.parametrize("name", {[*ENDED]})
    def test_ends(bpf_kernel, name):
        provoke(name)

    def test_after(bpf_kernel):
        pass
"""


def test_every_fault_fails_its_test(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makepyfile(test_it=TESTS)
    result = pytester.runpytest_subprocess(f"--bpf-kernel={KERNEL}", "-v")
    result.assert_outcomes(passed=1, failed=len(SURVIVED) + len(ENDED))
    report = re.compile(r"^_+ test_\w+\[(\w+)-\S+\] _+\n(.*?)(?=^_{5}|^={5})", re.M | re.S)
    reports = dict(report.findall(result.stdout.str()))
    for name, complaint in SURVIVED.items():
        assert re.search(f"^kernel: .*{complaint}", reports[name], re.M), reports[name]
    for name, panic in ENDED.items():
        assert f"kernel panic: {panic}\nwhile it ran test_it.py::test_ends[{name}-" in reports[name]
        assert name == "PANIC" or f"lkdtm_{name}+0x" in reports[name], reports[name]
