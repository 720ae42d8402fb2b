"""Fields in map values that the kernel keeps for itself: locks, timers, lists, kptrs."""

from __future__ import annotations

from pytest_bpfmaps.btf.types import Btf, Kind

# the kernel hides these from user space and keeps them when a value is written
KERNEL_FIELDS = frozenset(
    f"bpf_{name}"
    for name in (
        *("spin_lock", "res_spin_lock", "timer", "wq", "task_work", "refcount"),
        *("list_head", "list_node", "rb_root", "rb_node"),
    )
)
_KPTR_TAGS = frozenset({"kptr", "kptr_untrusted", "percpu_kptr", "uptr"})

LOCKS = frozenset(("bpf_spin_lock", "bpf_res_spin_lock"))
"""The kernel's fields that hold no data."""


def kernel_fields(btf: Btf, type_id: int) -> set[str]:
    """Returns the names of the kernel's types at any depth of a type; ``kptr`` for a pointer."""
    target = btf.resolve(type_id)
    match target.kind:
        case Kind.STRUCT if target.name in KERNEL_FIELDS:
            return {target.name}
        case Kind.STRUCT | Kind.UNION:
            return set().union(*(kernel_fields(btf, m.type_id) for m in target.members()))
        case Kind.ARRAY:
            return kernel_fields(btf, target.array()[0])
        case Kind.PTR:
            pointed = target.target
            while pointed.kind is Kind.TYPE_TAG:
                if pointed.name in _KPTR_TAGS:
                    return {"kptr"}
                pointed = pointed.target
    return set()


def is_kernel_field(btf: Btf, type_id: int) -> bool:
    """Returns whether a whole value of that type belongs to the kernel: a lock or an array of kptrs,
    for example.
    """
    target = btf.resolve(type_id)
    while target.kind is Kind.ARRAY:
        target = btf.resolve(target.array()[0])
    if target.kind is Kind.PTR:
        return bool(kernel_fields(btf, target.id))
    return target.kind is Kind.STRUCT and target.name in KERNEL_FIELDS
