"""What is used of pyelftools beyond its public names."""

from __future__ import annotations

from typing import Any


def leave_hash_tables(elf: Any) -> None:
    """Has an `ELFFile` leave the tables of hashes unread: they have 10,000 entries, and nobody here asks."""
    from elftools.elf.sections import Section

    def plain(header: Any, name: str) -> Any:
        return Section(header, name, elf)

    elf._make_gnu_hash_section = elf._make_elf_hash_section = plain
