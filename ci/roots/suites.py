"""The releases that roots are made of, and the source of their packages: this system's mirror and keys."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

from pytest_bpfmaps.vm.kernels import apt_sources

SUITES = ("bookworm", "trixie", "sid")
"""The suites that `ci/hosts` tries when none is named: Debian 12, 13, and unstable."""
UBUNTU = ("noble", "resolute")
"""The suites of Ubuntu that it knows: 24.04 and 26.04."""
_EXPIRED = re.compile(r"Release file for (\S+) is (expired \(.*?\))")


class CannotMakeRootsError(Exception):
    """This machine can't make roots: the message says why, and what to do."""


def other_suite(codename: str) -> str:
    """Returns another release than `codename`: Debian 13, or Debian 12 where Debian 13 runs here."""
    return "bookworm" if codename == "trixie" else "trixie"


def codename() -> str:
    """Returns the name of the release that runs here, ``bookworm``; empty for one without a name."""
    system = platform.freedesktop_os_release()
    return system.get("VERSION_CODENAME", "sid" if system.get("ID") == "debian" else "")


def own_or_stable() -> str:
    """Returns the suite that runs here, or Debian 13 where none of `SUITES` does."""
    own = codename()
    return own if own in SUITES else "trixie"


def archive(suite: str) -> list[str]:
    """Returns the lines of sources.list(5) for `suite`; ``bookworm-backports`` includes bookworm's.

    Raises CannotMakeRootsError where neither this system's package sources nor python-apt's templates name
    an archive of its distribution, or where its keys are missing.
    """
    base = suite.removesuffix("-backports")
    distribution = "ubuntu" if base in UBUNTU else "debian"
    mine = apt_sources.archive_of(distribution)
    if not mine:
        raise CannotMakeRootsError(
            f"none of this system's package sources is an archive of {distribution.title()}; install where "
            f"it is (apt-get install python-apt-common), and its keys ({apt_sources.keyring(distribution)})"
        )
    main, more = apt_sources.for_suite(mine, distribution, base)
    wanted = [main, *more]
    if base != suite:
        wanted += apt_sources.for_suite(mine, distribution, suite)[:1]
    components = ["main", "universe"] if distribution == "ubuntu" else ["main"]
    return [_line(source, components) for source in wanted]


def expired(messages: str) -> tuple[str, str] | None:
    """Returns the index that apt refused for its age, and apt's words for that; None for another reason."""
    match = _EXPIRED.search(messages)
    return (match[1], match[2]) if match else None


def apt_options() -> list[str]:
    """Returns what this system's apt.conf(5) says about proxies and certificates, as lines of such a file."""
    text = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return network_options(text)


def network_options(dump: str) -> list[str]:
    """Returns the lines of ``apt-config dump`` that a root needs to reach the mirror."""
    names = r"https?::\S+|Retries|ForceIPv[46]|Check-Valid-Until"
    wanted = re.compile(rf'Acquire::({names}) "[^"]+";', re.IGNORECASE)
    return [line for line in dump.splitlines() if wanted.fullmatch(line) and "Auto-Detect" not in line]


def _line(source: apt_sources.AptSource, components: list[str]) -> str:
    options = f" [signed-by={','.join(_key_files(source))}]" if _key_files(source) else ""
    return f"deb{options} {source.uri} {source.suite} {' '.join(components)}"


def _key_files(source: apt_sources.AptSource) -> list[str]:
    return [word for word in (source.signed_by or "").split() if word.startswith("/") and Path(word).exists()]
