"""What workers and this process counted, and what earlier runs did."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cache.stored_files import digest
from pytest_bpfmaps.coverage.data import Coverage, Measured, add_counts
from pytest_bpfmaps.coverage.engines import Record, engine

_OTHER_FILE = "-> name another file: BPF_COVERAGE_FILE=FILE"


class Collected:
    """Gathers the plain values of `Recording.take`. `tell` gets sentences about what can't be used."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._records: list[Record] = []
        self._total = Coverage()

    def take(self, found: Mapping[str, Any] | None) -> None:
        """Adds what a process counted. A guest's values may be wrong: then `tell` gets a sentence."""
        if not found:
            return
        try:
            kernel = str(found["kernel"])
            programs = {Measured(*map(str, parts)): int(loads) for *parts, loads in found["programs"]}
            self._records += [Record(**record) for record in found["records"]]
        except (KeyError, TypeError, ValueError) as e:
            self._tell(f"what a worker counted is lost: it is not as expected ({type(e).__name__}: {e})")
            return
        add_counts(self._total.kernel(kernel).programs, programs)

    def coverage(self, file: Path, *, append: bool) -> Coverage:
        """Returns all counts by line, and writes them to `file`. `append` first adds what `file` has."""
        for name in sorted({record.engine for record in self._records}):
            mine = [record for record in self._records if record.engine == name]
            engine(name).resolve(mine, self._total, self._tell)
        self._records.clear()
        if append:
            self._total.add(self._earlier(file))
        self._keep(file)
        return self._total

    def _earlier(self, file: Path) -> Coverage:
        """Returns what earlier runs counted, without files that have changed since."""
        try:
            found = Coverage.from_plain(json.loads(file.read_text(errors="surrogateescape")))
        except FileNotFoundError:
            return Coverage()
        except OSError as e:
            self._tell(f"cannot add to the coverage in {file}: {e.strerror}\n  {_OTHER_FILE}")
            return Coverage()
        except (ValueError, LookupError, TypeError, AttributeError) as e:
            self._tell(f"cannot add to the coverage in {file}: {e}\n  -> remove it, and run all tests again")
            return Coverage()
        for path in found.paths():
            if why := self._what_changed(path, found):
                self._tell(f"{path} {why}: what earlier runs counted of it is left out")
                for kernel in found.kernels.values():
                    kernel.files.pop(path, None)
                    for lines in kernel.contexts.values():
                        lines.pop(path, None)
        return found

    def _what_changed(self, path: str, found: Coverage) -> str:
        """Returns what happened to a source since earlier runs; empty if it is as it was."""
        then = set(found.merged(path).sources)
        now = set(self._total.merged(path).sources)
        if not now:
            try:
                now = {digest(Path(path).read_bytes())}
            except OSError as e:
                return f"can't be read ({e.strerror})"
        return "has changed" if then and then != now else ""

    def _keep(self, file: Path) -> None:
        text = json.dumps(self._total.to_plain(), separators=(",", ":"))
        made = file.with_name(f"{file.name}.{os.getpid()}")
        if file.exists() and not file.is_file():  # /dev/null must stay what it is
            self._tell(f"cannot keep the coverage of this run in {file}: it is no file")
            return
        try:
            made.write_text(text, errors="surrogateescape")
            made.replace(file)
        except OSError as e:
            self._tell(f"cannot keep the coverage of this run in {file}: {e.strerror}\n  {_OTHER_FILE}")
            with suppress(OSError):
                made.unlink()
