"""Tests the reader of verifier logs."""

import pytest

from pytest_bpfmaps.verifier import advise, parse_log
from pytest_bpfmaps.verifier.instruction_advice import advise_closer

NEW = """\
0: R1=ctx() R10=fp0
; void *data = (void *)(long)ctx->data; @ bad.bpf.c:6
0: (61) r1 = *(u32 *)(r1 +0)          ; R1_w=pkt(r=0)
; return *(int *)data; @ bad.bpf.c:7
1: (61) r0 = *(u32 *)(r1 +0)
invalid access to packet, off=0 size=4, R1(id=0,off=0,r=0)
R1 offset is outside of the packet
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""

OLD = """\
; void *data = (void *)(long)ctx->data;
0: (61) r1 = *(u32 *)(r1 +0)
 R1_w=ctx(id=0,off=0,imm=0) R10=fp0
0: R1=ctx(id=0,off=0,imm=0) R10=fp0
; return *(int *)data;
1: (61) r0 = *(u32 *)(r1 +0)
invalid access to packet, off=0 size=4, R1(id=0,off=0,r=0)
R1 offset is outside of the packet
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_a_log_of_a_new_kernel():
    found = parse_log(NEW)
    assert (found.index, found.instruction) == (1, "r0 = *(u32 *)(r1 +0)")
    assert (found.file, found.line, found.source) == ("bad.bpf.c", 7, "return *(int *)data;")
    assert found.relevant_registers() == {"R1": "pkt(r=0)"}
    assert found.complaint[-1] == "R1 offset is outside of the packet"


def test_a_log_of_an_old_kernel():
    found = parse_log(OLD)
    assert (found.source, found.line, found.index) == ("return *(int *)data;", None, 1)
    assert found.relevant_registers() == {"R1": "ctx(id=0,off=0,imm=0)"}


def test_values_that_the_log_no_longer_knows():
    """A register's value is not what it was before an instruction that the log shows without a state."""
    state = "8: R1=ctx() R2=scalar(id=1) R3=scalar() R6=map_value() R10=fp0\n"
    moved = "9: (bf) r2 = r10\n10: (07) r2 += -16\n"
    found = parse_log(f"{state}{moved}11: (85) call bpf_ringbuf_output#130\ninvalid read from stack R2\n")
    assert found.registers == {"R1": "ctx()", "R3": "scalar()", "R6": "map_value()", "R10": "fp0"}
    called = "11: (85) call bpf_ktime_get_ns#5\n12: (bf) r1 = r6\nR6 !read_ok\n"
    assert parse_log(state + called).registers == {"R6": "map_value()", "R10": "fp0"}
    assert parse_log(state + "9: (07) r2 += -16 ; R2=fp-16\n10: (95) exit\n").registers["R2"] == "fp-16"
    assert parse_log(state + "from 3 to 12: R0=scalar() R10=fp0\n12: (95) exit\n").registers.keys() == {
        "R0",
        "R10",
    }


def test_a_complaint_without_an_instruction():
    found = parse_log("back-edge from insn 6 to 2\nprocessed 0 insns (limit 1000000)\n")
    assert (found.text, found.index) == ("back-edge from insn 6 to 2", None)
    assert "that a loop" in advise(found.text).why


def test_an_empty_log():
    assert parse_log("").complaint == []
    assert advise("something that nobody has heard of") is None


def test_a_complaint_on_the_line_of_its_instruction():
    found = parse_log("6: (55) if r0 != 0x7 goto pc-5 BPF program is too large. Processed 1000001 insn\n")
    assert (found.index, found.instruction) == (6, "if r0 != 0x7 goto pc-5")
    assert found.text == "BPF program is too large. Processed 1000001 insn"


def test_helpers_that_sleep_where_the_kernel_says_only_unknown():
    assert "may sleep" in advise("unknown func bpf_copy_from_user#148").why
    assert "no such helper" in advise("unknown func bpf_loop#181").why


def test_a_callback_begins_on_the_line_of_the_call():
    """The registers of the callee are not those of the caller."""
    found = parse_log(
        "1: (18) r2 = 0x6 ; R2=func()\n"
        "5: (85) call bpf_loop#181 8: frame1: R1=scalar() R2=0 R10=fp0 cb\n"
        "8: (61) r3 = *(u32 *)(r2 +0)\n"
        "R2 invalid mem access 'scalar'\n"
    )
    assert found.instruction == "r3 = *(u32 *)(r2 +0)"
    assert found.registers["R2"] == "0"
    assert found.steps[5].instruction == "call bpf_loop#181"


def test_old_kernels_tell_the_registers_without_a_number():
    """They are after the instruction, and are not a part of the complaint."""
    found = parse_log(
        "21: (85) call bpf_probe_read_kernel_str#115\n"
        " R0_w=inv(id=0,smin_value=-4095) R1_w=map_value(id=0,off=4,ks=4,vs=68) R10=fp0 fp-8=m\n"
        "R1 min value is negative, either use unsigned index or do a if (index >=0) check.\n"
    )
    assert found.text.startswith("R1 min value is negative")
    assert found.registers["R1"].startswith("map_value(")


UNSIZED = "arg#0 reference type('UNKNOWN ') size cannot be determined: -22"


def test_the_only_words_of_old_kernels_for_an_argument_of_unknown_size():
    said = f"{UNSIZED}\n0: (95) exit\nprocessed 1 insns (limit 1000000)\n"
    assert parse_log(said).complaint == [UNSIZED]
    assert parse_log(f"{said}R0 !read_ok\n").complaint == ["R0 !read_ok"]


def test_a_log_without_a_complaint():
    assert parse_log("0: (b7) r0 = 0\n1: (95) exit\nprocessed 2 insns (limit 1000000)\n").complaint == []


@pytest.mark.parametrize(("offset", "fits"), [(-16, True), (-8, True), (-7, False), (-1, False)])
def test_a_helper_that_needs_more_than_the_variable_has(offset, fits):
    log = f"0: (85) call bpf_get_current_comm#16\ninvalid write to stack R1 off={offset} size=8\n"
    advice = advise_closer(parse_log(log))
    if fits:
        assert advice is None
    else:
        assert advice.why == f"the helper needs 8 bytes there, but the variable has at most {-offset}"


def test_a_check_that_is_too_short_for_the_packet():
    log = "0: (61) r0 = *(u32 *)(r1 +13)\ninvalid access to packet, off=13 size=3, R1(id=0,off=13,r=14)\n"
    advice = advise_closer(parse_log(log))
    assert "it has proven 14, but goes on to byte 16" in advice.why
    assert "with data_end: 16 bytes" in advice.fix


@pytest.mark.parametrize(("call", "told"), [("bpf_ringbuf_submit#132", True), ("bpf_ktime_get_ns#5", False)])
def test_an_old_log_shows_a_release_and_no_registers(call, told):
    log = f"1: (85) call {call}\n2: (61) r0 = *(u32 *)(r6 +0)\nR6 invalid mem access 'inv'\n"
    advice = advise_closer(parse_log(log))
    assert (advice is not None and "release" in advice.why) is told


@pytest.mark.parametrize(
    ("given", "wanted", "why"),
    [
        ("scalar", "fp, pkt, map_value", "has to be a pointer, but the helper gets a number"),
        ("inv", "map_value", "has to be a pointer, but the helper gets a number"),
        ("scalar", "sock_common, sock", None),
        ("ctx", "fp, map_value", "gets the context"),
        ("map_value_or_null", "map_ptr", None),
        ("scalar", "ctx", "has to be the program's own context"),
        ("fp", "map_ptr", "has to be a map, but the helper gets another value"),
        ("map_value", "map_ptr", "gets a plain variable"),
        ("scalar", "ptr_", "has to be a kernel pointer"),
    ],
)
def test_an_argument_of_the_wrong_kind(given, wanted, why):
    log = f"1: (85) call bpf_some_helper#1\nR1 type={given} expected={wanted}\n"
    advice = advise_closer(parse_log(log))
    assert advice is None if why is None else why in advice.why


@pytest.mark.parametrize(
    ("span", "why"),
    [
        ("[0, 1]", "programs of this type return 0 to 1, but"),
        ("[-4095, 0]", "programs of this type return -4095 to 0, but"),
        ("[1, 1]", "programs of this type return 1, but"),
        ("(0x0; 0x1)", "programs of this type return 0 to 1, but"),
        ("(0x0; 0x3)", "programs of this type return 0 to 3, but"),
    ],
)
def test_a_value_that_a_program_may_not_return(span, why):
    said = f"At program exit the register R0 has value (0x5; 0x0) should have been in {span}"
    assert advise_closer(parse_log(f"1: (95) exit\n{said}\n")).why.startswith(why)


@pytest.mark.parametrize(("offset", "length", "end"), [(4, 4, None), (5, 4, 9), (3, 5, None), (6, 3, 9)])
@pytest.mark.parametrize("kind", ["map value, value", "memory, mem"])
def test_how_far_an_access_can_reach(kind, offset, length, end):
    said = f"invalid access to {kind}_size=8 off={offset} size={length}"
    advice = advise_closer(parse_log(f"1: (61) r0 = *(u32 *)(r1 +0)\n{said}\n"))
    assert advice is None if end is None else f"can reach byte {end} of" in advice.why


EXPLAINED = """\
0: R1=ctx() R10=fp0
0: (95) exit
R9 is odd

Verification failed: Register Type Safety: Odd register

Reason:
  R9 has never been made even on this path,
  so the verifier cannot use it as an input.

At:
  insn 0
        | ^-- error: R9 is odd, and should have been in [0, 1]
  Instruction context:
  >>> 0 | (95) exit

Causal path:
  no retained diagnostic events on this path

Suggestion:
  Make R9 even on every path before this instruction.

processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_the_kernels_own_explanation_is_no_complaint():
    found = parse_log(EXPLAINED)
    assert (found.complaint, found.index, found.instruction) == (["R9 is odd"], 0, "exit")
    assert found.explained == (
        "R9 has never been made even on this path, so the verifier cannot use it as an input.",
        "Make R9 even on every path before this instruction.",
    )
    assert parse_log(EXPLAINED.partition("Verification")[0]).explained is None
