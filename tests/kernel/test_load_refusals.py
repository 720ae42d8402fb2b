"""Tests the exact messages of loads that need something which this kernel, or libbpf, lacks."""

import errno
import os
import subprocess
import sys

import pytest

from pytest_bpfmaps import LoadError, VerifierError
from pytest_bpfmaps.kernel.features import kernel_config
from pytest_bpfmaps.libbpf import version

RELEASE = os.uname().release
LIBBPF = "{}.{}".format(*version())
HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
"""


def refusal(bpf, code, kind=LoadError, **options):
    with pytest.raises(kind) as caught:
        bpf.load(code=HEAD + code, **options)
    lines = str(caught.value).splitlines()
    return lines[0], lines[-1], caught.value


def refused_map(bpf, attributes):
    first, last, error = refusal(bpf, f'struct {{ {attributes} }} the_map SEC(".maps");')
    assert first.startswith("cannot load inline.bpf.o: map 'the_map': "), first
    return first.partition("'the_map': ")[2], last.removeprefix("  -> "), error


ARRAY = "__uint(type, BPF_MAP_TYPE_ARRAY); "
HASH = "__uint(type, BPF_MAP_TYPE_HASH); "


@pytest.mark.parametrize(
    ("attributes", "why", "fix"),
    [
        (
            ARRAY + "__uint(key_size, 8); __uint(value_size, 8); __uint(max_entries, 1);",
            "the kernel refuses key_size=8",
            "maps of type array have keys of 4 bytes",
        ),
        (
            HASH + "__uint(key_size, 4); __uint(value_size, 8);",
            "the kernel refuses max_entries=0",
            "it has to be at least 1. The source does not say it, so give it at the load: "
            "bpf.load(…, max_entries={'the_map': 1024}), or write __uint(max_entries, …)",
        ),
        (
            "__uint(type, BPF_MAP_TYPE_QUEUE); __uint(key_size, 4); __uint(value_size, 8);"
            "__uint(max_entries, 1);",
            "the kernel refuses key_size=4",
            "maps of type queue have keys of 0 bytes",
        ),
        (
            HASH + "__uint(key_size, 4); __uint(value_size, 8); __uint(max_entries, 1);"
            "__uint(map_flags, BPF_F_MMAPABLE);",
            "the kernel refuses map_flags=0x400",
            "without 0x400 it can be created: those flags are not for this type, or are newer than this "
            "kernel",
        ),
        (
            HASH + "__uint(key_size, 4); __uint(value_size, 0); __uint(max_entries, 1);",
            "it has no value",
            "declare one: __type(value, …) in C, value='u64' of bpf.create_map",
        ),
        (
            "__uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(key_size, 8); __uint(value_size, 8);"
            "__uint(max_entries, 1);",
            "the kernel refuses map_flags=0x0",
            "maps of type lpm_trie need __uint(map_flags, BPF_F_NO_PREALLOC)",
        ),
    ],
)
def test_a_map_with_a_bad_attribute(bpf, attributes, why, fix):
    assert refused_map(bpf, attributes)[:2] == (why, fix)


def test_a_map_that_is_too_large(bpf):
    attributes = ARRAY + "__uint(key_size, 4); __uint(value_size, 1 << 20); __uint(max_entries, 1 << 30);"
    why, fix, error = refused_map(bpf, attributes)
    assert error.errno in (errno.E2BIG, errno.ENOMEM)
    assert why.endswith(
        f"1073741824 elements (max_entries) of 1048580 bytes are {1073741824 * 1048580} bytes"
    )
    assert fix == "make fewer or smaller elements"


def test_an_attempt_that_libbpf_repeats_is_left_out(bpf):
    sizes = "__uint(max_entries, 4); __type(key, __u64); __type(value, __u64);"  # an array's key has 4 bytes
    _, _, error = refused_map(bpf, ARRAY + sizes)
    assert "map 'the_map': failed to create" in str(error)
    assert "Retrying" not in str(error)


def test_a_map_type_that_nobody_has(bpf):
    why, _, _ = refused_map(bpf, "__uint(type, 999); __uint(key_size, 4); __uint(max_entries, 1);")
    assert why == "EINVAL: Invalid argument: maps of type 999 are not known here"


def test_what_is_wrong_with_an_inner_map(bpf):
    attributes = """
        __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4);
        __uint(key_size, 4); __uint(value_size, 4);
        __array(values, struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(key_size, 8);
                                 __uint(value_size, 4); __uint(max_entries, 1); });
    """
    why, fix, _ = refused_map(bpf, attributes)
    assert why == "its inner map, of type array: the kernel refuses key_size=8"
    assert fix == "maps of type array have keys of 4 bytes"


INNER = """
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(key_size, 4); __uint(value_size, 4); OUTER
    __array(values, struct { __uint(type, BPF_MAP_TYPE_INNER); __uint(key_size, 4);
                             __uint(value_size, 4); __uint(max_entries, 1); });
"""


def test_what_is_wrong_with_a_map_of_maps_whose_inner_maps_are_declared(bpf):
    why, fix, _ = refused_map(bpf, INNER.replace("INNER", "ARRAY").replace("OUTER", ""))
    assert why == "the kernel refuses max_entries=0"
    assert fix.startswith("it has to be at least 1")
    sized = INNER.replace("OUTER", "__uint(max_entries, 4);")
    why, fix, _ = refused_map(bpf, sized.replace("INNER", "PROG_ARRAY"))
    assert why == f"Linux {RELEASE} takes no maps of type prog_array as inner maps"
    assert fix == "give its inner maps another type"
    bpf.load(code=HEAD + f'struct {{ {sized.replace("INNER", "ARRAY")} }} the_map SEC(".maps");')


def test_locked_memory_is_raised_where_maps_count_there():
    code = """
import resource
from pytest_bpfmaps.maps.create_errors import Attributes, _can_create
from pytest_bpfmaps.kernel.bpf_types import MapType
hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, hard))
assert _can_create(Attributes(MapType.ARRAY, 4, 1024, 1024, 0))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


FIELD = """
struct task_struct { int %s; } __attribute__((preserve_access_index));
SEC("%s") int prog(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	return BPF_CORE_READ(task, %s);
}
"""


@pytest.mark.bpf_requires("raw_tracepoint")
class TestRelocations:
    def test_a_missing_field_and_its_neighbours(self, bpf):
        first, last, _ = refusal(bpf, FIELD % ("tgidd", "raw_tp/sched_switch", "tgidd"), VerifierError)
        assert first.endswith(
            f": Linux {RELEASE} does not have the field 'tgidd' in struct task_struct "
            "(a CO-RE relocation failed)"
        )
        assert last.startswith("  -> did you mean 'tgid'")
        assert last.endswith("or guard it with bpf_core_field_exists(((struct task_struct *)0)->tgidd)")

    def test_a_missing_type(self, bpf):
        code = (FIELD % ("x", "raw_tp/sched_switch", "x")).replace("task_struct", "no_such_struct")
        first, last, _ = refusal(bpf, code, VerifierError)
        assert first.endswith(
            f": Linux {RELEASE} does not have struct no_such_struct (a CO-RE relocation failed)"
        )
        assert last.startswith("  -> guard it with bpf_core_type_exists(struct no_such_struct)")

    def test_a_missing_enum_of_64_bits(self, bpf):
        code = """
        enum no_such_enum { WIDE = 0x200000000 };
        SEC("raw_tp/sched_switch") int prog(void *ctx)
        {
            return bpf_core_enum_value(enum no_such_enum, WIDE) != 0;
        }
        """
        first, last, _ = refusal(bpf, code, VerifierError)
        assert first.endswith(
            f": Linux {RELEASE} does not have enum no_such_enum (a CO-RE relocation failed)"
        )
        assert last.startswith("  -> guard it with bpf_core_type_exists(enum no_such_enum)")

    def test_a_missing_enumerator(self, bpf):
        code = """
        enum bpf_map_type___mine { NO_SUCH_MAP = 7 };
        SEC("raw_tp/sched_switch") int prog(void *ctx)
        {
            return bpf_core_enum_value(enum bpf_map_type___mine, NO_SUCH_MAP);
        }
        """
        first, last, _ = refusal(bpf, code, VerifierError)
        assert first.endswith(
            f": Linux {RELEASE} does not have NO_SUCH_MAP in enum bpf_map_type (a CO-RE relocation failed)"
        )
        assert last.endswith(" or guard it with bpf_core_enum_value_exists(enum bpf_map_type, NO_SUCH_MAP)")


# the assembler makes the table here, because only clang 22 and later do so for C
TABLE = """
SEC("socket") __attribute__((naked)) int prog(struct __sk_buff *skb)
{
    asm volatile(".pushsection .jumptables,\\"\\",@progbits\\n table: .quad end - socket\\n .size table, 8\\n"
                 ".global table\\n .popsection\\n r0 = table ll\\n end: r0 = 0\\n exit" ::: "r0");
}
"""


def test_a_jump_table(bpf):
    try:
        bpf.load(code=HEAD + TABLE)
    except LoadError as error:
        told = str(error)
    else:
        told = ""
    assert (
        f"jumps by a table, as clang 22 and later compile a switch for -mcpu=v4, and libbpf {LIBBPF}" in told
    ) == (version() < (1, 7))


def test_a_kernel_function_that_is_not_there(bpf):
    code = """
    extern int bpf_qzqz_xyxy(void) __ksym;
    SEC("tc") int prog(struct __sk_buff *ctx) { return bpf_qzqz_xyxy(); }
    """
    first, last, _ = refusal(bpf, code)
    assert first == (
        f"cannot load inline.bpf.o: Linux {RELEASE} has no kernel function bpf_qzqz_xyxy for BPF programs"
    )
    exists = "&{}" if version() < (1, 2) else "bpf_ksym_exists({})"
    assert last == (
        f"  -> declare it __weak and guard the call: if ({exists.format('bpf_qzqz_xyxy')}) …; "
        "or mark the test bpf_requires(kfunc='bpf_qzqz_xyxy')"
    )


def test_a_setting_that_the_kernel_does_not_have(bpf):
    code = """
    extern int CONFIG_NO_SUCH_OPTION __kconfig;
    SEC("xdp") int prog(struct xdp_md *ctx) { return CONFIG_NO_SUCH_OPTION; }
    """
    first, last, _ = refusal(bpf, code)
    assert "this kernel's configuration does not have it" in first
    assert "/proc/config.gz and /boot" in last


@pytest.mark.bpf_requires(config="BPF_SYSCALL")
def test_a_setting_that_it_has(bpf):
    code = """
    extern int CONFIG_NR_CPUS __kconfig;
    SEC("xdp") int prog(struct xdp_md *ctx) { return CONFIG_NR_CPUS; }
    """
    loaded = bpf.load(code=HEAD + code)
    assert loaded.programs.prog.run(bytes(64)).retval == int(kernel_config()["NR_CPUS"])


def test_a_section_name_that_libbpf_does_not_know(bpf):
    first, last, _ = refusal(bpf, 'SEC("nowhere") int prog(void *ctx) { return 0; }')
    assert first == (
        "cannot load inline.bpf.o: program 'prog' (nowhere): "
        f"libbpf {LIBBPF} does not know the section name 'nowhere'"
    )
    assert last.endswith("program_types.html lists the names")


def test_a_helper_that_does_not_exist(bpf):
    code = """
    static long (*bpf_no_such_helper)(void) = (void *) 4711;
    SEC("xdp") int prog(struct xdp_md *ctx) { return bpf_no_such_helper(); }
    """
    first, last, _ = refusal(bpf, code, VerifierError)
    assert first.endswith(f": Linux {RELEASE} has no such helper as bpf_no_such_helper")
    assert last == '  -> mark the test bpf_requires("bpf_no_such_helper")'


def test_a_helper_that_the_type_of_program_may_not_call(bpf):
    code = 'SEC("xdp") int prog(struct xdp_md *ctx) { return bpf_skb_change_type((void *)ctx, 0); }'
    first, last, _ = refusal(bpf, code, VerifierError)
    assert first.endswith(
        ": this kernel has bpf_skb_change_type, but does not allow it in this type of program (xdp)"
    )
    assert last.startswith("  -> this kernel allows it in programs of type sched_cls, sched_act")


def test_an_instruction_that_the_kernel_does_not_know(bpf):
    code = """
    SEC("xdp") __attribute__((naked)) int prog(struct xdp_md *ctx)
    {
        asm volatile(".byte 0xff, 0, 0, 0, 0, 0, 0, 0; r0 = 0; exit;");
    }
    """
    first, last, _ = refusal(bpf, code, VerifierError)
    assert first.endswith(": the program has an instruction that this kernel does not know")
    assert last == "  -> compile it for an older instruction set: cflags=['-mcpu=v3'], v2 or v1"


@pytest.mark.bpf_requires("lsm")
def test_an_attach_point_that_came_later(bpf, bpf_kernel):
    code = 'SEC("lsm_cgroup/socket_bind") int judge(void *ctx) { return 1; }'
    if bpf_kernel.version >= (6, 0):
        assert bpf.load(code=HEAD + code).programs.judge.id > 0
        return
    first, last, _ = refusal(bpf, code)
    assert first == (
        "cannot load inline.bpf.o: program 'judge' (lsm_cgroup/socket_bind): "
        f'Linux {RELEASE} has no attach point for SEC("lsm_cgroup/socket_bind") (it came with 6.0)'
    )
    assert last == '  -> mark the test bpf_requires("lsm_cgroup/socket_bind")'
