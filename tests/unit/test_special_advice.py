"""Tests the sentences for what kernels write about kptrs, iterators, regions and tail calls.

tests/kernel/test_advice_newer.py has programs for which kernels write such logs, and follows the advice.
"""

import re

import pytest

from pytest_bpfmaps.verifier import advise

# the kernel's words; the remedy
ADVICE = {
    "tail_call is only allowed in functions that return 'int'.": r"declare it to return int",
    "store to referenced kptr disallowed": r"bpf_kptr_xchg\(&value->FIELD, new\)",
    "kernel func bpf_iter_task_new requires RCU critical section protection": r"bpf_rcu_read_lock\(\) before",
    "expected an initialized iter_num as arg #0": r"_new\(&it, …\) right before",  # Linux 6.12
    "expected an initialized iter_num as R1": r"_new\(&it, …\) right before",
    "expected uninitialized iter_num as arg #0": r"_destroy\(&it\) before its",
    "expected uninitialized iter_num as R1": r"_destroy\(&it\) before its",
    "invalid read from stack R3 off -24+8 size 14\nR3 and R4 memory, len pair leads to invalid memory": (
        r"as large as what is read"
    ),
    "invalid read from stack R3 off -24+8 size 14": r"initialise the whole variable",
}


@pytest.mark.parametrize("complaint", ADVICE)
def test_advice(complaint):
    assert re.search(ADVICE[complaint], advise(complaint).fix)
