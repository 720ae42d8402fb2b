"""Follow the pointers of a linked list that a program built in an arena."""

import pytest

pytestmark = pytest.mark.bpf_requires(
    "syscall", kfunc="bpf_arena_alloc_pages", clang="__BPF_FEATURE_ADDR_SPACE_CAST"
)


def test_the_list_is_read_in_place(bpf):
    obj = bpf.load("shared_list.bpf.c")
    assert obj.programs.build.run().retval == 0

    values, pointer = [], obj.globals.first
    while pointer:
        node = obj.maps.arena.read(pointer, "node")
        values.append(node.value)
        pointer = node.next
    assert values == [1, 4, 9]
