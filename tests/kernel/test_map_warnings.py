"""Tests ``--bpf-map-warnings``: each fault is found with its line, and programs that are right give none."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from shown_blocks import shows

import pytest_bpfmaps
from pytest_bpfmaps import paths
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.cost.map_warnings import MapReader, uses_of
from pytest_bpfmaps.objects import OpenedObject

CACHE = paths.cache_dir()  # read before pytester changes HOME
GALLERY = Path(__file__).parents[2] / "bpf"
HEAD = """\
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
#define MAP(name, kind, size, value_type) struct { __uint(type, BPF_MAP_TYPE_##kind); \\
    __uint(max_entries, size); __type(key, __u32); __type(value, value_type); } name SEC(".maps")
struct pair { __u64 packets, bytes; };
MAP(hash, HASH, 64, __u64);
MAP(lru, LRU_HASH, 64, __u64);
MAP(array, ARRAY, 8, __u64);
MAP(pairs, ARRAY, 8, struct pair);
MAP(per_cpu, PERCPU_ARRAY, 8, __u64);
struct locked { struct bpf_spin_lock lock; __u32 count; };
MAP(guarded, ARRAY, 8, struct locked);
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 8); __type(value, __u64); } queue SEC(".maps");
__u64 total, seen[4];
"""
XDP = 'SEC("xdp") int p(struct xdp_md *ctx)'
LOOK = "__u32 key = 0; __u64 *v = bpf_map_lookup_elem(&array, &key); if (!v) return 1;"
IP = (
    "void *end = (void *)(long)ctx->data_end; struct ethhdr *eth = (void *)(long)ctx->data; "
    "struct iphdr *ip = (void *)(eth + 1); if ((void *)(ip + 1) > end) return 1; __u32 key = ip->saddr; "
)
KNOWN = "__u64 *v = bpf_map_lookup_elem(&hash, &key); if (!v) return 1;"

FAULTS = {
    "LostAddWarning": [
        f"{XDP} {{ {LOOK} (*v)++; /* here */ return 2; }}",
        f"{XDP} {{ {LOOK} *v += ctx->ingress_ifindex; /* here */ return 2; }}",
        f"{XDP} {{ {LOOK} *v -= 3; /* here */ return 2; }}",
        f"{XDP} {{ {LOOK} *v = 7 + *v; /* here */ return 2; }}",
        f"{XDP} {{ {IP} {KNOWN} (*v)++; /* here */ return 2; }}",
        f"{XDP} {{ total++; /* here */ return 2; }}",
        f"{XDP} {{ seen[2] += 5; /* here */ return 2; }}",
        f"""{XDP} {{ __u32 key = 3; struct pair *v = bpf_map_lookup_elem(&pairs, &key); if (!v) return 1;
            v->bytes += ctx->data_end - ctx->data; /* here */ return 2; }}""",
        f"""{XDP} {{ {LOOK} if (ctx->ingress_ifindex == 1)
            *v += 1; /* here */
            return 2; }}""",
    ],
    "UncheckedUpdateWarning": [
        f"{XDP} {{ __u32 k = ctx->ingress_ifindex; __u64 v = 1;\n"
        "bpf_map_update_elem(&hash, &k, &v, 0); /* here */\nreturn 2; }",
        f"{XDP} {{ __u64 v = 1; bpf_map_push_elem(&queue, &v, 0); /* here */ return 2; }}",
    ],
    "ValueSizeWarning": [
        f"{XDP} {{ {LOOK} return v[1]; /* here */ }}",
        f"{XDP} {{ {LOOK} *(__u32 *)((char *)v + 6) = 1; /* here */ return 2; }}",
    ],
    "SmallKeysWarning": [
        f"""{XDP} {{ __u32 key = 0, other = 1; __u64 one = 1;
            if (bpf_map_update_elem(&hash, &key, &one, 0)) /* here */
                return 1;
            return bpf_map_lookup_elem(&hash, &other) ? 2 : 1; }}""",
    ],
    "SharedCounterWarning": [
        f"{XDP} {{ {LOOK} __sync_fetch_and_add(v, 1); /* here */ return 2; }}",
    ],
}
RIGHT = [
    f"{XDP} {{ __u32 key = 0; __u64 *v = bpf_map_lookup_elem(&per_cpu, &key); if (v) (*v)++; return 2; }}",
    # the key is the thread's, or this CPU's
    """SEC("tracepoint/raw_syscalls/sys_enter") int p(void *ctx) {
        __u32 key = bpf_get_current_pid_tgid(); __u64 *v = bpf_map_lookup_elem(&hash, &key);
        if (v) (*v)++; return 0; }""",
    f"{XDP} {{ __u32 key = bpf_get_smp_processor_id() & 7; __u64 *v = bpf_map_lookup_elem(&array, &key);"
    " if (v) (*v)++; return 2; }",
    # a field of an inner map, as the kernel's struct bpf_map has it
    """struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
        __type(value, __u32); };
    struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1); __type(key, __u32);
        __array(values, struct inner); } outer SEC(".maps");
    SEC("xdp") int p(struct xdp_md *ctx) { __u32 key = 0, *field = bpf_map_lookup_elem(&outer, &key);
        return field ? field[7] : 2; }""",
    # nobody knows what the key is
    """SEC("tracepoint/sched/sched_switch") int p(__u32 *ctx) {
        __u32 key = ctx[6]; __u64 *v = bpf_map_lookup_elem(&hash, &key); if (v) (*v)++; return 0; }""",
    f"{XDP} {{ {LOOK} *v = ctx->ingress_ifindex; return 2; }}",
    f"{XDP} {{ {LOOK} return *v + 1; }}",
    f"{XDP} {{ {LOOK} __u64 old = *v + 1; v[0] = old & 3; return 2; }}",
    f"{XDP} {{ {LOOK} total = *v + 1; return 2; }}",
    # a lock
    f"""{XDP} {{ __u32 key = 0; struct locked *v = bpf_map_lookup_elem(&guarded, &key); if (!v) return 1;
        bpf_spin_lock(&v->lock); v->count++; bpf_spin_unlock(&v->lock); return 2; }}""",
    # programs that user space runs
    'SEC("syscall") int p(void *ctx) { total++; return 0; }',
    # the atomic addition is read
    f"{XDP} {{ {LOOK} __sync_fetch_and_add(v, 1); return *v & 1; }}",
    f"{XDP} {{ {LOOK} return __sync_fetch_and_add(v, 1) & 1; }}",
    f"{XDP} {{ {IP} key &= 7; __u64 *v = bpf_map_lookup_elem(&hash, &key); if (v) __sync_fetch_and_add(v, 1);"
    " return 2; }",
    # the update is looked at, or the map can't be full
    f"{XDP} {{ __u32 k = 9; __u64 v = 1; return bpf_map_update_elem(&hash, &k, &v, 0) ? 1 : 2; }}",
    f"{XDP} {{ __u32 k = 9; __u64 v = 1; bpf_map_update_elem(&lru, &k, &v, 0); return 2; }}",
    f"{XDP} {{ __u32 k = 9; __u64 v = 1; bpf_map_update_elem(&array, &k, &v, 0); return 2; }}",
    f"{XDP} {{ __u64 v = 1; bpf_map_push_elem(&queue, &v, BPF_EXIST); return 2; }}",
    f"""{XDP} {{ __u32 k = ctx->ingress_ifindex; __u64 v = 0; bpf_map_update_elem(&hash, &k, &v, BPF_NOEXIST);
        return bpf_map_lookup_elem(&hash, &k) ? 2 : 1; }}""",
    # an array would not do: a key is deleted, there is a gap, or nobody knows all keys
    f"""{XDP} {{ __u32 k = 0; __u64 v = 1; if (bpf_map_update_elem(&hash, &k, &v, 0)) return 1;
        return bpf_map_delete_elem(&hash, &k) ? 1 : 2; }}""",
    f"""{XDP} {{ __u32 k = 0, l = 2; __u64 v = 1;
        return bpf_map_update_elem(&hash, &k, &v, 0) + bpf_map_update_elem(&hash, &l, &v, 0) ? 1 : 2; }}""",
    f"""{XDP} {{ __u32 k = 0, l = ctx->ingress_ifindex; __u64 v = 1;
        return bpf_map_update_elem(&hash, &k, &v, 0) + bpf_map_update_elem(&hash, &l, &v, 0) ? 1 : 2; }}""",
    f"{XDP} {{ {LOOK} return ((__u32 *)v)[1]; }}",
]


def read(code: str) -> list:
    """Returns what is found in a program; it is not loaded, for some faults would be refused."""
    path = LocalCompiler().compile(CompileRequest(code=HEAD + code))
    with OpenedObject(path, quiet=True) as opened, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        MapReader().before_load(opened)
    return told


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, codes in FAULTS.items() for code in codes])
def test_a_fault_is_found_with_its_line(name, code):
    found = read(code)
    assert [each.category.__name__ for each in found] == [name]
    line = next(n for n, text in enumerate((HEAD + code).splitlines(), 1) if "/* here */" in text)
    assert found[0].lineno == line
    assert " -> " in str(found[0].message)
    assert issubclass(found[0].category, pytest_bpfmaps.MapUseWarning)


@pytest.mark.parametrize("code", RIGHT)
def test_a_program_that_is_right_gives_no_warning(code):
    assert [str(each.message) for each in read(code)] == []


@pytest.mark.bpf_requires("xdp")
def test_an_addition_in_two_steps_is_lost_in_truth(bpf):
    """The program does by hand what two CPUs do: another addition comes between reading and writing."""
    steps = "__u64 old = *(volatile __u64 *)v; __sync_fetch_and_add(v, 5); *v = old + 1;"
    code = f"{XDP} {{ {LOOK} {steps} return 2; }}"
    loaded = bpf.load(code=HEAD + code, programs=["p"])
    loaded.programs.p.run(data=bytes(64))
    assert loaded.maps.array[0] == 1  # and not 6


# Where the gallery does not look at the result of an update: there, an event that is lost is no harm.
TRUE_OF_THE_GALLERY = {
    ("failed_opens.bpf.c", "UncheckedUpdateWarning", "asked"),
    ("latency.bpf.c", "UncheckedUpdateWarning", "began"),
    ("name_lookups.bpf.c", "UncheckedUpdateWarning", "asked"),
    ("stack_traces.bpf.c", "UncheckedUpdateWarning", "origins"),
    ("talkers.bpf.c", "UncheckedUpdateWarning", "talkers"),
}


def test_no_false_alarm_on_the_gallery():
    compiler, found = LocalCompiler(), set()
    sources = sorted(GALLERY.glob("*.bpf.c"))
    assert len(sources) > 30
    for source in sources:
        path = compiler.compile(CompileRequest(source=str(source), include=(str(GALLERY),)))
        with OpenedObject(path, quiet=True) as opened, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            MapReader().before_load(opened)
        for each in told:
            name = str(each.message).split("map '")[1].split("'")[0]
            found.add((source.name, each.category.__name__, name))
            assert Path(each.filename).name == source.name
    assert found == TRUE_OF_THE_GALLERY


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", bytes(100)])
def test_a_damaged_object_has_no_warning(tmp_path, damage):
    path = tmp_path / "x.bpf.o"
    path.write_bytes(damage)
    assert uses_of(path, {}) == []


SUITE = """
import pytest

def test_it(bpf):
    bpf.load("add.bpf.c", programs=["p"])
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    (pytester.path / "add.bpf.c").write_text(f"{HEAD}\n{XDP} {{ {LOOK}\n    (*v)++;\n    return 2; }}\n")
    pytester.makepyfile(test_it=SUITE)

    def run(*options, ini="", **outcomes):
        pytester.makefile(".toml", pytest="[pytest]\n" + ini)
        result = pytester.runpytest_subprocess("--bpf-kernel=host", *options)
        result.assert_outcomes(**(outcomes or {"passed": 1}))
        return result

    return run


@pytest.mark.bpf_requires("xdp")
def test_how_a_warning_is_shown_and_silenced(suite, pytester):
    shows("cost.md", "LostAdd", suite("--bpf-map-warnings", passed=1, warnings=1).stdout.str())
    suite(ini="bpf_map_warnings = true\n", passed=1, warnings=1)
    suite()
    allow = "bpf_allow_map_warnings = [\"LostAdd.*'array'  # one CPU\"]\n"
    suite("--bpf-map-warnings", ini=allow)
    suite("--bpf-map-warnings", ini=allow.replace("array", "other"), passed=1, warnings=1)
    suite("--bpf-map-warnings", "-W", "ignore::pytest_bpfmaps.LostAddWarning")
    suite("--bpf-map-warnings", "-W", "error::pytest_bpfmaps.MapUseWarning", failed=1)
    pytester.makepyfile(
        test_it=SUITE.replace("def ", "@pytest.mark.bpf_map_warnings('LostAdd', reason='one CPU')\ndef ")
    )
    suite("--bpf-map-warnings")


@pytest.mark.bpf_requires("xdp")
def test_silencing_needs_a_reason(suite, pytester):
    pytester.makefile(".toml", pytest="[pytest]\nbpf_allow_map_warnings = ['LostAdd']")
    result = pytester.runpytest_subprocess("--bpf-kernel=host", "--bpf-map-warnings")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*bpf_allow_map_warnings: 'LostAdd' has no reason", "*-> write: REGEX*"])
    pytester.makepyfile(test_it=SUITE.replace("def ", "@pytest.mark.bpf_map_warnings('LostAdd')\ndef "))
    suite("--bpf-map-warnings", errors=1).stdout.fnmatch_lines(["*regexes and a reason are needed*"])
