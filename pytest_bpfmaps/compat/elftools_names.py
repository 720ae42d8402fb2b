"""What is used of pyelftools beyond its public names."""

from __future__ import annotations

from typing import Any

_MOST_UNPACKED = 1 << 28  # bytes


def leave_hash_tables(elf: Any) -> None:
    """Has an `ELFFile` leave the tables of hashes unread: they have 10,000 entries, and nobody here asks."""
    from elftools.elf.sections import Section

    def plain(header: Any, name: str) -> Any:
        return Section(header, name, elf)

    elf._make_gnu_hash_section = elf._make_elf_hash_section = plain


def limit_sections(elf: Any) -> None:
    """Has an `ELFFile` refuse a section that the file does not have, or that is packed and gets very large.

    pyelftools reads as many bytes as a section announces. Of one without bytes, as .bss, it makes zeros,
    which nobody here reads: it is empty. Raises ValueError when the section is made.
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
