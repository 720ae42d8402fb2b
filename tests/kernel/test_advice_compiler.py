"""Sources that clang refuses: what the message says is done, and the program compiles and loads."""

import re

import pytest

from pytest_bpfmaps import CompileError

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
"""
ATOMIC = 'TYPE n; SEC("xdp") int prog(struct xdp_md *ctx) { __sync_fetch_and_add(&n, 1); return 2; }'
READ = '__u64 n; SEC("xdp") int prog(struct xdp_md *ctx) { __u64 value = 0; READ; return value & 1; }'
FIELD = """
TYPE
SEC("tracepoint") int prog(void *ctx)
{
    struct NAME *task = (void *)bpf_get_current_task();
    return READ & 0;
}
"""
OLD = "struct task_struct___old { long state; } __attribute__((preserve_access_index));"
GUARDED = "(bpf_core_field_exists(task->state) ? BPF_CORE_READ(task, state) : 0)"


@pytest.mark.parametrize(
    ("code", "bad", "good", "why"),
    [
        pytest.param(ATOMIC, {"TYPE": "__u16"}, {"TYPE": "__u32"}, "on 32 and 64 bits only", id="16"),
        pytest.param(ATOMIC, {"TYPE": "__u8"}, {"TYPE": "__u64"}, "on 32 and 64 bits only", id="8"),
        pytest.param(
            READ,
            {"READ": "value = __atomic_load_n(&n, __ATOMIC_ACQUIRE)"},
            {"READ": "value = *(volatile __u64 *)&n"},
            "this clang has no atomic load for BPF",
            id="load",
        ),
        pytest.param(
            FIELD,
            {"TYPE": "", "NAME": "task_struct", "READ": "task->state"},
            {"TYPE": OLD, "NAME": "task_struct___old", "READ": GUARDED},
            r"whose vmlinux\.h is used has no member state(.*\n)*.*declare struct task_struct___old",
            id="member",
        ),
    ],
)
def test_what_is_said_helps(bpf, code, bad, good, why):
    with pytest.raises(CompileError, match=why):
        bpf.load(code=HEAD + replaced(code, bad))
    bpf.load(code=HEAD + replaced(code, good))


def replaced(code, names):
    for name, text in names.items():
        code = code.replace(name, text)
    return code


WIDE = 'SEC("xdp") int prog(struct xdp_md *ctx) { return __sync_val_compare_and_swap(&n, 0, 1) + 1; }'


def test_an_atomic_operation_of_a_newer_instruction_set(bpf):
    with pytest.raises(CompileError, match=r"came with the instruction set v3(.*\n)*.*\['-mcpu=v3'\]"):
        bpf.load(code=f"{HEAD}__u32 n; {WIDE}", cflags=["-mcpu=v2"])
    bpf.open(code=f"{HEAD}__u32 n; {WIDE}", cflags=["-mcpu=v3"])
    bpf.load(code=f"{HEAD}__u64 n; {WIDE}", cflags=["-mcpu=v3"])


@pytest.mark.parametrize(
    ("bad", "good"),
    [("<bpf_helpers.h>", "<bpf/bpf_helpers.h>"), ("<bpf/vmlinux.h>", '"vmlinux.h"')],
    ids=["helpers", "vmlinux"],
)
def test_the_name_of_a_header(bpf, bad, good):
    code = '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\nSEC("xdp") int prog(void *ctx) { return 2; }'
    with pytest.raises(CompileError) as error:
        bpf.load(code=code.replace(good, bad, 1))
    assert f"write {'#include ' * good.startswith(chr(34))}{good}" in error.value.fix
    bpf.load(code=code)


def test_a_header_of_the_kernel_that_leads_to_the_c_library(bpf):
    code = (
        'INCLUDES #include <bpf/bpf_helpers.h>\nSEC("xdp") int prog(struct xdp_md *ctx) { return XDP_PASS; }'
    )
    with pytest.raises(CompileError) as error:
        bpf.load(
            code=code.replace("INCLUDES ", "#include <linux/if.h>\n#include <linux/bpf.h>\n"),
            cflags=["-U__x86_64__", "-U__aarch64__"],
        )
    assert "<linux/if.h> leads to the C library" in error.value.fix
    bpf.load(code=code.replace("INCLUDES ", '#include "vmlinux.h"\n'))


def test_errors_come_before_warnings(bpf):
    code = "\n".join(
        [
            'SEC("xdp") int prog(struct xdp_md *ctx)',
            "{",
            *(f"char *wrong{i} = (int *)0;" for i in range(20)),
            "return nothing;",
            "}",
        ]
    )
    with pytest.raises(CompileError) as error:
        bpf.load(code=HEAD + code)
    first = next(re.finditer(r"(?m)^.*: (?:error|warning): .*", error.value.details))[0]
    assert "use of undeclared identifier 'nothing'" in first
    assert error.value.details.count("warning: incompatible pointer types") == 20
