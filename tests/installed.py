"""Finds programs that tests compare with, also in folders that are not in every user's PATH."""

from __future__ import annotations

import os
import shutil

import pytest

_MORE = ":/usr/local/sbin:/usr/sbin:/sbin"


def installed(name: str, package: str = "", *others: str) -> str:
    """Returns the path of a program, which may have other names in other releases.

    Skips the test, and names the package, where the program is missing.
    """
    path = os.environ.get("PATH", os.defpath) + _MORE
    for each in (name, *others):
        found = shutil.which(each, path=path)
        if found is not None:
            return found
    pytest.skip(f"{name} is missing: apt-get install {package or name}")
