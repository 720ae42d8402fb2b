"""A package that a kernel is made of, as ``kernel.json`` and ``kernels.lock`` list it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, order=True, slots=True)
class Package:
    """A package of a distribution, a package file, or a container image.

    `version` is empty for a file, because files have no version that one could rely on. `sha256` is the
    SHA-256 of the file, or of the image's manifest, in hexadecimal.
    """

    name: str
    sha256: str
    version: str = ""

    @classmethod
    def from_json(cls, facts: Any) -> Package:
        """Returns the package that `to_json` has written.

        Raises ValueError for other content, KeyError where a field is missing.
        """
        if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
            raise ValueError(f"{facts!r:.200} is no package")
        fields = {field: facts[field] for field in ("name", "sha256", "version")}
        if len(facts) > len(fields):
            raise ValueError(f"{facts!r:.200} has fields that no package has")
        return cls(**fields)

    def to_json(self) -> dict[str, str]:
        """Returns the fields as JSON values."""
        return {"name": self.name, "sha256": self.sha256, "version": self.version}
