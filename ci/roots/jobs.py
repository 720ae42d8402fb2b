"""The named jobs: one version of one thing that the releases differ in, by `ci/hosts --job NAME`."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from root import Root

_SETUP = "ci/setup debian:bookworm"
_GALLERY = ".venv/bin/pytest tests/gallery --bpf-kernel=host,6.1"
COMMANDS = {"demo": "ci/demo", "test": "ci/test", "gallery": f"{_SETUP} && {_GALLERY}"}
"""What `--command` can name; anything else is run as it is."""


@dataclass(frozen=True)
class Job:
    """`thing` in version `version`: the suites that may have it, and the command that tests it."""

    thing: str
    version: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    command: str
    from_elsewhere: str

    @property
    def name(self) -> str:
        return f"{self.thing}-{self.version}"


def _clang(version: str, *suites: str) -> Job:
    name = f"clang-{version}"
    tests = f"{_GALLERY} tests/unit/test_compiler*.py --bpf-clang={name}"
    elsewhere = f"--from {name}=FOLDER, with {name} in its bin/, as LLVM's own builds have it"
    return Job("clang", version, suites, (name,), f"{_SETUP} && {tests}", elsewhere)


def _python(version: str, *suites: str) -> Job:
    tests = f"{_GALLERY} tests/unit tests/plugin"
    elsewhere = f"python{version} in $PATH, or --from python-{version}=FOLDER, with it in its bin/"
    packages = (f"python{version}-venv",)
    return Job("python", version, suites, packages, f"{_SETUP} && {tests}", elsewhere)


def _libbpf(version: str, *suites: str) -> Job:
    tests = f"{_GALLERY} tests/kernel tests/unit/test_libbpf*.py --ignore-glob='*/test_vm_*.py'"
    elsewhere = f"--from libbpf-{version}=FOLDER, libbpf's source of that version (its src/ has a Makefile)"
    packages = ("libbpf1", "libbpf-dev")
    return Job("libbpf", version, suites, packages, f"{_SETUP} && {tests}", elsewhere)


JOBS = {
    job.name: job
    for job in (
        _clang("14", "bookworm"),
        _clang("15", "bookworm"),
        _clang("16", "bookworm"),
        _clang("17", "trixie"),
        _clang("18", "trixie"),
        _clang("19", "trixie", "bookworm", "sid"),
        _clang("20", "sid", "trixie-backports"),
        _clang("21", "sid", "trixie-backports"),
        _python("3.11", "bookworm"),
        _python("3.12", "sid"),
        _python("3.13", "trixie", "sid"),
        _python("3.14", "sid"),
        _libbpf("1.1", "bookworm"),
        _libbpf("1.2", "bookworm-backports"),
        _libbpf("1.3", "bookworm-backports"),
        _libbpf("1.4", "bookworm-backports"),
        _libbpf("1.5", "trixie"),
        _libbpf("1.6", "trixie-backports", "sid"),
        _libbpf("1.7", "sid"),
    )
}


def candidates(policy: str) -> dict[str, list[str]]:
    """The versions that ``apt-cache policy`` says can be installed, by package, the newest first."""
    found: dict[str, list[str]] = {}
    versions: list[str] = []
    for line in policy.splitlines():
        if line and not line[0].isspace():
            versions = found.setdefault(line.rstrip(":"), [])
        elif match := re.fullmatch(r"(?: \*\*\*|    ) (\S+) -?\d+", line):
            versions.append(match[1])
    return found


def choice(job: Job, policy: str) -> list[str] | None:
    """What to install for `job`, as NAME=VERSION; None when the release lacks it."""
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
    """Install what `job` tests from the release's own packages; tell whether it has them."""
    policy = root.output(f"apt-get update -qq && apt-cache policy {' '.join(job.packages)}")
    chosen = choice(job, policy)
    if chosen is None:
        return False
    root.output(_apt_install(chosen))
    if job.thing == "python":
        root.variables["PYTHON"] = f"python{job.version}"
    return True


def elsewhere(job: Job, given: dict[str, Path]) -> Path | None:
    """The folder of this machine that has what `job` tests: one that was given, or that of a Python here."""
    if job.name in given or job.thing != "python":
        return given.get(job.name)
    ask = [f"python{job.version}", "-c", "import sys; print(sys.base_prefix)"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    prefix = Path(done.stdout.strip())
    return prefix if (prefix / "bin" / f"python{job.version}").exists() else None


def install_from_folder(job: Job, root: Root, folder: Path) -> None:
    """Let the root see `folder` of this machine, and use what `job` tests from there."""
    at = f"/opt/{job.name}"
    if job.thing == "libbpf":
        root.binds.append(f"{folder}:{at}:ro")
        root.output(_apt_install(["gcc", "libc6-dev", "make", "pkgconf", "libelf-dev", "zlib1g-dev"]))
        make = "make -s -C /tmp/libbpf/src install PREFIX=/opt/built-libbpf LIBDIR=/opt/built-libbpf/lib"
        root.output(f"cp -r {at} /tmp/libbpf && {make}")
        root.variables["LD_LIBRARY_PATH"] = "/opt/built-libbpf/lib"
        root.variables["C_INCLUDE_PATH"] = "/opt/built-libbpf/include"
    elif job.thing == "python":
        root.binds.append(f"{folder}:{folder}:ro")  # a Python looks for its library where it was built to be
        libraries = ["libssl3", "libffi8", "zlib1g", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libreadline8"]
        root.output(_apt_install(libraries))
        root.variables["PYTHON"] = f"{folder}/bin/python{job.version}"
    else:
        root.binds.append(f"{folder}:{at}:ro")
        root.output(f"ln -sf {at}/bin/{job.name} /usr/local/bin/{job.name}")


def missing(job: Job, tried: tuple[str, ...]) -> str:
    """What to say when no release has what `job` tests."""
    where = f"no package of it in {', '.join(tried)}, and none on this machine"
    return f"{job.name}: {where}; give {job.from_elsewhere}"


def _apt_install(packages: list[str]) -> str:
    words = shlex.join(packages)
    return f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends {words}"
