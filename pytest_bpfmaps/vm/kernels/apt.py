"""Runs apt in a private root, with its own sources, lists and cache. So nothing on the system changes.

What the system's apt.conf(5) says about proxies and logins still counts. Its hooks, pins and foreign
architectures do not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pytest_bpfmaps.cache.sparse_files import digest
from pytest_bpfmaps.cache.stored_files import read_json, tell, write_json
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.apt_sources import AptSource
from pytest_bpfmaps.vm.kernels.progress import Progress

_KNOWN_LISTS = "lists.json"
_CONF = """\
Dir::State "{root}/state";
Dir::State::Lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Etc::SourceList "{root}/kernel.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Default-Release "";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::AllowReleaseInfoChange "true";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::GzipIndexes "true";
Acquire::Retries "2";
"""


class AptError(Exception):
    """apt refused; `messages` are its own lines."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages

    def missing(self) -> set[str]:
        """Returns the suites that the mirror does not have."""
        return {
            m[1]
            for m in re.finditer(r"repository '\S+ (\S+) Release' does not have a Release file", str(self))
        }

    def expired(self) -> str | None:
        """Returns how long the mirror's index has been invalid, ``21d 22h 40min 11s``; None if it is not."""
        match = re.search(r"is expired \(invalid since ([^)]+)\)", str(self))
        return match[1] if match else None

    def unsigned(self) -> bool:
        """Returns whether a signature could not be verified."""
        return bool(re.search(r"GPG error|signature|is not signed|not be authenticated", str(self)))


class AptRoot:
    """A private apt in the folder `root`. Two processes must not use it at once: hold a lock."""

    def __init__(self, root: Path, architecture: str) -> None:
        self.root = root
        self._drop_damaged_lists()
        for folder in ("state", "lists/partial", "cache/archives/partial"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "status").touch()
        self._conf = root / "apt.conf"
        self._conf.write_text(_CONF.format(root=root, architecture=architecture))
        self._architecture = architecture

    def update(self, sources: list[AptSource], progress: Progress, step: str) -> None:
        """Brings the lists of `sources` up to date. Raises AptError."""
        stanzas = "".join(source.stanza(self._architecture) for source in sources)
        (self.root / "kernel.sources").write_text(stanzas)
        self._run_with_progress(["update"], self.root, progress, step)

    def _drop_damaged_lists(self) -> None:
        """Removes lists that have changed, so that apt gets them again.

        apt would trust a list that it has.
        """
        known = read_json(self.root / _KNOWN_LISTS)
        for name, then in self._lists().items():
            if known and known.get(name) != then:
                tell(f"the package lists in {self.root / 'lists'} are fetched again: {name} was damaged")
                shutil.rmtree(self.root / "lists")
                return

    def note_lists(self) -> None:
        """Writes down the digests of the lists, so that damage shows the next time."""
        write_json(self.root / _KNOWN_LISTS, self._lists())

    def _lists(self) -> dict[str, str]:
        """Returns the digest of each list."""
        files = sorted(path for path in self.root.glob("lists/*_*") if path.is_file())
        return {path.name: digest(path) for path in files}

    def show(self, package: str) -> dict[str, str] | None:
        """Returns the fields of the newest version of `package`, or of ``NAME=VERSION``; None for none."""
        command = ["apt-cache", "-c", str(self._conf), "show", "--no-all-versions", "--", package]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
        return dict(re.findall(r"^([\w-]+): (.*)$", done.stdout, re.M)) or None

    def origins(self) -> set[str]:
        """Returns who made the archives of the lists, as their signed index says."""
        command = ["apt-get", "-c", str(self._conf), "indextargets", "--format", "$(ORIGIN)"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
        return set(done.stdout.split("\n")) - {""}

    def download(self, package: str, version: str, folder: Path, progress: Progress, step: str) -> Path:
        """Gets a package into `folder`, checked against the signed index. Raises AptError."""
        before = set(folder.iterdir())
        self._run_with_progress(["download", "--", f"{package}={version}"], folder, progress, step)
        (new,) = set(folder.iterdir()) - before
        return new

    def _run_with_progress(self, command: list[str], folder: Path, progress: Progress, step: str) -> None:
        progress.step(step)
        messages: list[str] = []
        for line in self._lines(["-q", "-o", "APT::Status-Fd=1", *command], folder):
            if match := re.match(r"dlstatus:\d+:([\d.]+):", line):
                progress.step(step, float(match[1]))
            elif line.startswith(("E:", "W:", "Err:")) or (messages and line.startswith("  ")):
                messages.append(line)
        if self._status:
            raise AptError(messages)

    def _lines(self, arguments: list[str], folder: Path) -> Iterator[str]:
        command = ["apt-get", "-c", str(self._conf), *arguments]
        if shutil.which("setpriv"):  # else a killed fetch leaves an apt behind that locks the lists
            command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            cwd=folder,
            env=_environment(),
        ) as apt:
            assert apt.stdout is not None
            try:
                for line in apt.stdout:
                    yield line.rstrip("\n")
            except BaseException:
                apt.terminate()
                raise
        self._status = apt.returncode


def need_commands(*commands: str) -> None:
    """Raises VmError, which names the first command that this machine lacks."""
    for command in commands:
        if shutil.which(command) is None:
            raise VmError(
                "cannot fetch kernels",
                why=f"this system has no {command}",
                fix="fetch works where apt does (Debian, Ubuntu); elsewhere: bpfmaps kernels add PATH",
            )


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
