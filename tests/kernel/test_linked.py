"""Tests several sources in one object: it equals bpftool's, and each name means the right thing."""

import shutil
import subprocess
import warnings

import pytest
from installed import installed

from pytest_bpfmaps import CompileError, LoadError, PortabilityWarning
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.libbpf import version

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
MAIN = """
extern struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u64);
} counts SEC(".maps");
extern int limit;
int add(__u32 key);

SEC("xdp") int count(struct xdp_md *ctx) { return add(1) < limit ? XDP_PASS : XDP_DROP; }
"""
LIBRARY = """
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u64);
} counts SEC(".maps");
int limit = 3;

__noinline int add(__u32 key)
{
    __u64 *value = bpf_map_lookup_elem(&counts, &key);

    return value ? (*value += STEP) : 0;
}
"""


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "main.bpf.c").write_text(HEAD + MAIN)
    (tmp_path / "library.bpf.c").write_text(HEAD + LIBRARY)
    return [tmp_path / "main.bpf.c", tmp_path / "library.bpf.c"]


def test_one_object_of_two_sources(bpf, sources):
    obj = bpf.load(sources, defines={"STEP": 2}, globals={"limit": 5})
    assert [obj.programs.count.run(bytes(64)).retval for _ in range(3)] == [2, 2, 1]
    assert obj.maps.counts == {0: 0, 1: 6, 2: 0, 3: 0}
    assert obj.globals.limit == 5


def test_sources_and_objects_may_be_mixed(bpf, sources, tmp_path):
    main, library = sources
    made = bpf.compile(library, defines={"STEP": 1})
    copy = tmp_path / "library.bpf.o"
    shutil.copyfile(made, copy)
    obj = bpf.load([main, copy])
    assert obj.programs.count.run(bytes(64)).retval == 2


def test_it_is_what_bpftool_links(bpf, sources, tmp_path):
    bpftool = installed("bpftool")
    made = [bpf.compile(each, defines={"STEP": 1}) for each in sources]
    theirs = tmp_path / "theirs.bpf.o"
    subprocess.run([bpftool, "gen", "object", theirs, *made], check=True)
    ours = bpf.compile(sources, defines={"STEP": 1})
    said = subprocess.run([bpftool, "version"], capture_output=True, text=True, check=True).stdout
    if "libbpf v{}.{}\n".format(*version()) in said:
        assert ours.read_bytes() == theirs.read_bytes()
    else:  # bpftool has a libbpf of its own; another version may write other types
        assert _contents(ours) == _contents(theirs)


def _contents(made):
    elf = Elf(made.read_bytes())
    return {s.name: elf.content(s) for s in elf.sections if not s.name.startswith(".BTF")}


def test_the_same_objects_are_linked_once(bpf, sources):
    first = bpf.compile(sources, defines={"STEP": 1})
    before = first.stat()
    assert bpf.compile(sources, defines={"STEP": 1}) == first
    assert first.stat().st_mtime_ns == before.st_mtime_ns
    assert bpf.compile(sources, defines={"STEP": 2}) != first


def test_what_does_not_fit_is_refused(bpf, sources):
    main, library = sources
    other = library.with_name("other.bpf.c")
    other.write_text(HEAD + "int limit = 4;\n")
    with pytest.raises(CompileError, match=r"(?s)cannot link main\.bpf\.o and .*\(limit\) definition"):
        bpf.load([main, library, other], defines={"STEP": 1})
    with pytest.raises(CompileError, match="both a source and code"):
        bpf.load([main], code=HEAD)
    with pytest.raises(CompileError, match="neither a source nor code"):
        bpf.load([])


BEFORE = """
int before SEC(".data.more") = 7;
int wanted SEC(".data.more") = 3;
"""
OWN = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, int); __type(value, int); }
own SEC(".maps");

SEC("xdp") int is_empty(struct xdp_md *ctx)
{
    int key = 1;

    return !bpf_map_lookup_elem(&own, &key) && bpf_map_lookup_elem(&counts, &key);
}
"""


def test_what_is_declared_before_it_is_defined(bpf, sources):
    main, library = sources
    library.write_text(HEAD + BEFORE + LIBRARY)
    using = MAIN.replace("extern int limit", 'extern int wanted SEC(".data.more")').replace("limit", "wanted")
    main.write_text(HEAD + using + OWN)
    with pytest.warns(PortabilityWarning, match="'(counts|wanted)' is declared before it is defined") as told:
        obj = bpf.load(sources, defines={"STEP": 2})
    assert len(told) == 2
    assert [obj.programs.count.run(bytes(64)).retval for _ in range(2)] == [2, 1]
    assert (obj.programs.is_empty.run(bytes(64)).retval, obj.maps.counts[1]) == (1, 4)
    assert (obj.globals.before, obj.globals.wanted) == (7, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # after the remedy
        assert bpf.load(sources[::-1], defines={"STEP": 2}).globals.wanted == 3


CALLS = """
struct task_struct *bpf_task_from_pid(int pid) __ksym;
void bpf_task_release(struct task_struct *task) __ksym;

SEC("syscall") int NAME(void *ctx)
{
    struct task_struct *task = bpf_task_from_pid(1);
    if (task)
        bpf_task_release(task);
    return 0;
}
"""


def test_a_kernel_function_that_both_call(bpf, tmp_path):
    both = [tmp_path / f"{name}.bpf.c" for name in ("one", "two")]
    for each in both:
        each.write_text(HEAD + CALLS.replace("NAME", each.name[:3]))
    if version() >= (1, 5):
        assert {"one", "two"} <= {s.name for s in Elf(bpf.compile(both).read_bytes()).symbols()}
        return
    with pytest.raises(
        CompileError, match=r"both call the kernel's function bpf_task_\w+, and libbpf"
    ) as error:
        bpf.compile(both)
    assert "-> call bpf_task_" in str(error.value)
    both[1].write_text(HEAD + 'SEC("syscall") int two(void *ctx) { return 0; }\n')  # the remedy
    assert {"one", "two"} <= {s.name for s in Elf(bpf.compile(both).read_bytes()).symbols()}


def test_an_object_that_libbpf_cannot_open_has_the_names_of_its_parts(bpf, sources):
    main, _ = sources
    other = main.with_name("other.bpf.c")
    other.write_text(HEAD + 'SEC("xdp") int second(struct xdp_md *ctx) { return XDP_PASS; }\n')
    with pytest.raises(LoadError, match=r"cannot open main\.bpf\.o \+ other\.bpf\.o: "):
        bpf.load([main, other], defines={"STEP": 1})


def test_a_map_that_nobody_defines_is_refused(bpf):
    declared = MAIN[: MAIN.index("extern int")]
    use = (
        'SEC("xdp") int prog(struct xdp_md *ctx) { __u32 k = 0; return !!bpf_map_lookup_elem(&counts, &k); }'
    )
    with pytest.raises(
        LoadError, match=r"a map is declared extern(.|\n)*-> link it with the source that does"
    ):
        bpf.load(code=HEAD + declared + use)


def test_what_nobody_defines_is_refused(bpf, sources):
    with pytest.raises(LoadError, match=r"limit|add|counts"):
        bpf.load(sources[:1])
