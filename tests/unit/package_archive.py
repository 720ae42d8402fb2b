"""Makes a small signed Debian archive in a folder, which apt takes for the system's mirror."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_files import package_files, write


class Keys:
    """A key that signs, and the keyring that verifies it."""

    def __init__(self, home: Path) -> None:
        home.chmod(0o700)
        self.home = home
        self.keyring = home / "debian-archive-test.gpg"
        self.gpg("--passphrase", "", "--quick-gen-key", "test@archive", "ed25519", "sign", "never")
        self.gpg("--output", str(self.keyring), "--export", "test@archive")

    def gpg(self, *arguments: str) -> None:
        command = ["gpg", "--batch", "--yes", "--homedir", str(self.home), "--pinentry-mode", "loopback"]
        subprocess.run([*command, *arguments], check=True, capture_output=True)

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=True)


class Archive:
    """A Debian archive in a folder, and an apt.conf that makes it the system's mirror."""

    def __init__(self, root: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._keys, self._monkeypatch = root, keys, monkeypatch
        (root / "pool").mkdir(parents=True)
        (root / "system/lists/partial").mkdir(parents=True)
        self.settings = root / "system/apt.conf.d"
        self.settings.mkdir()

    def suite(
        self,
        name: str,
        packages: list[Path],
        *,
        origin: str = "Debian",
        sign: bool = True,
        component: str = "main",
        valid_until: str | None = None,
    ) -> None:
        """Publishes `packages` as the suite `name`."""
        dist = self.root / "dists" / name
        index = "\n".join(map(self._stanza, packages)).encode()
        entry = ""
        for suffix, data in {"": index, ".gz": gzip.compress(index)}.items():
            path = f"{component}/binary-amd64/Packages{suffix}"
            write(dist, {path: data})
            entry += f"\n {hashlib.sha256(data).hexdigest()} {len(data)} {path}"
        fields = {"Origin": origin, "Codename": name, "Date": "Thu, 01 Jan 2026 00:00:00 UTC"}
        fields |= {"Valid-Until": valid_until} if valid_until else {}
        fields |= {"Architectures": "amd64", "Components": component, "SHA256": entry}
        (dist / "Release").write_text(
            "".join(f"{k}: {v}\n".replace(": \n", ":\n") for k, v in fields.items())
        )
        if sign:
            self._keys.gpg("--clearsign", "--output", str(dist / "InRelease"), str(dist / "Release"))

    def _stanza(self, package: Path) -> str:
        target = self.root / "pool" / package.name
        shutil.copyfile(package, target)
        control = subprocess.run(["dpkg-deb", "-f", str(package)], check=True, capture_output=True, text=True)
        facts = {"Filename": f"pool/{target.name}", "Size": target.stat().st_size}
        facts["SHA256"] = hashlib.sha256(target.read_bytes()).hexdigest()
        return control.stdout + "".join(f"{k}: {v}\n" for k, v in facts.items())

    def use(self, *, uri: str | None = None, keyring: Path | None = None, suites: str = "bookworm") -> None:
        """Makes the archive the mirror in the system's sources."""
        fields = {"Types": "deb", "URIs": uri or f"file:{self.root}", "Suites": suites, "Components": "main"}
        fields["Signed-By"] = str(keyring or self._keys.keyring)
        sources = self.root / "system/debian.sources"
        sources.write_text("".join(f"{k}: {v}\n" for k, v in fields.items()))
        conf = f'Dir::Etc::SourceList "{sources}"; Dir::Etc::SourceParts "/dev/null";'
        conf += f'Dir::State::Lists "{sources.parent}/lists"; Acquire::Retries "0";'
        conf += f'Dir::Etc::Parts "{self.settings}";'
        (self.root / "system/apt.conf").write_text(conf)
        self._monkeypatch.setenv("APT_CONFIG", str(self.root / "system/apt.conf"))


def kernel_packages(make: Callable[..., Path], release: str, version: str) -> list[Path]:
    """Returns a metapackage and the package that it leads to, as Debian <= 13 has them."""
    image = make(f"linux-image-{release}", version, package_files(release), "kmod, initramfs-tools")
    return [image, make("linux-image-amd64", version, {}, f"linux-image-{release} (= {version})")]
