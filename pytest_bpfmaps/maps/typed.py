"""Gives a map the C types that its loader did not give to the kernel."""

from __future__ import annotations

import os
from dataclasses import replace

from pytest_bpfmaps.compiler import Compiler
from pytest_bpfmaps.errors import MapTypeError
from pytest_bpfmaps.kernel.btf import parse_codecs
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.c_types import compile_types
from pytest_bpfmaps.maps.classes import make_map
from pytest_bpfmaps.maps.info import BUFFERS, map_info
from pytest_bpfmaps.maps.pins import Pins


def typed_map(
    compiler: Compiler, the_map: Map, key: str | None, value: str | None, pins: Pins | None = None
) -> Map:
    """Returns the same map with these C types; see `pytest_bpfmaps.harness.Bpf.typed`."""
    texts = {part: text for part, text in (("key", key), ("value", value)) if text is not None}
    types = compile_types(compiler, texts, str(the_map))
    codecs = parse_codecs(types.btf)
    sizes = {"key": the_map.key_size, "value": the_map.value_size}
    for part, text in texts.items():
        given = codecs.get(types.ids[part]).size
        if given != sizes[part] and not (part == "value" and the_map.type in BUFFERS):
            raise MapTypeError(
                f"cannot read the {part}s of",
                on=str(the_map),
                why=f"{text!r} has {given} bytes, but a {part} of the map has {sizes[part]}",
                fix=f"give a C type of {sizes[part]} bytes",
            )
    fd = os.dup(the_map.fd)
    try:
        key_id, value_id = (types.ids.get(part, 0) for part in ("key", "value"))
        info = replace(map_info(fd), btf_key_type_id=key_id, btf_value_type_id=value_id)
        return make_map(fd, info, codecs, name=the_map.name, pins=pins)
    except BaseException:
        os.close(fd)
        raise
