"""Finds tracepoints that share a name: two modules can have one each, or a module and the kernel itself.

i915 and xe have such tracepoints, because both contain Intel's display driver.
"""

from __future__ import annotations

from functools import cache

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.attach_names import functions
from pytest_bpfmaps.kernel.symbol_changes import loaded_modules
from pytest_bpfmaps.kernel.tracefs import tracefs

_CALLER = "__traceiter_"  # begins the name of the function that calls the programs of a tracepoint, from 5.10


def explain_shared_tracepoint(name: str) -> Explanation | None:
    """Explains that a raw tracepoint program goes to a name that several tracepoints have; else None.

    The kernel looks for raw tracepoints by name only, also for ``tp_btf``. It takes its own tracepoint, else
    that of the module that was loaded last. A tracepoint program names the category of its event, too.
    """
    return _explain(name, loaded_modules())


@cache
def _explain(name: str, _modules: object) -> Explanation | None:
    root = tracefs()
    found = root.glob(f"events/*/{name}") if root and name.isidentifier() else ()
    events = sorted(path.parent.name for path in found)
    if len(events) == 1:  # looking into the kernel's symbols takes much longer
        return None
    owners = functions().owners(f"{_CALLER}{name}")
    if len(owners) < 2:
        return None
    why = f"{len(owners)} tracepoints of this kernel have the name {name!r}: of {' and of '.join(owners)}"
    ways = " or ".join(f'SEC("tp/{category}/{name}")' for category in events or ["CATEGORY"])
    return Explanation(
        f"{why}. The kernel finds raw tracepoints by their names only",
        f"say whose it is by the category of its event: {ways}",
    )
