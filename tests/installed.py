"""Finds programs that tests compare with, also in folders that are not in every user's PATH."""

from __future__ import annotations

import os
import shutil

import pytest

_MORE = ":/usr/local/sbin:/usr/sbin:/sbin"


def installed(name: str, package: str = "") -> str:
    """Returns the path of a program. Skips the test, and names the package, where the program is missing."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + _MORE)
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install {package or name}")
    return found
