"""Gets the full log of a rejected program: opens the object again, and loads only that program."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach.module_functions import load_object
from pytest_bpfmaps.kernel.release import is_emulated
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, to_str
from pytest_bpfmaps.libbpf.calls import walk
from pytest_bpfmaps.maps import MapType
from pytest_bpfmaps.maps.families.arena import arenas_of
from pytest_bpfmaps.objects.attempt import Attempt
from pytest_bpfmaps.verifier import advise, parse_log
from pytest_bpfmaps.verifier.log_buffers import LEVEL_INSTRUCTIONS, WHOLE_SIZES, LogBuffer

_OF_MAPS = (
    *("type", "key_size", "value_size", "max_entries", "map_flags", "map_extra", "numa_node", "ifindex"),
    "autocreate",
)
_OF_PROGRAMS = ("type", "expected_attach_type", "flags")


def log_of_rejected(attempt: Attempt, name: str, first: str) -> str:
    """Returns the best available log of the program `name`; `first` is the log of the load itself.

    That is the whole log if it fits into the buffer. Of a longer log, kernels from 6.4 on keep the end. Older
    kernels keep the beginning, which does not help, because the complaint is at the end.
    """
    complaint = parse_log(first).complaint
    advice = advise("\n".join(complaint))
    gave_up = advice is not None and advice.why.startswith("the verifier gave up")
    if gave_up and is_emulated():
        return first  # a log of a million instructions takes minutes there, and explains little
    for size in WHOLE_SIZES[:1] if gave_up else WHOLE_SIZES:
        number, text = _load_again(attempt, name, size)
        if number != errno.ENOSPC and text:
            return text
        if complaint and complaint[-1] in text[-len(first) - 1024 :]:
            return text
    return first


def log_of_accepted(attempt: Attempt, name: str) -> str:
    """Returns the log of the program `name`, which the verifier accepts."""
    return _load_again(attempt, name, WHOLE_SIZES[0])[1]


def _load_again(attempt: Attempt, name: str, size: int) -> tuple[int, str]:
    """Loads only that program, from an object opened anew; returns the error number and the log.

    A libbpf object can't be loaded twice.
    """
    with attempt.open_again() as handle, capture_log():
        _copy_maps(attempt.handle, handle)
        program = _copy_programs(attempt.handle, handle, name)
        # libbpf has no function that returns the interface
        lib.bpf_program__set_ifindex(program, attempt.programs[name].ifindex)
        buffer = LogBuffer(program, LEVEL_INSTRUCTIONS, size)
        arenas = [each for each in _maps(handle) if lib.bpf_map__type(each) == MapType.ARENA]
        for arena in arenas:
            lib.bpf_map__set_map_extra(arena, 0)  # the arena of the first load is still at that address
        with arenas_of(arenas):
            return -load_object(handle), buffer.text


def _copy_maps(old: Any, new: Any) -> None:
    """Copies all settings and initial values of maps; the new maps are not pinned."""
    for mine, theirs in zip(_maps(old), _maps(new), strict=True):
        lib.bpf_map__set_pin_path(theirs, ffi.NULL)
        if lib.bpf_map__is_internal(mine):
            size = ffi.new("size_t *")
            values = lib.bpf_map__initial_value(mine, size)
            if values != ffi.NULL:
                lib.bpf_map__set_initial_value(theirs, values, size[0])
        else:
            for name in _OF_MAPS:
                getattr(lib, f"bpf_map__set_{name}")(theirs, getattr(lib, f"bpf_map__{name}")(mine))


def _copy_programs(old: Any, new: Any, name: str) -> Any:
    """Copies all settings of programs; returns the program `name`, the only one that will be loaded."""
    found = None
    for mine, theirs in zip(_programs(old), _programs(new), strict=True):
        for setting in _OF_PROGRAMS:
            value = getattr(lib, f"bpf_program__{setting}")(mine)
            getattr(lib, f"bpf_program__set_{setting}")(theirs, value)
        wanted = to_str(lib.bpf_program__name(theirs)) == name
        lib.bpf_program__set_autoload(theirs, wanted)
        found = theirs if wanted else found
    return found


def _maps(handle: Any) -> list[Any]:
    return walk(lib.bpf_object__next_map, handle)


def _programs(handle: Any) -> list[Any]:
    return walk(lib.bpf_object__next_program, handle)
