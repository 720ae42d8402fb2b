"""Tests arenas, memory that is shared with programs."""

import mmap

import pytest

from pytest_bpfmaps import ClosedError, MapError, MapValueError, NameLookupError, VerifierError

PAGE = mmap.PAGESIZE
CODE = """
#ifndef __BPF_FEATURE_ADDR_SPACE_CAST
#error "arenas need clang 19 or later: its address spaces become the instructions that make pointers valid"
#endif
#define __arena __attribute__((address_space(1)))

struct {
    __uint(type, 33);          // BPF_MAP_TYPE_ARENA, younger than some <linux/bpf.h>
    __uint(map_flags, 1 << 10); // BPF_F_MMAPABLE
    __uint(max_entries, 4);    // pages
} arena SEC(".maps");

struct node { struct node __arena *next; __u64 value; };
struct node unused; // so that its type is known

void __arena *bpf_arena_alloc_pages(void *map, void __arena *at, __u32 pages, int node, __u64 flags) __ksym;

struct node __arena *first;
__u64 sum;

SEC("syscall")
int build(void *ctx)
{
    struct node __arena *nodes = bpf_arena_alloc_pages(&arena, 0, 1, -1, 0);
    if (!nodes)
        return 1;
    for (int i = 0; i < 3; i++) {
        nodes[i].value = 10 * (i + 1);
        nodes[i].next = i < 2 ? &nodes[i + 1] : 0;
    }
    first = nodes;
    return 0;
}

SEC("syscall")
int add(void *ctx)
{
    struct node __arena *at = first;
    asm volatile("" ::"r"(&arena)); // a program has the arena that it names
    sum = 0;
    for (int i = 0; i < 10 && at; i++) {
        sum += at->value;
        at = at->next;
    }
    return 0;
}
"""

REJECTED = """
struct {
    __uint(type, 33);
    __uint(map_flags, 1 << 10);
    __uint(max_entries, 4);
} arena SEC(".maps");
SEC("syscall") int reads_anywhere(__u64 *ctx)
{
    asm volatile("" ::"r"(&arena));
    return *(int *)ctx[0];
}
"""

pytestmark = pytest.mark.bpf_requires(kfunc="bpf_arena_alloc_pages")
needs_clang = pytest.mark.bpf_requires(clang="__BPF_FEATURE_ADDR_SPACE_CAST")


def test_memory_without_a_program(bpf):
    m = bpf.create_map("arena", max_entries=4)
    assert len(m.memory) == 4 * PAGE
    m.memory[5000:5003] = b"abc"
    assert bytes(m.memory[4999:5004]) == b"\0abc\0"
    assert m.address % PAGE == 0
    assert bytes(m.view(m.address + 5000, 3)) == b"abc"


def test_an_arena_without_types(bpf):
    m = bpf.create_map("arena", max_entries=1)
    with pytest.raises(NameLookupError, match=r"'node' for map 'arena' .*: there are no types for it"):
        m.read(m.address, "node")


def test_two_maps_of_one_arena_share_the_memory(bpf):
    m = bpf.create_map("arena", max_entries=1)
    m.memory[0] = 7
    again = bpf.map_by_id(m.id)
    assert again.memory[0] == 7
    assert again.address == m.address
    m.close()
    again.memory[1] = 8
    with pytest.raises(ClosedError):
        m.memory  # noqa: B018


def test_memory_is_unmapped_when_nobody_looks_at_it(bpf):
    m = bpf.create_map("arena", max_entries=1)
    view, address = m.memory, m.address
    m.close()
    with pytest.raises(ValueError, match="released"):
        view[0]
    with open("/proc/self/maps") as file:
        assert not any(line.startswith(f"{address:x}-") for line in file)


def test_an_arena_at_a_chosen_address(bpf):
    m = bpf.create_map("arena", max_entries=1, extra=1 << 44)
    assert m.address == 1 << 44
    assert m.memory[0] == 0


@needs_clang
def test_a_list_that_a_program_built(load_code):
    obj = load_code(CODE)
    arena = obj.maps.arena
    assert obj.programs.build.run().retval == 0
    values, pointer = [], obj.globals.first
    while pointer:
        node = arena.read(pointer, "node")
        values.append(node.value)
        pointer = node.next
    assert values == [10, 20, 30]
    assert obj.globals.first == arena.address


@needs_clang
def test_a_program_sees_what_the_test_writes(load_code):
    obj = load_code(CODE)
    obj.programs.build.run()
    obj.maps.arena.memory[8:16] = (100).to_bytes(8, "little")
    obj.programs.add.run()
    assert obj.globals.sum == 150


@needs_clang
def test_an_arena_from_python_serves_an_object(load_code, bpf):
    arena = bpf.create_map("arena", max_entries=4)
    obj = load_code(CODE, reuse={"arena": arena})
    obj.programs.build.run()
    assert bytes(arena.view(obj.globals.first + 8, 8)) == (10).to_bytes(8, "little")
    assert obj.maps.arena.read(obj.globals.first, "node").value == 10


def test_pointers_outside(bpf):
    m = bpf.create_map("arena", max_entries=1)
    with pytest.raises(MapValueError, match=r"(?s)the pointer is NULL.*give a pointer from 0x"):
        m.view(0, 8)
    for pointer in (m.address - 1, m.address + PAGE - 7, 1):
        with pytest.raises(MapValueError, match="does not point into it"):
            m.view(pointer, 8)


def test_it_has_no_elements(bpf):
    m = bpf.create_map("arena", max_entries=1)
    with pytest.raises(MapError):
        m.get_next_key()
    with pytest.raises(TypeError):
        m[0]


@pytest.mark.parametrize("extra", [0, 1 << 44])
def test_a_rejected_program_is_explained_with_its_arena(load_code, extra):
    with pytest.raises(VerifierError, match=r"invalid mem access 'scalar'") as rejected:
        load_code(REJECTED, maps={"arena": {"map_extra": extra}})
    assert "r0 = *(u32 *)(r1 +0)" in rejected.value.log
    assert "user address must be set" not in rejected.value.log
