"""A root: the files of a fresh machine in a folder of this one, made by mmdebstrap."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import machine
import processes
import suites
from suites import CannotMakeRootsError

SOURCE = "/src/pytest-bpfmaps"
"""The folder of the clone in a root."""
_HERE = Path(__file__).resolve()
_REPOSITORY = _HERE.parents[2]
_UNSHARE = ["unshare", "--mount", "--propagation", "private", "--"]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_OF_MMDEBSTRAP = 1800.0
_OLD = 30 * 86400
"""How long a kept root is used, in seconds; then it lacks too many updates."""


def cache() -> Path:
    """Returns the folder in which this command keeps everything."""
    default = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    named = os.environ.get("BPFMAPS_CACHE") or f"{default}/pytest-bpfmaps"
    return Path(named).expanduser().absolute() / "hosts"


def say(text: str) -> None:
    """Prints a line of progress."""
    print(f"==> {text}", flush=True)


def check_machine() -> None:
    """Raises CannotMakeRootsError, with the reason, where roots can't be made or entered."""
    if os.geteuid() != 0:
        raise CannotMakeRootsError("it needs root")
    for command in ("mmdebstrap", "apt-config", "git"):
        if shutil.which(command) is None:
            raise CannotMakeRootsError(f"this system has no {command}; apt-get install {command}")
    mounts = (
        "mount -t tmpfs t /mnt && mkdir /mnt/p /mnt/s && mount -t proc p /mnt/p && mount -t sysfs s /mnt/s"
    )
    done = subprocess.run([*_UNSHARE, "sh", "-c", mounts], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = " ".join(done.stderr.split()) or f"unshare ended with status {done.returncode}"
        raise CannotMakeRootsError(
            f"this machine refuses mounts, as containers do ({why}); take one with all privileges"
        )


@dataclass
class Root:
    """A root of `suite` at `path`; `binds` are more of this machine's paths that it sees, for `enter`."""

    suite: str
    path: Path
    logs: Path
    verbose: bool = False
    binds: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, command: str, timeout: float) -> tuple[int, Path]:
        """Runs a shell command in the clone, as a machine would after boot.

        Returns its status and its log.
        """
        log = self.logs / f"{name}.log"
        inside = ["/bin/bash", "-c", f"cd {SOURCE} && {command}"]
        enter = [*_UNSHARE, str(_HERE.with_name("enter")), str(self.path), *self._all_binds(), "--"]
        status = processes.run([*enter, *inside], log, timeout, self.verbose, self._environment())
        return status, log

    def output(self, command: str) -> str:
        """Returns what a command prints. Raises CalledProcessError when it fails."""
        status, log = self.run("preparation", command, 600)
        text = log.read_text(errors="replace")
        if status:
            raise subprocess.CalledProcessError(status, command, text)
        return text

    def _all_binds(self) -> list[str]:
        kept = {self.path.parent.parent / "debs" / self.suite: "/var/cache/apt/archives"}
        kept[self.path.parent.parent / "pip"] = "/root/.cache/pip"
        for folder in kept:
            folder.mkdir(parents=True, exist_ok=True)
        return [f"{folder}:{at}" for folder, at in kept.items()] + machine.bound_paths() + self.binds

    def _environment(self) -> Mapping[str, str]:
        own = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb", "COLUMNS": "100"}
        return {**own, **machine.variables(os.environ), **self.variables}


@contextlib.contextmanager
def opened(suite: str, name: str, *, fresh: bool, keep: bool, verbose: bool) -> Iterator[Root]:
    """Gives a root of `suite`: a fresh one, removed at the end unless `keep`, or the one that the last run
    left.

    Logs go to a folder of that `name`. Raises CannotMakeRootsError, or CalledProcessError of mmdebstrap.
    """
    folder = cache() / "roots"
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    path = folder / (f"{suite}-{os.getpid()}" if fresh else suite)
    logs = cache() / "logs" / name
    logs.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock"), wait=True):
        # Absent while the root is made or used: a killed run may leave any state.
        sound = path / "etc/sound-root"
        try:
            made = sound.stat().st_mtime if sound.exists() else 0.0
            sound.unlink(missing_ok=True)
            if time.time() - made > _OLD:
                _remove(path)
                _make(suite, path, logs, verbose)
                made = time.time()
            machine.copy_settings(path)
            yield Root(suite, path, logs, verbose)
            sound.touch()
            os.utime(sound, (made, made))
        finally:
            processes.ignore_signals()
            processes.end_descendants()
            if (fresh and not keep) or not sound.exists():
                _remove(path)
            elif keep:
                say(f"{suite}: kept the root at {path}")
    processes.stop_on_signals()


def clone(root: Root, *, worktree: bool) -> None:
    """Gives the root a fresh clone of this repository; with `worktree`, a copy of the files as they are now.

    What an earlier clone had in .venv stays.
    """
    target = root.path / SOURCE.lstrip("/")
    new = target.with_name("new")
    _remove(new)
    new.parent.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(_REPOSITORY)]
    if worktree:
        listed = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            file = _REPOSITORY / name
            if file.is_symlink() or file.exists():  # not a deleted file
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, new / name, follow_symlinks=False)
    else:
        if subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True).stdout:
            print("ci/hosts: what is not committed is not in the clone", file=sys.stderr)
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(_REPOSITORY), str(new)], check=True)
    if (target / ".venv").exists():
        (target / ".venv").rename(new / ".venv")
    _remove(target)
    new.rename(target)


def _make(suite: str, path: Path, logs: Path, verbose: bool) -> None:
    options = suites.apt_options()
    start = time.monotonic()
    status, text = _mmdebstrap(suite, path, options, logs=logs, verbose=verbose)
    if status and (late := suites.expired(text)):
        say(f"{suite}: the mirror's index {late[0]} is {late[1]}: apt is told to take it (Check-Valid-Until)")
        _remove(path)
        options.append('Acquire::Check-Valid-Until "false";')
        status, text = _mmdebstrap(suite, path, options, logs=logs, verbose=verbose)
    if status:
        tail = "\n".join(text.splitlines()[-15:])
        raise subprocess.CalledProcessError(status, f"making a root of {suite}", tail)
    say(f"{suite}: made a root in {time.monotonic() - start:.0f} s")


def _mmdebstrap(suite: str, path: Path, options: list[str], *, logs: Path, verbose: bool) -> tuple[int, str]:
    debs = cache() / "debs" / suite
    debs.mkdir(parents=True, exist_ok=True)
    (debs / "partial").mkdir(exist_ok=True)
    inside = "/var/cache/apt/archives/"
    command = [*_UNSHARE, "mmdebstrap", "--variant=minbase", "--format=directory", "--mode=root"]
    command += [f"--aptopt={option}" for option in options]
    command += ["--include=apt,ca-certificates", "--skip=essential/unlink"]
    command += [f'--setup-hook=mkdir -p "$1"{inside}', f"--setup-hook=sync-in {debs} {inside}"]
    command += [f"--customize-hook=sync-out {inside} {debs}"]
    if machine.CERTIFICATES.is_dir():
        command += [f"--customize-hook=copy-in {machine.CERTIFICATES} {machine.CERTIFICATES.parent}"]
        command += ['--customize-hook=chroot "$1" update-ca-certificates']
    path.parent.mkdir(parents=True, exist_ok=True)
    log = logs / "mmdebstrap.log"
    environment = {**os.environ, "LC_ALL": "C"}
    command += [suite.removesuffix("-backports"), str(path), *suites.archive(suite)]
    status = processes.run(command, log, _TIMEOUT_OF_MMDEBSTRAP, verbose, environment)
    return status, log.read_text(errors="replace")


@contextlib.contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[bool]:
    """Takes the lock on `file`, and gives True. Without `wait`, gives False where another process has it."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            say(f"waiting for another run that has {file.with_suffix('')}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield True


def _remove_stale(folder: Path) -> None:
    """Removes fresh roots of runs that were killed: nobody holds their lock."""
    for file in folder.glob("*-[0-9]*.lock"):
        with locked(file, wait=False) as free:
            if free:
                _remove(file.with_suffix(""))
                file.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Removes a folder. Raises RuntimeError when something is mounted below it."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [point for point in mounted if Path(point).is_relative_to(path)]
    if below:
        raise RuntimeError(f"{path} is not removed: {', '.join(below)} is mounted")
    if path.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=True)
