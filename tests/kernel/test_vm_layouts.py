"""Tests warm guests with the layouts of several Pythons, made from the Python and the packages of this run.

Each test boots a guest. So only two run by default, which differ most from a virtual environment.
``BPFMAPS_LAYOUTS=all`` (or names) runs more. "uv" needs the command uv, and a package index that it can
reach.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from caches import use_new_cache
from packaging.requirements import Requirement

import pytest_bpfmaps

SUITE = """
    import json, os, sys

    SOURCE = '''
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    int calls;
    SEC("raw_tp/sys_enter") int on_call(void *ctx) { calls++; return 0; }
    char LICENSE[] SEC("license") = "GPL";
    '''

    def test_counts(bpf):
        counter = bpf.load(code=SOURCE)
        with counter.attach():
            os.getpriority(os.PRIO_PROCESS, 0)
        assert counter.globals.calls > 0

    def test_is_this_python(bpf):
        assert os.uname().release.startswith("6.1.0-")
        assert [sys.executable, sys.prefix, sys.base_prefix, sys.version] == json.loads(os.environ["PYTHON"])
"""
ASK = "import json, sys; print(json.dumps([sys.executable, sys.prefix, sys.base_prefix, sys.version]))"


def needed(name: str, known: dict[str, Distribution]) -> dict[str, Distribution]:
    """Returns a distribution and those that it requires, as they are installed here."""
    if name not in known:
        known[name] = distribution(name)
        for requirement in map(Requirement, known[name].requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, known)
    return known


def install(target: Path, *, link: bool = False) -> None:
    """Copies (or links, file by file, as uv can) what a run needs into a folder of packages."""
    distributions: dict[str, Distribution] = {}
    for name in ("pytest-bpfmaps", "pytest-xdist", "pyroute2"):
        needed(name, distributions)
    files = {
        file.locate(): str(file)
        for found in distributions.values()
        for file in found.files or ()
        if not str(file).startswith("..") and not str(file).endswith((".pth", ".pyc"))
    }
    # It is installed as editable, so only its metadata is there.
    package = Path(pytest_bpfmaps.__file__).parent
    files |= {path: str(path.relative_to(package.parent)) for path in package.rglob("*.*") if path.is_file()}
    for source, name in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if link:
            (target / name).symlink_to(str(source))
        else:
            shutil.copy2(str(source), target / name)


def site_of(python: Path) -> Path:
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(
        subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    )


def venv(folder: Path, *options: str) -> Path:
    """Makes a virtual environment, and returns its interpreter."""
    base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    subprocess.run([base, "-m", "venv", "--without-pip", *options, folder], check=True)
    return folder / "bin" / "python"


def own_prefix(tmp_path: Path) -> tuple[Path, Mapping[str, str]]:
    """Makes Python as conda does: all of it in a moved folder, packages in it, no virtual environment."""
    prefix = tmp_path / "a folder of pythöns"
    name = f"python3.{sys.version_info.minor}"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    python = prefix / "bin" / name
    shutil.copy2(Path(sys.base_prefix, "bin", name).resolve(), python)
    skipped = shutil.ignore_patterns("test", "tests", "idlelib", "site-packages", "dist-packages", "config-*")
    shutil.copytree(sysconfig.get_path("stdlib"), prefix / "lib" / name, ignore=skipped)
    libraries = Path(sys.base_prefix, "lib").glob("libpython3*.so*")
    for library in libraries:
        shutil.copy2(library, prefix / "lib", follow_symlinks=False)
    (python.parent / "python").symlink_to(name)
    environment = {"LD_LIBRARY_PATH": str(prefix / "lib")}
    asked = subprocess.run([python, "-c", ASK], capture_output=True, env=environment, check=True)
    assert json.loads(asked.stdout)[1:3] == [str(prefix), str(prefix)]
    packages = site_of(python)
    assert packages.is_relative_to(prefix)
    install(packages)
    (packages / "settings.ini").write_text("[settings]")
    (packages / "sitecustomize.py").write_text(
        "open(__file__.replace('sitecustomize.py', 'settings.ini')).close()"
    )
    (packages / "usercustomize.py").write_text("import sys; sys.customized = True")
    return python.with_name("python"), environment


PLUGIN = """
import os, pytest
EARLY = os.path.exists("/modules/order")  # true in the initramfs

@pytest.fixture
def from_NAME(): return EARLY
"""
HOOK = """
import importlib.machinery, importlib.util, sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "hooked.plugin":
            return importlib.util.spec_from_file_location(name, FILE)
        if name == "hooked":
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = ["__editable__.hooked.finder"]
            return spec

sys.meta_path.append(Finder)
sys.path.append("__editable__.hooked.finder")
"""


def editable(tmp_path: Path) -> tuple[Path, Mapping[str, str]]:
    """Copies the interpreter.

    $PYTHONPATH has packages as links; plugins come by .pth, import hook and zipped egg.
    """
    python = venv(tmp_path / "venv", "--copies")
    packages = site_of(python)
    install(tmp_path / "target", link=True)
    points = "[pytest11]\n{0} = {1}\n"
    source, hooked = tmp_path / "project" / "src", tmp_path / "hooked" / "src"
    for folder in (source, hooked):
        folder.mkdir(parents=True)
    for name, module in (("pathed", "pathed"), ("hooked", "hooked.plugin")):
        metadata = packages / f"{name}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (metadata / "RECORD").write_text("")
        (metadata / "entry_points.txt").write_text(points.format(name, module))
    reads_data = "open(__file__.replace('plugin.py', 'data.txt')).close()\n"
    (source / "pathed.py").write_text(PLUGIN.replace("NAME", "path"))
    (hooked / "plugin.py").write_text(reads_data + PLUGIN.replace("NAME", "hook"))
    (hooked / "data.txt").write_text("data")
    (packages / "pathed.pth").write_text(f"{source}\n./zipped-1.egg\n")
    (packages / "hooked_finder.py").write_text(HOOK.replace("FILE", repr(str(hooked / "plugin.py"))))
    (packages / "hooked.pth").write_text("import hooked_finder\n")
    with zipfile.ZipFile(packages / "zipped-1.egg", "w") as egg:
        egg.writestr("zipped.py", PLUGIN.replace("NAME", "zip"))
        egg.writestr("EGG-INFO/PKG-INFO", "Metadata-Version: 2.1\nName: zipped\nVersion: 1\n")
        egg.writestr("EGG-INFO/entry_points.txt", points.format("zipped", "zipped"))
    (tmp_path / "test_plugins.py").write_text(
        "def test_were_imported_before_the_state_was_saved(bpf_kernel, from_path, from_hook, from_zip):\n"
        "    assert (from_path, from_hook, from_zip) == (True, True, True)\n"
    )
    flags = ("PYTHONDONTWRITEBYTECODE", "PYTHONSAFEPATH", "PYTHONNOUSERSITE")
    return python, {
        "PYTHONPATH": str(tmp_path / "target"),
        "PYTHONWARNINGS": "error",
        **dict.fromkeys(flags, "1"),
    }


def user_site(tmp_path: Path) -> tuple[Path, Mapping[str, str]]:
    """Makes packages of a user, as ``pip install --user`` leaves them, without a virtual environment."""
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    environment = {"HOME": str(tmp_path)}
    ask = [python, "-m", "site", "--user-site"]
    found = subprocess.run(ask, env=environment, capture_output=True, text=True, check=False).stdout.strip()
    install(Path(found))
    return python, environment


def uv(tmp_path: Path) -> tuple[Path, Mapping[str, str]]:
    """Makes uv's environment, with links into its cache."""
    folder, root = tmp_path / "venv", Path(__file__).parents[2]
    subprocess.run(["uv", "venv", "--python", sys.executable, folder], check=True)
    links = ["uv", "pip", "install", "--python", folder, "--link-mode=symlink", f"{root}[vm,net]"]
    subprocess.run(links, check=True)
    return folder / "bin" / "python", {}


LAYOUTS = {"prefix": own_prefix, "editable": editable, "user": user_site, "uv": uv}
ASKED = os.environ.get("BPFMAPS_LAYOUTS", "prefix,editable")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Makes a cache of its own, because its states belong to the layout."""
    folder = use_new_cache(tmp_path / "cache", monkeypatch)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", LAYOUTS if ASKED == "all" else ASKED.split(","))
def test_a_warm_guest_with(name: str, cache: Path, tmp_path: Path, pytester: pytest.Pytester) -> None:
    python, more = LAYOUTS[name](tmp_path)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment = {**kept, "PYTEST_ADDOPTS": "", **more}
    asked = subprocess.run([python, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    environment["PYTHON"] = asked.stdout
    pytester.makeconftest(
        "import os, pytest\n\n@pytest.fixture\ndef bpf_kernel(): return os.uname().release\n"
    )
    pytester.makepyfile(test_layout=SUITE)
    plugins = list(map(str, tmp_path.glob("test_plugins.py")))
    for plugin in plugins:
        shutil.move(plugin, pytester.path)
    states = []
    for _ in range(2):
        done = subprocess.run(
            [python, "-m", "pytest", "--bpf-kernel=6.1"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{2 + len(plugins)} passed" in done.stdout
        assert done.stderr == ""
        states.append([path.name for path in (cache / "warm").iterdir() if not path.name.startswith(".")])
    assert states[0] == states[1]
    assert len(states[0]) == 1
