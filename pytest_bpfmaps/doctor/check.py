"""One row of the doctor's table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pytest_bpfmaps.errors import BpfError


class CheckState(StrEnum):
    """How well it works. `LIMITED`: some things do not work. `MISSING`: nothing of this area works."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at (`area`, `name`), its `state`, what was `found`, and the `remedy`."""

    area: str
    name: str
    state: CheckState
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, without an empty remedy."""
        return {k: str(v) for k, v in asdict(self).items() if v}


def ask(
    area: str, name: str, look: Callable[[], str], *, lack: CheckState = CheckState.MISSING
) -> Iterator[Check]:
    """Gives one check. `look` returns what was found, or raises an error, which says what is missing."""
    try:
        yield Check(area, name, CheckState.OK, look())
    except BpfError as e:
        yield Check(area, name, lack, e.why or str(e), e.fix or "")
    except OSError as e:
        yield Check(area, name, lack, str(e))
