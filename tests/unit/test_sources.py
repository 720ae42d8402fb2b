from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_bpfmaps.vm.kernels import apt_sources
from pytest_bpfmaps.vm.kernels.apt_sources import (
    AptSource,
    for_suite,
    of_distribution,
    of_template,
    system_sources,
)

pytestmark = pytest.mark.skipif(not shutil.which("apt-config"), reason="needs apt")

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Returns a function that gives a text to apt as the system's sources, and returns what we read of it."""

    def read(text: str, name: str = "test.sources") -> list[AptSource]:
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / name).write_text(text)
        (tmp_path / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        conf = f'Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "{tmp_path}/parts";'
        conf += f'Dir::State::Lists "{tmp_path}/lists";'
        (tmp_path / "apt.conf").write_text(conf)
        monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
        return system_sources()

    return read


def test_deb822(read) -> None:
    text = f"""\
Types: deb deb-src
# a comment
URIs: http://a.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYS}

Types: deb-src
URIs: http://src.test/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main
"""
    components = ("main", "contrib")
    assert read(text) == [
        AptSource("http://a.test/debian", "bookworm", components, KEYS),
        AptSource("http://a.test/debian", "bookworm-updates", components, KEYS),
    ]


def test_key_in_the_file_is_kept_whole(read) -> None:
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY\n -----END PGP PUBLIC KEY BLOCK-----"
    text = f"Types: deb\nURIs: http://a.test\nSuites: sid\nComponents: main\nSigned-By:{key}\n"
    (source,) = read(text)
    assert source.signed_by == key
    assert source.stanza("amd64").endswith(f"Signed-By: {key}\n\n")


def test_one_line_style(read) -> None:
    text = f"""\
# deb http://comment.test/debian bookworm main
deb http://a.test/debian bookworm main contrib # trailing
deb [arch=amd64 signed-by={KEYS},/other.gpg] http://b.test/debian bookworm-security main
deb [ trusted=yes ] http://c.test/debian sid main
deb-src http://d.test/debian bookworm main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb http://flat.test ./
"""
    assert read(text, "test.list") == [
        AptSource("http://a.test/debian", "bookworm", ("main", "contrib"), None),
        AptSource("http://b.test/debian", "bookworm-security", ("main",), f"{KEYS} /other.gpg"),
        AptSource("http://c.test/debian", "sid", ("main",), None),
    ]


def test_only_files_that_apt_would_read(read) -> None:
    assert read("deb http://a.test/debian bookworm main", "old.list.save") == []


def test_third_parties_are_not_the_distribution(read) -> None:
    sources = read(
        f"""\
Types: deb
URIs: http://vendor.test/apt
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/vendor.gpg

Types: deb
URIs: http://mirror.test/debian
Suites: bookworm
Components: main
Signed-By: {KEYS}

Types: deb
URIs: http://mirror.test/debian
Suites: bookworm
Components: contrib
Signed-By: {KEYS}
"""
    )
    assert of_distribution(sources, "debian") == [
        AptSource("http://mirror.test/debian", "bookworm", ("main",), KEYS)
    ]
    assert of_distribution(sources, "ubuntu") == []


def test_another_suite_of_the_same_mirror() -> None:
    sources = [
        AptSource("http://security.test/", "bookworm-security", ("main",), "/s.gpg"),
        AptSource("http://mirror.test/debian", "bookworm", ("main",), "/m.gpg"),
    ]
    main, more = for_suite(sources, "debian", "trixie")
    assert (main.uri, main.suite, main.components) == ("http://mirror.test/debian", "trixie", ("main",))
    assert main.signed_by is not None
    assert main.signed_by.split()[0] == "/m.gpg"
    assert [(s.uri, s.suite) for s in more] == [
        ("http://mirror.test/debian", "trixie-updates"),
        ("http://security.test/", "trixie-security"),
    ]


@pytest.mark.parametrize("suite", ["sid", "unstable", "experimental", "bookworm-backports"])
def test_suites_without_updates(suite: str) -> None:
    main, more = for_suite([AptSource("http://m.test", "bookworm", ("main",), None)], "debian", suite)
    assert main.suite == suite
    assert more == []


DEBIAN = """\
ChangelogURI: http://changes.test/%s

Suite: {series}
RepositoryType: deb
BaseURI: https://a.test/debian/
Component: main

Suite: {series}-security
BaseURI: https://security.test/

Suite: stable
BaseURI: https://later.test/debian/
"""
UBUNTU = """\
Suite: devel
BaseURI: http://ports.test/ubuntu-ports/
BaseURI-ours: http://a.test/ubuntu

Suite: devel-security
BaseURI: http://ports.test/ubuntu-ports/
BaseURI-ours: http://security.test/ubuntu/
"""


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("Debian.info", DEBIAN, ("https://a.test/debian/", "https://security.test/debian-security")),
        ("ubuntu.info", UBUNTU, ("http://a.test/ubuntu", "http://security.test/ubuntu/")),
    ],
)
def test_another_distribution_is_where_its_template_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, places: tuple[str, str]
) -> None:
    archive, security = places
    keys = tmp_path / "keys.gpg"
    monkeypatch.setattr(apt_sources, "keyring", lambda of: keys)
    distribution = name.removesuffix(".info").lower()
    (tmp_path / name).write_text(text.replace("-ours", f"-{apt_sources.architecture()}"))
    assert of_template(tmp_path, distribution) == []  # its keys are not here
    keys.touch()
    assert of_template(tmp_path / "absent", distribution) == []
    main, more = for_suite(of_template(tmp_path, distribution), distribution, "named")
    assert (main.uri, main.suite, main.components, main.signed_by) == (archive, "named", ("main",), str(keys))
    assert [(s.uri, s.suite) for s in more] == [(archive, "named-updates"), (security, "named-security")]
