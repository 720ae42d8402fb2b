"""Reads the package sources of this system: where its mirror is, and which keys it trusts for it.

Source: sources.list(5), both styles. Another distribution's archive is that of python-apt's templates.
"""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

TEMPLATES = Path("/usr/share/python-apt/templates")
"""The folder in which the package python-apt-common says where each distribution's archive is."""
_ALIASES = {"stable", "oldstable", "oldoldstable", "testing", "unstable", "sid", "experimental"}


@dataclass(frozen=True)
class AptSource:
    """One archive and suite; `signed_by` is the value of sources.list(5): paths, a whole key, or None."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None

    def stanza(self, architecture: str) -> str:
        """Returns the source in deb822 style, for the index of packages alone."""
        fields = {
            "Types": "deb",
            "URIs": self.uri,
            "Suites": self.suite,
            "Components": " ".join(self.components),
            "Architectures": architecture,
            "Targets": "Packages",
        }
        if self.signed_by:
            fields["Signed-By"] = self.signed_by
        return "".join(f"{name}: {value}\n" for name, value in fields.items()) + "\n"


def system_sources() -> list[AptSource]:
    """Returns every enabled binary source of this system in apt's order, without CD-ROMs."""
    shell = _run("apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d")
    places = dict(word.split("=", 1) for word in shlex.split(shell))
    files = [Path(places.get("LIST", ""))]
    parts = Path(places.get("PARTS", ""))
    if parts.is_dir():
        files += sorted(p for p in parts.iterdir() if p.suffix in (".list", ".sources"))
    found = [source for file in files if file.is_file() for source in _parse(file)]
    return [source for source in found if not source.uri.startswith("cdrom:")]


def archive_of(distribution: str) -> list[AptSource]:
    """Returns the archive of `distribution`: that of this system's sources, else the one of its template."""
    return of_distribution(system_sources(), distribution) or of_template(TEMPLATES, distribution)


def of_template(folder: Path, distribution: str) -> list[AptSource]:
    """Returns the archive and the security archive that python-apt's template in `folder` names.

    The package python-apt-common has a template for each of Debian, Ubuntu and others. Their suites are
    placeholders. Returns nothing without a template, or without the keys of `distribution`.
    """
    names = (f"{distribution}.info", f"{distribution.title()}.info")  # python-apt 3 and before
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None or not keyring(distribution).exists():
        return []
    found: dict[str, AptSource] = {}
    for stanza in _stanzas(file.read_text(errors="replace")):
        uri = stanza.get(f"baseuri-{architecture()}") or stanza.get("baseuri")
        suite = "security" if stanza.get("suite", "").endswith("-security") else ""
        if uri and suite not in found:
            if suite and distribution == "debian" and not uri.rstrip("/").endswith("debian-security"):
                # The template names the folder above. Debian documents this one; a mirror may lack the other.
                uri = uri.rstrip("/") + "/debian-security"
            found[suite] = AptSource(uri, f"stable-{suite}".rstrip("-"), ("main",), None)
    return [found[suite] for suite in sorted(found)]


def keyring(distribution: str) -> Path:
    """Returns the file with the archive's keys, which the distribution's keyring package has."""
    return Path(f"/usr/share/keyrings/{distribution}-archive-keyring.gpg")


def of_distribution(sources: list[AptSource], distribution: str) -> list[AptSource]:
    """Returns those of `sources` that are archives of `distribution` itself, not of a third party."""
    origins = _origins()
    system = platform.freedesktop_os_release()

    def belongs(source: AptSource) -> bool:
        if "main" not in source.components:
            return False
        origin = origins.get((source.uri.rstrip("/"), source.suite))
        if origin is not None:
            return origin.lower() == distribution
        if source.signed_by is not None:  # the system has no index of it: the keyring's name tells
            return f"{distribution}-archive-" in source.signed_by
        base = source.suite.partition("-")[0].partition("/")[0]
        return system.get("ID") == distribution and base in _ALIASES | {system.get("VERSION_CODENAME", "")}

    return [source for source in sources if belongs(source)]


def for_suite(sources: list[AptSource], distribution: str, suite: str) -> tuple[AptSource, list[AptSource]]:
    """Returns the source of another `suite` on the same mirror, and those of its updates (may not exist)."""
    main = next((s for s in sources if not _is_security(s)), sources[0])
    main = replace(main, suite=suite, components=("main",), signed_by=_keys(main, distribution))
    if "-" in suite or suite in {"sid", "unstable", "experimental"}:
        return main, []
    more = [replace(main, suite=f"{suite}-updates")]
    security = next((s for s in sources if _is_security(s)), None)
    if security is not None:
        more.append(
            replace(
                main, uri=security.uri, suite=f"{suite}-security", signed_by=_keys(security, distribution)
            )
        )
    return main, more


def architecture() -> str:
    """Returns the system's own architecture as dpkg names it, ``amd64``."""
    return _run("dpkg", "--print-architecture").strip()


def _is_security(source: AptSource) -> bool:
    return source.suite.endswith(("-security", "/updates"))


def _keys(source: AptSource, distribution: str) -> str | None:
    """Returns the keys for another suite of the same archive: the source's own, and the distribution's.

    A source is often limited to the key of one release. The distribution's keyring package has the others,
    too.
    """
    signed_by = source.signed_by
    whole = str(keyring(distribution))
    if signed_by is None:
        return whole if Path(whole).exists() else None
    if signed_by.startswith("/") and whole not in signed_by and Path(whole).exists():
        return f"{signed_by} {whole}"
    return signed_by


def _origins() -> dict[tuple[str, str], str]:
    """Returns who made the archives whose index is on this system, by URI and suite."""
    text = _run("apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(ORIGIN)")
    rows = (line.split("|") for line in text.splitlines())
    return {(row[0].rstrip("/"), row[1]): row[2] for row in rows if len(row) == 3 and row[2]}


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _parse(file: Path) -> Iterator[AptSource]:
    text = file.read_text(errors="replace")
    return _parse_deb822(text) if file.suffix == ".sources" else _parse_lines(text)


def _parse_lines(text: str) -> Iterator[AptSource]:
    for line in text.splitlines():
        words = line.partition("#")[0].replace("[", " [ ").replace("]", " ] ").split()
        if not words or words[0] != "deb":
            continue
        options: dict[str, str] = {}
        rest = words[1:]
        if rest[:1] == ["["] and "]" in rest:
            end = rest.index("]")
            options = dict(word.partition("=")[::2] for word in rest[1:end])
            rest = rest[end + 1 :]
        if len(rest) >= 3:
            signed_by = options.get("signed-by", "").replace(",", " ")
            yield AptSource(rest[0], rest[1], tuple(rest[2:]), signed_by or None)


def _parse_deb822(text: str) -> Iterator[AptSource]:
    for stanza in _stanzas(text):
        if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        components = tuple(stanza.get("components", "").split())
        for uri in stanza.get("uris", "").split():
            for suite in stanza.get("suites", "").split():
                yield AptSource(uri, suite, components, stanza.get("signed-by") or None)


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    stanza: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                yield stanza
            stanza = {}
        elif line[0] in " \t":
            # A key inside the file keeps its lines.
            stanza[name] = stanza.get(name, "") + "\n" + line.rstrip()
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            stanza[name] = value.strip()
