"""Tests that a guest has its kernel's modules, and the host's links to the headers of that kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# what the first process of a guest does, in a mount namespace and a root folder of its own
GUEST = """
import json, os, sys
from pytest_bpfmaps.libbpf import lib
from pytest_bpfmaps.vm.guest import init

lib.unshare(0x00020000)  # CLONE_NEWNS
init.mount("none", "/", flags=1 << 18 | 1 << 14)  # MS_PRIVATE | MS_REC
os.chroot(sys.argv[1])
init.mount_modules("6.9", sys.argv[2])
print(json.dumps([os.listdir("/lib/modules/6.9"), os.path.exists("/lib/modules/6.9/build/bpf.h")]))
"""


@pytest.mark.parametrize("cache", ["cache", "ca,c\\he:x"])  # overlayfs has a meaning for each of these
@pytest.mark.parametrize("has_headers", [True, False])
def test_modules_and_headers(tmp_path, cache, has_headers):
    stored = tmp_path / cache / "lib/modules/6.9"
    stored.mkdir(parents=True)
    (stored / "modules.dep").write_text("")
    folder = tmp_path / "lib/modules/6.9"
    if has_headers:  # as Debian's packages linux-headers-… have them
        headers = tmp_path / "usr/src/linux-headers-6.9"
        headers.mkdir(parents=True)
        (headers / "bpf.h").write_text("")
        folder.mkdir(parents=True)
        for name in ("build", "source"):
            (folder / name).symlink_to("/usr/src/linux-headers-6.9")
    command = [sys.executable, "-c", GUEST, tmp_path, f"/{cache}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names, is_readable = json.loads(done.stdout)
    links = ["build", "source"] if has_headers else []
    assert sorted(names) == sorted([*links, "modules.dep"])
    assert is_readable == has_headers
    assert os.listdir(stored) == ["modules.dep"]
