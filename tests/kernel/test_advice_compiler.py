"""Tests sources that clang refuses: each compiles and loads after the message's remedy."""

import re

import pytest
from replaced_names import replaced

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


WIDE = 'SEC("xdp") int prog(struct xdp_md *ctx) { return __sync_val_compare_and_swap(&n, 0, 1) + 1; }'


def test_an_atomic_operation_of_a_newer_instruction_set(bpf):
    with pytest.raises(CompileError, match=r"came with the instruction set v3(.*\n)*.*\['-mcpu=v3'\]"):
        bpf.load(code=f"{HEAD}__u32 n; {WIDE}", cflags=["-mcpu=v2"])
    bpf.open(code=f"{HEAD}__u32 n; {WIDE}", cflags=["-mcpu=v3"])
    bpf.open(code=f"{HEAD}__u64 n; {WIDE}", cflags=["-mcpu=v3"])


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
    assert "<linux/if.h> includes headers of the C library" in error.value.fix
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


PLAIN = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { BODY return XDP_PASS; }'
KERNELS = HEAD + "#include <bpf/bpf_tracing.h>\n"
SIX = """
INLINE int f(int a, int b, int c, int d, int e, int g) { return a * b + c * d + e * g; }
SEC("xdp") int prog(struct xdp_md *x) { return f(x->data, x->data_end, 3, 4, x->rx_queue_index, 5) & 1; }
"""
RETURNED = 'SEC("kretprobe/do_unlinkat") int BPF_KRETPROBE(prog, int retMORE) { return 0; }'


@pytest.mark.parametrize(
    ("code", "bad", "good", "why"),
    [
        pytest.param(
            HEAD + XDP.replace("XDP_PASS", "VALUE"),
            {"BODY": "", "VALUE": "ETH_P_IP"},
            {"BODY": "", "VALUE": "0x0800"},
            r"ETH_P_IP is a macro, and vmlinux\.h has no macros(.*\n)*.*#define ETH_P_IP 0x0800",
            id="macro",
        ),
        pytest.param(
            PLAIN + XDP,
            {"BODY": 'bpf_prink("x");'},
            {"BODY": 'bpf_printk("x");'},
            "did you mean 'bpf_printk'",
            id="misspelt",
        ),
        pytest.param(
            "INCLUDE" + PLAIN + XDP,
            {"INCLUDE": "", "BODY": "if (ntohs(ctx->rx_queue_index)) return 1;"},
            {
                "INCLUDE": "#include <bpf/bpf_endian.h>\n",
                "BODY": "if (bpf_ntohs(ctx->rx_queue_index)) return 1;",
            },
            r"ntohs belongs to the C library(.*\n)*.*write bpf_ntohs\(\) of <bpf/bpf_endian\.h>",
            id="ntohs",
        ),
        pytest.param(
            PLAIN + XDP,
            {"BODY": "uint32_t n = ctx->rx_queue_index; if (n) return 1;"},
            {"BODY": "__u32 n = ctx->rx_queue_index; if (n) return 1;"},
            r"uint32_t belongs to the C library(.*\n)*.*write __u32",
            id="stdint",
        ),
        pytest.param(
            "INCLUDE" + PLAIN + XDP,
            {"INCLUDE": "", "BODY": "bool b = ctx->rx_queue_index; if (b) return 1;"},
            {
                "INCLUDE": "#include <stdbool.h>\n",
                "BODY": "bool b = ctx->rx_queue_index; if (b) return 1;",
            },
            r"bool belongs to the C library(.*\n)*.*include <stdbool\.h>",
            id="bool",
        ),
        pytest.param(
            "FIRST #include <bpf/bpf_helpers.h>\n" + 'SEC("xdp") int prog(void *ctx) { return 2; }',
            {"FIRST ": ""},
            {"FIRST ": "#include <linux/bpf.h>\n"},
            r"uses types that no header before it declares(.*\n)*.*#include <linux/bpf\.h> before it",
            id="order",
        ),
        pytest.param(
            "#include <linux/bpf.h>\nNEXT " + 'SEC("xdp") int prog(void *ctx) { return 2; }',
            {"NEXT ": ""},
            {"NEXT ": "#include <bpf/bpf_helpers.h>\n"},
            r"SEC\(\) is a macro of libbpf, and not declared(.*\n)*.*#include <bpf/bpf_helpers\.h>",
            id="no-helpers",
        ),
        pytest.param(
            HEAD + SIX,
            {"INLINE": "__attribute__((noinline))"},
            {"INLINE": "static __always_inline"},
            r"at most five parameters(.*\n)*.*static __always_inline",
            id="six",
        ),
        pytest.param(
            KERNELS + RETURNED,
            {"MORE": ", struct filename *name"},
            {"MORE": ""},
            "BPF_KRETPROBE gives one argument",
            id="kretprobe",
        ),
        pytest.param(
            PLAIN + 'SEC("SECTION") int prog(struct xdp_md *ctx) { return 2; }',
            {"SECTION": "prog"},
            {"SECTION": "xdp"},
            "a section and a function have the same name, prog",
            id="section",
        ),
        pytest.param(
            PLAIN + XDP,
            {"BODY": "__s64 n = ctx->rx_queue_index; if ((n - 7) / (n + 3)) return 1;"},
            {"BODY": "__u64 n = ctx->rx_queue_index; if ((n + 7) / (n + 3)) return 1;"},
            r"signed division(.*\n)*.*divide unsigned numbers",
            id="division",
        ),
        pytest.param(
            "MINE" + HEAD + 'SEC("xdp") int prog(struct xdp_md *ctx) { return BPF_MAP_TYPE_TELEPORT & 1; }',
            {"MINE": ""},
            {"MINE": "enum mine { BPF_MAP_TYPE_TELEPORT = 99 };\n"},
            r"TELEPORT is neither in the source nor in the vmlinux\.h(.*\n)*.*declare it in the source",
            id="enumerator",
        ),
        pytest.param(
            'MORE\nSEC("kprobe/do_exit") int BPF_KPROBE(on_exit, long code) { return code > 3; }',
            {"MORE": HEAD},
            {"MORE": KERNELS},
            r"BPF_KPROBE is in a header of libbpf(.*\n)*.*#include <bpf/bpf_tracing\.h>",
            id="macro-with-parameters",
        ),
        pytest.param(
            'MORE\nSEC("lsm/file_open") int BPF_PROG(a) { return 0; }\n'
            'SEC("lsm/file_open") int BPF_PROG(b) { return 0; }',
            {"MORE": HEAD},
            {"MORE": KERNELS},
            r"BPF_PROG is in a header of libbpf(.*\n)*.*#include <bpf/bpf_tracing\.h>",
            id="macro-without-parameters",
        ),
        pytest.param(
            'MORE\nSEC("usdt") int BPF_USDT(probe, long x) { return x > 1; }',
            {"MORE": KERNELS},
            {"MORE": KERNELS + "#include <bpf/usdt.bpf.h>"},
            r"BPF_USDT is in a header of libbpf(.*\n)*.*#include <bpf/usdt\.bpf\.h>",
            id="macro-of-usdt",
        ),
    ],
)
def test_what_is_said_compiles(bpf, code, bad, good, why):
    with pytest.raises(CompileError, match=why):
        bpf.compile(code=replaced(code, bad))
    bpf.open(code=replaced(code, good))


def test_a_macro_of_newer_headers_is_named_with_their_version(bpf):
    code = KERNELS + 'SEC("uretprobe") int BPF_URETPROBE(ended, void *ret) { return !ret; }'
    question = KERNELS + "int known =\n#ifdef BPF_URETPROBE\n1;\n#else\n0;\n#endif\n"
    if bpf.open(code=question).globals.known == 1:  # clang's headers may be elsewhere than in /usr/include
        bpf.open(code=code)
        return
    with pytest.raises(CompileError, match=r"BPF_URETPROBE came with libbpf 1\.2(.*\n)*.*bpf_paths"):
        bpf.compile(code=code)
