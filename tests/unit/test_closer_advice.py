"""Tests advice that depends on the instruction, the registers or numbers, with logs as kernels write them.

tests/kernel/test_advice_*.py have programs for which kernels write such logs, and follow the advice.
"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.verifier import advise_closer, parse_log
from pytest_bpfmaps.verifier.numbered_advice import short_check

RELEASE = "5: (85) call bpf_ringbuf_submit#132\n"
LOADED = "3: (79) r1 = *(u64 *)(r2 +0)\n4: R1=scalar() R2={} R10=fp0\n5: (71) r3 = *(u8 *)(r1 +0)\n"
NO_POINTER = "R1 invalid mem access 'scalar'"
TAIL_CALL = "2: (85) call bpf_tail_call#12\n"
TO_VALUE = "2: R1=fp-8 {} R10=fp0\n2: (85) call bpf_{}#2\n"
READ = "0: (71) r2 = *(u8 *)(r1 +0)\n"
GLOBAL = f"Validating twice() func#1...\n0: R1=mem_or_null(id=1,off=0,imm=0) R10=fp0\n{READ}"
VALID = "Func#1 ('twice') is safe for any args that match its prototype\n"
PULLED = "1: (85) call bpf_skb_pull_data#39\n"
AT_0, AT_ANY = (f"invalid access to packet, off=0 size=1, R1(id={n},off=0,r=0)" for n in (0, 1))
NEEDS = "invalid access to map value, value_size={} off={} size={}"


def kept(log: str) -> str:
    """Returns a log with R6 in place of R1, which a call changes."""
    return log.replace("(r1 ", "(r6 ").replace("R1=", "R6=").replace("R1 ", "R6 ")


ADVICE = {
    # the C line
    "or": ("; at |= p[0] || p[1];\n1: (4f) r1 |= r2\nR1 bitwise operator |= on pointer prohibited", None),
    "or of clang": (
        "; x = p[a] + p[b];\n1: (4f) r1 |= r2\nR1 bitwise operator |= on pointer prohibited",
        "clang has made an OR",
    ),
    "or of ors": (
        "; x = a || p[b];\n1: (4f) r1 |= r2\nR1 bitwise operator |= on pointer prohibited",
        "clang has made an OR",
    ),
    "arrow": (
        f"; x = BPF_CORE_READ(task->mm,  exe_file->f_inode);\n{READ}R1 invalid mem access 'scalar'",
        r"write commas in place of ->: BPF_CORE_READ\(task, mm, exe_file, f_inode\)",
    ),
    "no arrow": (f"; x = BPF_CORE_READ(task, mm);\n{READ}R1 invalid mem access 'scalar'", None),
    # a pointer that was kept
    "kept in a value": (LOADED.format("map_value(off=0,ks=4,vs=8)") + NO_POINTER, "was kept in a map"),
    "kept in a global": (
        "1: (18) r2 = 0xffff8881\n3: (79) r1 = *(u64 *)(r2 +0)\n5: (71) r3 = *(u8 *)(r1 +0)\n" + NO_POINTER,
        "was kept in a map",
    ),
    "kept elsewhere": (LOADED.format("fp-8") + NO_POINTER, None),
    "half kept": (
        LOADED.format("map_value(off=0,ks=4,vs=8)").replace("u64", "u32") + NO_POINTER,
        None,
    ),
    "kept later": (
        "1: (b7) r1 = 7\n2: R2=map_value(off=0,vs=8) R10=fp0\n2: (71) r3 = *(u8 *)(r1 +0)\n" + NO_POINTER,
        None,
    ),
    "set by the rejected one": ("3: (79) r1 = *(u64 *)(r1 +0)\n" + NO_POINTER, None),
    # metadata
    "meta": (
        "1: R1=pkt_meta(off=0,r=0) R10=fp0\n1: (71) r2 = *(u8 *)(r1 +0)\n" + AT_0,
        "in front of the packet",
    ),
    "meta without states": (
        f"; x = *(char *)(long)ctx->data_meta;\n{READ}{AT_0}",
        "in front of the packet",
    ),
    "no meta": (
        "1: R1=pkt(off=0,r=0) R10=fp0\n; x = *(char *)(long)ctx->data_meta;\n1: (71) r2 = *(u8 *)(r1 +0)\n"
        + AT_0,
        None,
    ),
    # locks
    "global lock": (
        "4: (18) r1 = 0xffff8881\n6: (85) call bpf_spin_unlock#94\nbpf_spin_unlock of different lock",
        "the lock is a global variable",
    ),
    "two locks": (
        "5: (bf) r1 = r6\n6: (85) call bpf_spin_unlock#94\nbpf_spin_unlock of different lock",
        None,
    ),
    "lock of data": (
        "6: (85) call bpf_spin_lock#93\nmap 'x.bss' is not a struct type or bpf_spin_lock is mangled",
        "the lock is a global variable",
    ),
    "lock in a struct of data": (
        "4: (85) call bpf_spin_lock#93\nmap '.data.x' doesn't have 'struct bpf_spin_lock'",
        "the lock is a global variable",
    ),
    "no lock in a value": (
        "4: (85) call bpf_spin_lock#93\nmap 'm' doesn't have 'struct bpf_spin_lock'",
        None,
    ),
    "second lock": (
        "6: (85) call bpf_spin_lock#93\nLocking two bpf_spin_locks are not allowed",
        "a second lock",
    ),
    "locked call": ("6: (85) call bpf_get_prandom_u32#7\nfunction calls while holding a lock", None),
    "dynptr": (
        "6: (85) call bpf_dynptr_data#203\nR3 is not a known constant",
        "bpf_dynptr_data.. takes only",
    ),
    "dynptr of others": ("6: (85) call bpf_dynptr_read#201\nR3 is not a known constant", None),
    # the call
    "modified context": (
        "2: (85) call bpf_x#2\ndereference of modified ctx ptr R1 off=4 disallowed",
        "copy the field",
    ),
    "moved context": (
        "1: R1=ctx(off=4,imm=0) R10=fp0\n1: (61) r2 = *(u32 *)(r1 +0)\n"
        "dereference of modified ctx ptr R1 off=4 disallowed",
        "read the fields from the context itself",
    ),
    "context and a variable": (
        "1: R1=ctx(off=0,umax=255,var_off=(0x0; 0xff)) R10=fp0\n1: (61) r2 = *(u32 *)(r1 +0)\n"
        "dereference of modified ctx ptr R1 off=4 disallowed",
        None,
    ),
    "context without states": (f"{READ}dereference of modified ctx ptr R1 off=4 disallowed", None),
    "format": ("2: (85) call bpf_snprintf#165\nR3 type=fp expected=map_value", "BPF_SNPRINTF"),
    "format of another": ("2: (85) call bpf_snprintf_btf#149\nR3 type=fp expected=map_value", None),
    "no keys": ("2: (85) call bpf_map_lookup_elem#1\nR2 invalid zero-sized read", "have no keys"),
    "into the kernel": (
        "2: (85) call bpf_probe_read_kernel#113\nR1 type=scalar expected=fp",
        "&copy, sizeof",
    ),
    "dynptr's memory after its release": (
        "2: (85) call bpf_dynptr_data#203\n3: (85) call bpf_ringbuf_submit_dynptr#199\n"
        "4: (7b) *(u64 *)(r6 +0) = r1\nR6 invalid mem access 'scalar'",
        "move the use before",
    ),
    "dynptr's memory before its release": (
        "2: (85) call bpf_dynptr_data#203\n4: (7b) *(u64 *)(r6 +0) = r1\nR6 invalid mem access 'scalar'",
        None,
    ),
    "value in a map of maps": (
        "2: (85) call bpf_map_update_elem#2\ncannot pass map_type 13 into func bpf_map_update_elem#2",
        "look an inner map up",
    ),
    "element of a CPU": (
        "2: (85) call bpf_map_lookup_percpu_elem#195\n"
        "cannot pass map_type 1 into func bpf_map_lookup_percpu_elem#195",
        "PERCPU_HASH or LRU_PERCPU_HASH",
    ),
    "submitted twice": (
        "2: (85) call bpf_ringbuf_submit#132\nR1 type=scalar expected=ringbuf_mem",
        "exactly once",
    ),
    "variable size": ("2: (85) call bpf_ringbuf_reserve#131\nR2 is not a known constant", "sizeof"),
    "no programs": (f"{TAIL_CALL}expected prog array map for tail call", "PROG_ARRAY"),
    # results and arguments
    "no result": ("5: (bf) r1 = r0\nR0 !read_ok", "a function that returns nothing"),
    "nothing returned": ("5: (95) exit\nR0 !read_ok", None),
    "large key": (
        "5: (85) call bpf_map_lookup_elem#1\ninvalid indirect access to stack R2 off=-4 size=8",
        r"needs 8 bytes there, but the variable has at most 4\n.*the map's key, or value, which has 8 bytes",
    ),
    "large buffer": (
        "5: (85) call bpf_get_current_comm#16\ninvalid write to stack R1 off=-8 size=16",
        "needs 16 bytes there, but the variable has at most 8\n.*sizeof.variable.",
    ),
    "enough stack": ("5: (85) call bpf_get_current_comm#16\ninvalid write to stack R1 off=-16 size=16", None),
    "short text": (
        "5: (85) call bpf_map_update_elem#2\n" + NEEDS.format(5, 0, 16),
        r"has 16 bytes, but what is given has 5\n.*char key\[16\]",
    ),
    "beyond the text": (
        "5: (85) call bpf_map_update_elem#2\n" + NEEDS.format(5, 9, 16),
        "what is given has 0",
    ),
    "offset": (
        TO_VALUE.format("R2=map_value(off=0,ks=4,vs=64,umax=99)", "get_current_comm")
        + "R2 min value is negative, either use unsigned or 'var &= const'",
        "the number that was added to the pointer",
    ),
    "length": (
        TO_VALUE.format("R2=scalar(umax=99)", "get_current_comm")
        + "R2 min value is negative, either use unsigned or 'var &= const'",
        "^the length may be 0, negative",
    ),
    # global functions
    "global null": (GLOBAL + "R1 invalid mem access 'mem_or_null'", r"twice\(\) is a global .*may be NULL"),
    "global size": (GLOBAL + "invalid access to memory, mem_size=4 off=0 size=8", r"twice\(\) .*to 4 bytes,"),
    "after a global": (GLOBAL + VALID + f"{READ}R1 invalid mem access 'mem_or_null'", None),
    # what is not a pointer
    "null": ("0: R1=0 R10=fp0\n" + READ + "R1 invalid mem access 'scalar'", "the pointer is NULL there"),
    "after the release": (
        "4: R1=ringbuf_mem(id=2) R10=fp0\n" + RELEASE + READ.replace("0:", "6:") + NO_POINTER,
        "used after its release",
    ),
    "released, without states": (RELEASE + READ.replace("0:", "6:") + NO_POINTER, "used after its release"),
    "another after a release": (
        kept("4: R1=scalar() R10=fp0\n" + RELEASE + READ.replace("0:", "6:") + NO_POINTER),
        None,
    ),
    "not released": ("4: R1=ringbuf_mem(id=2) R10=fp0\n" + READ.replace("0:", "6:") + NO_POINTER, None),
    "moved packet": (PULLED + READ.replace("0:", "2:") + NO_POINTER, r"^bpf_skb_pull_data\(\) may move"),
    "moved, known": (
        "1: R1=pkt(off=0,r=9) R10=fp0\n" + PULLED + READ.replace("0:", "2:") + NO_POINTER,
        "may move",
    ),
    "moved by a function": (
        "1: R1=pkt(off=0,r=9) R10=fp0\n" + READ + NO_POINTER,
        "^a function that is called before",
    ),
    "moved, not read": (
        kept("1: R1=map_value(off=0) R10=fp0\n" + PULLED + READ.replace("0:", "2:") + NO_POINTER),
        None,
    ),
    # packets
    "far": (
        "1: R1=pkt(id=1,off=0,r=0,umax=65536) R10=fp0\n" + READ + AT_ANY,
        "has no bound",
    ),
    "near": (
        "1: R1=pkt(id=1,off=0,r=0,umax=65000) R10=fp0\n" + READ + AT_ANY,
        None,
    ),
    "near, and beyond with what is added": (
        "1: R1=pkt(id=1,off=0,r=0,umax=65535) R10=fp0\n" + READ + AT_ANY,
        "be beyond 65535 bytes",
    ),
    "variable": (READ + AT_ANY, "bound the offset"),
    "fixed": (READ + AT_0, None),
    "not enough": (
        READ + "invalid access to packet, off=12 size=4, R1(id=0,off=12,r=14)",
        "goes on to byte 16",
    ),
    # numbers
    "verdict": (
        "At program exit the register R0 has value (0x5; 0x0) should have been in (0x0; 0x1)",
        r"return 0 to 1, but .*\nreturn 0 to 1: in a cgroup program 1 allows",
    ),
    "one verdict": (
        "At program exit the register R0 has smin=5 smax=5 should have been in [1, 1]",
        "^.*return 1, but",
    ),
    "verdicts": (
        "At program exit the register R0 has smin=5 smax=5 should have been in [-4095, 0]",
        "return -4095 to 0,",
    ),
    "hook": ("points to disabled hook bpf_lsm_inode_getsecurity", r"fentry/security_inode_getsecurity"),
    "timer on the stack": (
        "8: (85) call bpf_timer_init#169\nR1 type=fp expected=map_value",
        "the struct of a map's value",
    ),
    "dynptr elsewhere": (
        "8: (85) call bpf_ringbuf_reserve_dynptr#198\nR4 type=map_value expected=fp, dynptr_ptr",
        "struct bpf_dynptr ptr;",
    ),
    "copy of the context": (
        "; struct __sk_buff copy = *ctx;\n2: (79) r2 = *(u64 *)(r1 +176)\ninvalid bpf_context access off=176",
        "copies its whole context",
    ),
    "a field of the context": (
        "; __u64 n = *at;\n2: (79) r2 = *(u64 *)(r1 +176)\ninvalid bpf_context access off=176 size=8",
        None,
    ),
    "resilient lock": (
        "1: (85) call bpf_res_spin_lock#77\n9: (95) exit\n"
        "BPF_EXIT instruction in main prog cannot be used inside bpf_spin_lock-ed region",
        r"call bpf_res_spin_unlock\(\)",
    ),
    "spin lock": (
        "1: (85) call bpf_spin_lock#93\n9: (95) exit\n"
        "BPF_EXIT instruction in main prog cannot be used inside bpf_spin_lock-ed region",
        None,
    ),
    "object in a list": (
        "1: (85) call bpf_list_push_front_impl#77\n9: (85) call bpf_obj_drop_impl#78\n"
        "release kfunc bpf_obj_drop_impl expects referenced PTR_TO_BTF_ID passed to R1",
        "belongs to a list or tree",
    ),
    "object of nobody": (
        "9: (85) call bpf_obj_drop_impl#78\n"
        "release kfunc bpf_obj_drop_impl expects referenced PTR_TO_BTF_ID passed to R1",
        None,
    ),
    "ancestor": (
        "6: (85) call bpf_cgroup_ancestor#70\n9: (95) exit\nUnreleased reference id=4 alloc_insn=6",
        r"call bpf_cgroup_release\(\)",
    ),
    "beyond memory": (
        READ + "invalid access to memory, mem_size=8 off=4 size=8",
        "byte 12 of memory that has 8",
    ),
    "inside memory": (READ + "invalid access to memory, mem_size=12 off=4 size=8", None),
}


@pytest.mark.parametrize("name", ADVICE)
def test_advice(name):
    log, said = ADVICE[name]
    found = advise_closer(parse_log(log))
    assert (found is None) == (said is None), found
    assert found is None or re.search(said, f"{found.why}\n{found.fix}"), found


BOUNDS = re.compile(r"offset > (\d+)\) return 0; and a length of at most (\d+)$")
VALUE_AT = "2: R1=map_value(off=0,ks=4,vs={},umax=99,var_off=(0x0; 0x7f)) R10=fp0\n2: (85) call bpf_{}\n"


@given(st.integers(1, 99), st.integers(0, 99), st.integers(1, 99), st.booleans())
def test_a_map_value(size, offset, length, calls):
    said = f"{NEEDS.format(size, offset, length)}\nR1 max value is outside of the allowed memory range\n"
    begin = VALUE_AT.format(size, "trace_printk#6") if calls else READ
    found = advise_closer(parse_log(begin + said))
    if offset + length <= size:
        assert found is None
        return
    assert found.why.startswith(
        f"the program can reach byte {offset + length} of a map's value that has {size}"
    )
    bounds = BOUNDS.search(found.fix)
    assert bool(bounds) == calls
    if bounds:
        most_offset, most_length = map(int, bounds.groups())
        assert most_offset + most_length == size
        assert most_length - most_offset in (0, 1)


@given(st.integers(0, 99), st.integers(1, 16), st.integers(0, 120))
def test_packet_bytes(offset, size, proven):
    found = short_check(
        f"invalid access to packet, off={offset} size={size}, R3(id=0,off={offset},r={proven})"
    )
    if not proven:
        assert found is None
        return
    assert found.why.endswith(f"it has proven {proven}, but goes on to byte {offset + size}")
    assert f"data_end: {offset + size} bytes after" in found.fix


ARGUMENTS = [
    ("map_value_or_null", "fp", None),
    ("scalar", "ctx", "the parameter of the program"),
    ("map_value", "map_ptr", r"put SEC\(\".maps\"\)"),
    ("scalar", "map_ptr", "&map; choose between several"),
    ("fp", "map_ptr", "&map$"),
    ("ctx", "fp, pkt", "copy the fields"),
    ("scalar", "ptr_", "bpf_get_current_task_btf"),
    ("inv", "fp, pkt, map_value", "put the number into a variable"),
    ("scalar", "map_value", "put the number into a variable"),
    ("scalar", "sock", None),
    ("fp", "map_value", None),
    ("fp", "ptr_", None),
]


@pytest.mark.parametrize(("given_type", "wanted", "fix"), ARGUMENTS)
def test_an_argument(given_type, wanted, fix):
    log = f"2: (85) call bpf_x#2\nR2 type={given_type} expected={wanted}"
    found = advise_closer(parse_log(log))
    assert (found is None) == (fix is None)
    assert found is None or re.search(fix, found.fix)


OTHER_MAPS = [
    (3, "bpf_map_lookup_elem", "does not take a program array"),
    (32, "bpf_map_update_elem", "does not take a cgroup storage"),
    (2, "bpf_map_lookup_elem", None),
    (3, "bpf_map_push_elem", "BPF_MAP_TYPE_QUEUE, STACK or BLOOM_FILTER$"),
    (1, "bpf_sk_redirect_hash", "BPF_MAP_TYPE_SOCKHASH$"),
    (1, "bpf_perf_event_output", "BPF_MAP_TYPE_PERF_EVENT_ARRAY$"),
    (1, "bpf_no_such_helper", None),
]


@pytest.mark.parametrize(("map_type", "helper", "said"), OTHER_MAPS)
def test_a_map_of_another_type(map_type, helper, said):
    log = f"2: (85) call {helper}#2\ncannot pass map_type {map_type} into func {helper}#2"
    found = advise_closer(parse_log(log))
    assert (found is None) == (said is None)
    assert found is None or re.search(said, f"{found.why}\n{found.fix}")


@pytest.mark.parametrize(
    ("call", "release"),
    [
        ("call bpf_ringbuf_reserve#131", "bpf_ringbuf_submit() or"),
        ("call bpf_iter_num_new#88", "bpf_iter_num_destroy()"),
        ("call bpf_some_kfunc#88", None),
        ("call 0x12", None),
    ],
)
def test_what_is_not_released(call, release):
    log = f"4: (85) {call}\n5: (95) exit\nUnreleased reference id=2 alloc_insn=4"
    found = advise_closer(parse_log(log))
    assert (found is None) == (release is None)
    assert found is None or found.fix.startswith(f"call {release}")
    assert advise_closer(parse_log(log.replace("insn=4", "insn=3"))) is None
