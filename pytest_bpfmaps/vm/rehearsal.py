"""What a pytest worker does before its first test, done ahead.

On the host, to see which files that takes; in a guest, to have it behind when its state is saved. A script by
itself when the host runs it: it prints the files as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import platform
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

# beyond what the pytest session below imports: what tests and failures need, and what the worker's side of
# pytest-xdist is made of
MODULES = (
    *("execnet", "execnet.gateway_base", "xdist", "xdist.plugin", "xdist.remote", "xdist.looponfail"),
    *("pytest_bpfmaps.harness", "pytest_bpfmaps.objects", "pytest_bpfmaps.events", "pytest_bpfmaps.maps"),
    *("pytest_bpfmaps.kernel.features", "pytest_bpfmaps.kernel.handle", "pytest_bpfmaps.plugin"),
    *("pytest_bpfmaps.fixtures", "pytest_bpfmaps.report.failures", "pytest_bpfmaps.vm.rpc"),
    *("pytest_bpfmaps.vm.guest", "pytest_bpfmaps.vm.zygote", "pytest_bpfmaps.vm.remembered"),
    *("pytest_bpfmaps.vm.alarm", "pytest_bpfmaps.kernel.log", "pytest_bpfmaps.kernel.splats"),
    *("pytest_bpfmaps.compiler.request", "pytest_bpfmaps.triggers", "pytest_bpfmaps.run"),
    *("subprocess", "threading", "socket", "select", "mmap", "struct", "ctypes", "difflib", "pprint", "pdb"),
    *("ipaddress", "shutil", "signal", "selectors", "unittest.mock", "logging.handlers", "random"),
    *("statistics", "tomllib", "packaging.version", "multiprocessing", "asyncio", "encodings.idna"),
)
OPTIONAL = (
    *("pyroute2", "pyroute2.iproute.linux", "pyroute2.netns", "scapy.layers.inet"),
    *("pytest_bpfmaps.triggers.netns", "pytest_bpfmaps.report.assertions"),
)

_NO_FILES = ("/proc/", "/sys/", "/dev/", "/run/")
METADATA = ("METADATA", "PKG-INFO", "RECORD", "direct_url.json", "entry_points.txt", "top_level.txt")

SESSION = {
    "pyproject.toml": """
[tool.pytest]
minversion = "9.0"
strict = true
addopts = ["-ra"]
testpaths = ["."]
filterwarnings = ["error"]
""",
    "conftest.py": """
import pytest

pytest_plugins = ["pytester"]

@pytest.fixture
def number():
    assert pytest
    return 1
""",
    "test_rehearsal.py": """
import pytest

pytestmark = pytest.mark.bpf_requires("no such feature")

@pytest.mark.parametrize("n", [1])
def test_passes(number, n, tmp_path, monkeypatch, capsys, request):
    assert number == n

@pytest.mark.skip(reason="none")
def test_is_skipped():
    pass

def test_fails():
    assert {"a": 1} == {"a": 2}
""",
}


def rehearse() -> None:
    """Imports everything, runs a small pytest session in this process, and remembers what pytest looks up."""
    for name in MODULES:
        importlib.import_module(name)
    for name in OPTIONAL:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    from pytest_bpfmaps.libbpf import version

    with contextlib.suppress(Exception):
        version()  # opens libbpf
    _say_too_late()
    _run_session()
    platform.platform(), platform.processor()  # starts processes; the answers are kept
    from pytest_bpfmaps.vm import remembered

    remembered.remember_packages()
    remembered.remember_worker()
    _say_too_late()


def _run_session() -> None:
    import pytest

    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in SESSION.items():
            Path(folder, name).write_text(text)
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pytest.main(["-q", "--rootdir", folder])
        os.chdir(here)
    for name in ("conftest", "test_rehearsal"):
        sys.modules.pop(name, None)


def _say_too_late() -> None:
    """pytest would warn that these modules were imported before it could rewrite their assertions."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in sys.stdlib_module_names:
            with contextlib.suppress(Exception):
                module.__doc__ = f"{module.__doc__ or ''}\nPYTEST_DONT_REWRITE"


def files(read: Iterable[str] = ()) -> set[str]:
    """The files that this process was made of, and of those that it `read` the ones that stay."""
    read = {path for path in read if path.startswith("/") and not path.startswith(_NO_FILES)}
    found = {sys.executable, *_modules(), *_mapped(), *_site(), *_loader(), *filter(os.path.isfile, read)}
    return {os.path.abspath(path) for path in found if os.path.exists(path)}


def note_reads(read: set[str]) -> None:
    """Has `read` get the name of each file that is opened to be read: a plugin's data, say."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and not arguments[2] & os.O_ACCMODE:
            read.add(arguments[0])

    sys.addaudithook(note)


def _modules() -> set[str]:
    found: set[str] = set()
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        paths = [getattr(module, "__file__", None)]
        for one in (spec, _replaced(name, spec)):
            paths += [getattr(one, "origin", None), getattr(one, "cached", None)]
        found |= {path for path in paths if isinstance(path, str) and path.startswith("/")}
    return found


def _replaced(name: str, spec: ModuleSpec | None) -> ModuleSpec | None:
    """A module that put another in its place, collections.abc since Python 3.13: its own spec."""
    folders = getattr(sys.modules.get(name.rpartition(".")[0]), "__path__", None)
    if spec is None or spec.name == name or folders is None:
        return None
    return PathFinder.find_spec(name, folders)


def _mapped() -> set[str]:
    """Executables and libraries, with every name in their folder that leads to them."""
    found: set[str] = set()
    with open("/proc/self/maps") as file:
        mapped = {line.split(maxsplit=5)[5].strip() for line in file if len(line.split(maxsplit=5)) > 5}
    for path in mapped:
        if path.startswith("/") and os.path.isfile(path):
            found.add(path)
            folder, stem = os.path.dirname(path), os.path.basename(path).split(".so")[0]
            for name in os.listdir(folder):
                other = os.path.join(folder, name)
                if name.startswith(stem) and os.path.islink(other) and os.path.realpath(other) == path:
                    found.add(other)
    return found


def _site() -> set[str]:
    """What Python looks at while it starts, and the packages' entry points."""
    found = {os.path.join(p, "pyvenv.cfg") for p in (sys.prefix, os.path.dirname(sys.executable))}
    found.add("/etc/ld.so.cache")
    for folder in {*sys.path, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        if os.path.exists(folder):
            found.add(folder)  # or a zip archive
        if os.path.isdir(folder):
            for name in os.listdir(folder):
                if name.endswith(".pth"):
                    found.add(os.path.join(folder, name))
                elif name.endswith((".dist-info", ".egg-info")):
                    found.add(os.path.join(folder, name))  # metadata by itself, where it is no folder
                    found |= {os.path.join(folder, name, part) for part in METADATA}
    return found


def _loader() -> set[str]:
    """The dynamic loader under the name that this interpreter gives it."""
    from pytest_bpfmaps.vm.elf import open_elf

    with open_elf(Path("/proc/self/exe")) as program:
        return {program.loader()} - {""}


if __name__ == "__main__":
    opened: set[str] = set()
    note_reads(opened)
    rehearse()
    json.dump(sorted(files(opened)), sys.stdout)
