"""Finds a struct that a test names in all types of an agent's programs and maps.

cilium/ebpf 0.22 gives the kernel, with each program and each map, only the types that these refer to. So the
struct of a buffer's records may be in the BTF of another map, such as ``.bss``. Version 0.11 gives less: then
the struct is only in the object that the agent's binary has inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import AmbiguousNameError, NameLookupError, closest
from pytest_bpfmaps.loaders.embedded_objects import types_in
from pytest_bpfmaps.maps.foreign_types import codecs_of_loaded


def with_all_structs(
    own: Codecs, on: str, btf_ids: Callable[[], Iterable[int]], binaries: Callable[[], Iterable[Path]]
) -> Codecs:
    """Returns the codecs `own`; a struct that they lack is looked for in other types of the agent.

    These are the BTF that the kernel has of it, then that of the objects in its binaries. `btf_ids` and
    `binaries` return what there is at that time. `on` is the agent's name in messages.
    """

    def find(name: str) -> StructCodec | None:
        bare = name.removeprefix("struct ").removeprefix("union ")
        if (known := own.find_struct(bare)) is not None:
            return known
        loaded = _others(btf_ids())
        found = _find_in(loaded, bare, on) or _find_in(inside := types_in(binaries()), bare, on)
        if found is None:
            raise _no_struct(bare, on, [own, *loaded, *inside])
        return found

    return own.preferring(find)


def _others(btf_ids: Iterable[int]) -> list[Codecs]:
    found = (codecs_of_loaded(each) for each in dict.fromkeys(btf_ids) if each)
    return [codecs for codecs in found if codecs is not None]


def _find_in(others: list[Codecs], name: str, on: str) -> StructCodec | None:
    found = [codec for each in others if (codec := each.find_struct(name)) is not None]
    different = {codec.layout: codec for codec in found}
    if len(different) > 1:
        shown = (f"{codec.size} bytes: {{{', '.join(codec.by_name)}}}" for codec in different.values())
        listed = "; ".join(sorted(shown))  # the kernel lists the agent's objects in any order
        raise AmbiguousNameError(
            f"several structs are called {name!r}",
            on=f"in the types of {on}",
            why=f"its objects have different ones: {listed}",
            fix="give them different names in C",
        )
    return found[0] if found else None


def _no_struct(name: str, on: str, codecs: list[Codecs]) -> NameLookupError:
    return NameLookupError(
        f"no struct {name!r}",
        on=f"in the types of {on}",
        why="a loader gives the kernel only types that a map, a function or a global variable refers to, and "
        "its binary has no object with it inside",
        fix=f"write in C: struct {name} *keeps_the_type; {closest(name, _names(codecs))}",
    )


def _names(all_codecs: list[Codecs]) -> set[str]:
    return {name for codecs in all_codecs for name in codecs.struct_names()}
