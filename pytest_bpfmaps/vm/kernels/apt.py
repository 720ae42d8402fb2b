"""apt in a private root: its own sources, lists and cache, so that nothing on the system changes.

What the system's apt.conf(5) says about proxies and logins stays in force; its hooks, pins and foreign
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
        """The suites that the mirror does not have."""
        return {
            m[1]
            for m in re.finditer(r"repository '\S+ (\S+) Release' does not have a Release file", str(self))
        }

    def expired(self) -> str | None:
        """Since when the mirror's index is no longer valid: "21d 22h 40min 11s"; None where it is."""
        match = re.search(r"is expired \(invalid since ([^)]+)\)", str(self))
        return match[1] if match else None

    def unsigned(self) -> bool:
        """Whether a signature could not be verified."""
        return bool(re.search(r"GPG error|signature|is not signed|not be authenticated", str(self)))


class AptRoot:
    """A private apt at the folder `root`. Not for two processes at once: hold a lock."""

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
        """Bring the lists of `sources` up to date. Raises AptError."""
        stanzas = "".join(source.stanza(self._architecture) for source in sources)
        (self.root / "kernel.sources").write_text(stanzas)
        self._run_with_progress(["update"], self.root, progress, step)

    def _drop_damaged_lists(self) -> None:
        """apt takes a list that it has for what it once got: one that has changed is got again."""
        known = read_json(self.root / _KNOWN_LISTS)
        for name, then in self._lists().items():
            if known and known.get(name) != then:
                tell(f"the package lists in {self.root / 'lists'} are got again: {name} was damaged")
                shutil.rmtree(self.root / "lists")
                return

    def note_lists(self) -> None:
        """Writes down what the lists are, so that damage shows the next time."""
        write_json(self.root / _KNOWN_LISTS, self._lists())

    def _lists(self) -> dict[str, str]:
        """The digest of each list."""
        files = sorted(path for path in self.root.glob("lists/*_*") if path.is_file())
        return {path.name: digest(path) for path in files}

    def show(self, package: str) -> dict[str, str] | None:
        """The fields of the newest version of `package`, or of ``NAME=VERSION``; None without one."""
        command = ["apt-cache", "-c", str(self._conf), "show", "--no-all-versions", "--", package]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
        return dict(re.findall(r"^([\w-]+): (.*)$", done.stdout, re.M)) or None

    def origins(self) -> set[str]:
        """Who made the archives of the lists, as their signed index says."""
        command = ["apt-get", "-c", str(self._conf), "indextargets", "--format", "$(ORIGIN)"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
        return set(done.stdout.split("\n")) - {""}

    def download(self, package: str, version: str, folder: Path, progress: Progress, step: str) -> Path:
        """Get a package into `folder`, checked against the signed index. Raises AptError."""
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
        if shutil.which("setpriv"):  # a killed fetch must not leave an apt behind that holds the lists
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
    """Raises VmError that names the first command that this machine lacks."""
    for command in commands:
        if shutil.which(command) is None:
            raise VmError(
                "cannot fetch kernels",
                why=f"this system has no {command}",
                fix="fetch works where apt does (Debian, Ubuntu); elsewhere: bpfmaps kernels add PATH",
            )


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
