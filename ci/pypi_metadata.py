"""Makes what PyPI shows: the README with links that work there, and the project's addresses.

pyproject.toml has the address of the repository, as `repository` of this hook. While it is empty, PyPI shows
the texts of links to files, and no addresses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_TO_A_FILE = re.compile(r"\[([^\]]+)\]\((?![a-z]+:|#)([^)\s]+)\)")


def readme(text: str, repository: str, version: str) -> str:
    """Returns the README for PyPI, which has no files: its links lead into the repository, or are none."""
    if not repository:
        return _TO_A_FILE.sub(r"\1", text)
    return _TO_A_FILE.sub(rf"[\1]({repository}/blob/v{version}/\2)", text)


def addresses(repository: str, version: str) -> dict[str, str]:
    """Returns the project's addresses."""
    return {
        "Source": repository,
        "Documentation": f"{repository}/blob/v{version}/docs/index.md",
        "Changelog": f"{repository}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


class PypiMetadata(MetadataHookInterface):
    """Called by hatchling for each build."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the README, and the addresses if there is a repository. Raises ValueError for a bad one."""
        repository: str = self.config.get("repository", "")
        if repository and not re.fullmatch(r"https://[^/\s]+(/[^/\s]+)+", repository):
            raise ValueError(
                f"cannot use repository = {repository!r} of pyproject.toml: it is no https:// address, or "
                "has a slash at its end\n  -> such as https://github.com/OWNER/pytest-bpfmaps"
            )
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        shown = readme(text, repository, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": shown}
        if repository:
            metadata["urls"] = addresses(repository, metadata["version"])
