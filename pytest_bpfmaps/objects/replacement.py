"""Replaces a loaded object by one that counts which of its code runs.

The plain object is loaded first: the test sees the verifier's verdict on that one. Then the other object is
loaded with the same settings. If the kernel refuses it, the plain object stays.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.libbpf import ffi
from pytest_bpfmaps.maps import MapType
from pytest_bpfmaps.objects.collection import items_of
from pytest_bpfmaps.objects.loaded import LoadedObject
from pytest_bpfmaps.objects.opened import OpenedObject


def replaced(opened: OpenedObject, loaded: LoadedObject, path: Path) -> tuple[LoadedObject, BpfError | None]:
    """Loads the object at `path` in place of `loaded`, with the same settings.

    `opened` is the object that became `loaded`. Returns the object that is in the kernel now. If the other
    object is refused, that is `loaded` or a new object like it, and the error says why. Raises `BpfError` if
    the other object can't be opened, or refuses a setting; then `loaded` stays as it is.
    """
    stats = {program.name: program.verifier for program in loaded.programs}
    with ExitStack() as stack:
        other = stack.enter_context(opened.opened_alike(path))
        # only one arena can be mapped at an address, so the objects are loaded one after the other
        alone = any(spec.type == MapType.ARENA for spec in opened.maps)
        again = stack.enter_context(opened.opened_alike(opened.path)) if alone else None
        if again is not None:
            loaded.close()
        refusal = None
        try:
            used, made = other, other.load()
        except BpfError as e:
            if again is None:
                return loaded, e
            used, made, refusal = again, again.load(), e
        for program in made.programs:
            program.verified_as(stats[program.name], partial(opened.walked, program.name))
        _hand_over(opened, used)
        loaded.close()
    return made, refusal


def _hand_over(opened: OpenedObject, used: OpenedObject) -> None:
    """Makes the opened object's parts, which a test may hold, refer to the object that is loaded."""
    maps, programs = items_of(used.maps), items_of(used.programs)
    for name, spec in items_of(opened.maps).items():
        spec.handle = maps[name].handle if name in maps else ffi.NULL
    for program in opened.programs:
        program.handle = programs[program.name].handle
