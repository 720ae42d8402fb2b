"""Tests what a probe of the kernel takes from the verifier's log."""

import pytest

from pytest_bpfmaps.kernel.probe_programs import Verdict

STEPS = "func#0 @0\n0: R1=ctx() R10=fp0\n; int p(void *ctx)\n0: (b7) r0 = 0\nR0_w=0 R10=fp0\n1: (95) exit\n"
PROCESSED = (
    "processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"
)


@pytest.mark.parametrize(
    "complaint",
    [
        "At program exit the register R0 has smin=0 smax=0 should have been in [1, 1]",
        "R1 type=scalar expected=ctx",
        "vfs_read is not sleepable",
        "",
    ],
)
def test_the_complaint_of_a_log(complaint):
    assert Verdict(22, f"{STEPS}{complaint}\n{PROCESSED}").complaint == complaint
