"""The named jobs of `ci/hosts --job NAME`. Each tests one version of one thing that differs by release."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from root import Root

_SETUP = "ci/setup debian:bookworm"
_GALLERY = ".venv/bin/pytest tests/gallery --bpf-kernel=host,6.1"
COMMANDS = {"demo": "ci/demo", "test": "ci/test", "gallery": f"{_SETUP} && {_GALLERY}"}
"""The names that `--command` knows; any other text is run as it is."""


@dataclass(frozen=True)
class Job:
    """Tests `thing` in `version`, if any: the suites that may have it, and the command that tests it.

    `wheel` is a requirement of PyPI that has the version, if no release has it.
    """

    thing: str
    version: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    command: str
    from_elsewhere: str
    wheel: str = ""

    @property
    def name(self) -> str:
        return f"{self.thing}-{self.version}" if self.version else self.thing


def _clang(version: str, *suites: str, wheel: str = "") -> Job:
    name = f"clang-{version}"
    arenas = "tests/gallery/test_shared_list.py::*"  # they need clang 19
    allowed = f"-o bpf_allow_never_ran='{arenas}'"
    tests = f"{_GALLERY} tests/unit/test_compiler*.py --bpf-clang={name} {allowed}"
    elsewhere = f"--from {name}=FOLDER, with {name} in its bin/, as LLVM's own builds have it"
    return Job("clang", version, suites, (name,), f"{_SETUP} && {tests}", elsewhere, wheel)


def _python(version: str, *suites: str) -> Job:
    tests = f"{_GALLERY} tests/unit tests/plugin"
    elsewhere = f"python{version} in $PATH, or --from python-{version}=FOLDER, with it in its bin/"
    packages = (f"python{version}-venv",)
    return Job("python", version, suites, packages, f"{_SETUP} && {tests}", elsewhere)


def _libbpf(version: str, *suites: str) -> Job:
    tests = f"{_GALLERY} tests/kernel tests/unit/test_libbpf*.py --ignore-glob='*/test_vm_*.py'"
    elsewhere = f"--from libbpf-{version}=FOLDER, a clone of libbpf or its source of that version"
    packages = ("libbpf1", "libbpf-dev")
    return Job("libbpf", version, suites, packages, f"{_SETUP} && {tests}", elsewhere)


def _qemu(version: str, *suites: str) -> Job:
    files = "tests/kernel/test_vm_{warm,fallback,damaged_states,waits,shell,gdb,coverage,blocks,cost}.py"
    tests = f".venv/bin/pytest tests/gallery --bpf-kernel=6.1 --bpf-strict && .venv/bin/pytest {files}"
    elsewhere = f"--from qemu-{version}=FOLDER, into which a QEMU of that version was installed"
    return Job("qemu", version, suites, ("qemu-system-x86",), f"{_SETUP} && {tests}", elsewhere)


_KVM = f"{_SETUP} && BPFMAPS_KVM_INSIDE=1 .venv/bin/pytest tests/kernel/test_vm_kvm.py"

_RUST = (
    "apt-get install -qq --no-install-recommends cargo "
    f"&& {_SETUP} && .venv/bin/pytest examples --bpf-kernel=6.1 -k rust"
)

_RELEASE = "$(.venv/bin/bpfmaps kernels list | awk '$1 == \"6.1\" {print $2}')"
_BCC = (
    f"{_SETUP} && apt-get install -qq --no-install-recommends linux-headers-{_RELEASE} "
    "&& .venv/bin/pytest examples --bpf-kernel=6.1 -k python"
)

JOBS = {
    job.name: job
    for job in (
        _clang("14", "bookworm"),
        _clang("15", "bookworm"),
        _clang("16", "bookworm"),
        _clang("17", "trixie"),
        _clang("18", "trixie", "noble"),
        _clang("19", "trixie", "bookworm", "sid"),
        _clang("20", "resolute", wheel="ziglang==0.15.*"),
        _clang("21", "sid", "trixie-backports"),
        _python("3.11", "bookworm"),
        _python("3.12", "noble"),
        _python("3.13", "trixie", "sid"),
        _python("3.14", "sid"),
        _libbpf("1.1", "bookworm"),
        _libbpf("1.2"),
        _libbpf("1.3", "noble"),
        _libbpf("1.4", "bookworm-backports"),
        _libbpf("1.5", "trixie"),
        _libbpf("1.6", "resolute"),
        _libbpf("1.7", "sid"),
        _qemu("7.2", "bookworm"),
        _qemu("8.2", "noble"),
        _qemu("10.0", "trixie"),
        _qemu("11.1", "sid"),
        Job("aya", "0.13", ("trixie", "sid"), ("librust-aya-dev",), _RUST, ""),
        Job("bcc", "", ("bookworm",), (), _BCC, ""),
        Job("kvm", "", ("bookworm",), (), _KVM, ""),
    )
}


def candidates(policy: str) -> dict[str, list[str]]:
    """Returns the versions that ``apt-cache policy`` can install, by package, the newest first."""
    found: dict[str, list[str]] = {}
    versions: list[str] = []
    for line in policy.splitlines():
        if line and not line[0].isspace():
            versions = found.setdefault(line.rstrip(":"), [])
        elif match := re.fullmatch(r"(?: \*\*\*|    ) (\S+) -?\d+", line):
            versions.append(match[1])
    return found


def choice(job: Job, policy: str) -> list[str] | None:
    """Returns what to install for `job`, as NAME=VERSION; None when the release lacks it."""
    found = candidates(policy)
    wanted = re.compile(rf"(\d+:)?{re.escape(job.version)}(?!\d)")
    chosen = []
    for package in job.packages:
        version = next((v for v in found.get(package, []) if wanted.match(v)), None)
        if version is None:
            return None
        chosen.append(f"{package}={version}")
    return chosen


def install_from_release(job: Job, root: Root) -> bool:
    """Installs what `job` tests from the release's own packages. Returns whether it has them."""
    if not job.packages:
        return True
    policy = root.output(f"apt-get update -qq && apt-cache policy {' '.join(job.packages)}")
    chosen = choice(job, policy)
    if chosen is None:
        return False
    root.output(_apt_install(chosen))
    if job.thing == "python":
        root.variables["PYTHON"] = f"python{job.version}"
    return True


def install_from_wheel(job: Job, root: Root) -> None:
    """Installs the clang in PyPI's ziglang: ``zig clang`` is clang itself, with all LLVM targets."""
    at = f"/opt/{job.name}"
    package = f"$({at}/bin/python -c 'import ziglang; print(ziglang.__path__[0])')"
    wrapper = f'#!/bin/sh\nexec {at}/zig clang -resource-dir={at}/resources "$@"\n'
    root.output("apt-get update -qq")
    root.output(_apt_install(["python3-venv", "ca-certificates"]))
    root.output(f"python3 -m venv {at} && {at}/bin/pip install -q {shlex.quote(job.wheel)}")
    root.output(
        f"ln -s {package}/zig {at}/zig; mkdir {at}/resources; ln -s {package}/lib/include {at}/resources/"
    )
    root.output(
        f"printf %s {shlex.quote(wrapper)} >/usr/local/bin/{job.name}; chmod +x /usr/local/bin/{job.name}"
    )


def on_this_machine(job: Job) -> Path | None:
    """Returns the folder of this machine that has what `job` tests: a Python in $PATH or pyenv."""
    if job.thing != "python":
        return None
    name = f"python{job.version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    for command in (name, *map(str, sorted(pyenv.glob(f"versions/{job.version}.*/bin/{name}")))):
        try:
            ask = [command, "-c", "import sys; print(sys.base_prefix)"]
            done = subprocess.run(ask, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):  # pyenv's command fails when no version is chosen
            continue
        prefix = Path(done.stdout.strip())
        if prefix != Path("/usr") and (prefix / "bin" / name).exists():
            return prefix
    return None


def newest_tag(tags: list[str], version: str) -> str | None:
    """Returns the tag of the last release of `version`, ``v1.4.7`` of ``1.4``."""
    own = [tag for tag in tags if re.fullmatch(rf"v{re.escape(version)}\.\d+", tag)]
    return max(own, key=lambda tag: int(tag.rpartition(".")[2]), default=None)


def install_from_folder(job: Job, root: Root, folder: Path) -> None:
    """Lets the root see `folder` of this machine, and use what `job` tests from there."""
    if job.thing == "libbpf":
        _copy_libbpf(job, folder, root.path / "usr/src/libbpf")
        root.output("apt-get update -qq")
        root.output(_apt_install(["gcc", "libc6-dev", "make", "pkgconf", "libelf-dev", "zlib1g-dev"]))
        at = "/opt/built-libbpf"
        root.output(f"make -s -C /usr/src/libbpf/src install PREFIX={at} LIBDIR={at}/lib")
        root.variables["LD_LIBRARY_PATH"] = f"{at}/lib"
        root.variables["C_INCLUDE_PATH"] = f"{at}/include"
    elif job.thing == "python":
        # A Python looks for its library at the path that it was built for.
        root.binds.append(f"{folder}:{folder}:ro")
        libraries = ["libssl3", "libffi8", "zlib1g", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libreadline8"]
        root.output("apt-get update -qq")
        root.output(_apt_install(libraries))
        root.variables["PYTHON"] = f"{folder}/bin/python{job.version}"
    else:
        at = f"/opt/{job.name}"
        name = "qemu-system-x86_64" if job.thing == "qemu" else job.name
        root.binds.append(f"{folder}:{at}:ro")
        root.output(f"ln -sf {at}/bin/{name} /usr/local/bin/{name}")


def _copy_libbpf(job: Job, folder: Path, target: Path) -> None:
    """Copies libbpf's source: the last release of the version if `folder` is a clone, else all of it."""
    git = ["git", "-C", str(folder)]
    done = subprocess.run([*git, "tag"], capture_output=True, text=True, check=False)
    tag = newest_tag(done.stdout.split(), job.version)
    if tag is None:
        shutil.copytree(folder, target)
        return
    target.mkdir(parents=True)
    packed = subprocess.run([*git, "archive", tag], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(target)], input=packed, check=True)


def missing(job: Job) -> str:
    """Returns the message for a version that no release has."""
    where = f"{', '.join(job.suites)} has no" if job.suites else "no release of Debian has a"
    return f"{job.name}: {where} package of it, and this machine has none; give {job.from_elsewhere}"


def _apt_install(packages: list[str]) -> str:
    words = shlex.join(packages)
    return f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends {words}"
