"""The plugin that is built for QEMU, which loads it: what is not as it was built is built again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache.stored_files import read_json, write_json
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.executed.plugin import plugin_for
from pytest_bpfmaps.vm.machine.qemu import find_qemu


def cut(plugin: Path) -> None:
    plugin.write_bytes(plugin.read_bytes()[:100])


def flip(plugin: Path) -> None:
    content = bytearray(plugin.read_bytes())
    content[len(content) // 2] ^= 1
    plugin.write_bytes(content)


def let_others_write(plugin: Path) -> None:
    plugin.chmod(0o666)


def name_another(plugin: Path) -> None:
    """Another file, outside of the folder, in place of it."""
    other = plugin.parent.parent / "other.so"
    plugin.rename(other)
    memory = plugin.parent / "known.json"
    write_json(
        memory, {key: str(kept).replace(plugin.name, str(other)) for key, kept in read_json(memory).items()}
    )


@pytest.mark.parametrize("damage", [cut, flip, let_others_write, name_another])
def test_a_damaged_plugin_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    qemu = find_qemu("x86_64")
    try:
        plugin = plugin_for(qemu, None)
    except VmError as error:
        pytest.skip(f"this QEMU or clang makes no plugins: {error}")
    whole = plugin.read_bytes()
    assert plugin_for(qemu, None) == plugin
    damage(plugin)
    again = plugin_for(qemu, None)
    assert again.read_bytes() == whole
    assert again.parent == paths.cache_dir() / "plugins"
    assert again.stat().st_mode & 0o022 == 0
