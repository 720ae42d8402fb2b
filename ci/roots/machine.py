"""What a root needs of this machine to reach the network: names, certificates, pip's settings."""

from __future__ import annotations

import configparser
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

CERTIFICATES = Path("/usr/local/share/ca-certificates")
_PIP_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
_VARIABLES = re.compile(
    r"PIP_\w+|(https?|ftp|all|no)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE", re.IGNORECASE
)
_LEFT_OUT = {"PIP_CACHE_DIR", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_PYTHON", "PIP_REQUIRE_VIRTUALENV"}
_BUNDLE = "/etc/ssl/certs"  # the root makes its own of the same certificates


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of `environment` that say how to reach the network and pip's packages."""
    return {
        name: value
        for name, value in environment.items()
        if _VARIABLES.fullmatch(name) and name.upper() not in _LEFT_OUT
    }


def pip_files(home: str) -> list[Path]:
    """Returns pip's configuration files that exist on this machine."""
    named = os.environ.get("PIP_CONFIG_FILE")
    paths = [Path(name.replace("~", home)) for name in _PIP_FILES] + ([Path(named)] if named else [])
    return [path for path in paths if path.is_file()]


def local_paths(values: Iterable[str]) -> list[Path]:
    """Returns the files and folders here that pip's settings name, as paths or ``file:`` addresses."""
    words = [word.removeprefix("file://") for value in values for word in value.split()]
    paths = [Path(word) for word in words if word.startswith("/") and not word.startswith(_BUNDLE)]
    # The pages of a package index name files that lie beside it.
    paths = [path.parent if path.name == "simple" else path for path in paths]
    return sorted({path for path in paths if path.exists()})


def pip_values(files: Iterable[Path]) -> list[str]:
    """Returns every value in pip's configuration files."""
    values: list[str] = []
    for file in files:
        parser = configparser.RawConfigParser()
        parser.read(file)
        values += [value for section in parser.sections() for _, value in parser.items(section)]
    return values


def copy_settings(root: Path) -> None:
    """Copies names, certificates and pip's configuration files into the root at `root`."""
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        _copy(Path(name), root, name)
    home = str(Path.home())
    for file in pip_files(home):
        _copy(file, root, str(file).replace(home, "/root", 1))
    if CERTIFICATES.is_dir():
        shutil.copytree(CERTIFICATES, root / CERTIFICATES.relative_to("/"), dirs_exist_ok=True)


def bound_paths() -> list[str]:
    """Returns what `enter` binds, read-only, so that pip finds what its settings name."""
    values = [*pip_values(pip_files(str(Path.home()))), *variables(os.environ).values()]
    return [f"{path}:{path}:ro" for path in local_paths(values)]


def _copy(file: Path, root: Path, name: str) -> None:
    target = root / name.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # the root may have a link there, which would lead out of it
    shutil.copyfile(file, target)
