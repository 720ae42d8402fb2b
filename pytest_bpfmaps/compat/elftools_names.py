"""The private names of pyelftools that are used."""

from __future__ import annotations

from typing import Any

_MOST_UNPACKED = 1 << 28  # bytes


def leave_hash_tables(elf: Any) -> None:
    """Makes an `ELFFile` skip its hash tables: they may have 10,000 entries, and this package needs none."""
    from elftools.elf.sections import Section

    def plain(header: Any, name: str) -> Any:
        return Section(header, name, elf)

    elf._make_gnu_hash_section = elf._make_elf_hash_section = plain


def limit_sections(elf: Any) -> None:
    """Makes an `ELFFile` refuse a section beyond the end of the file, or one that unpacks to a large size.

    pyelftools reads as many bytes as a section announces. For a section without bytes in the file, such as
    .bss, it would make zeros. This package does not read them, so such a section counts as empty. The
    `ELFFile` raises ValueError when it makes a section that is refused.
    """
    size, make = elf.stream.seek(0, 2), elf._make_section

    def limited(header: Any) -> Any:
        if header["sh_type"] == "SHT_NOBITS":
            header["sh_size"] = 0
        elif header["sh_offset"] + header["sh_size"] > size:
            raise ValueError("a section goes beyond the end of the file")
        section = make(header)
        if section.data_size > _MOST_UNPACKED and section.compressed:
            raise ValueError(f"a compressed section announces {section.data_size} bytes")
        return section

    elf._make_section = limited
