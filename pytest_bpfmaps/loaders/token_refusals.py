"""Explains what the kernel refused to an agent with a BPF token: what the token does not delegate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.bpf_types import COMMANDS, MapType, ProgramType
from pytest_bpfmaps.kernel.delegation import Delegation, what_is
from pytest_bpfmaps.kernel.privileges import ALL_CAPABILITIES
from pytest_bpfmaps.libbpf import lib, to_str, version
from pytest_bpfmaps.loaders.embedded_objects import NeededMap, NeededProgram, needed_by
from pytest_bpfmaps.loaders.rejections import Refusal

_FIRST_LIBBPF = (1, 5)
_REFUSED = re.compile(r"[Oo]peration not permitted|\bEPERM\b")
_NO_MAP = "is not pointing to valid bpf_map"  # libbpf has left out the map of a data section
_NO_TOKEN = "Couldn't load trivial BPF program"  # libbpf tries that only without a token
_OUTSIDE = (
    "a token is for maps, programs and BTF; perf_event_open(2), netlink, iterators and the ids of other "
    "objects need capabilities outside of the user namespace"
)


def refused_to_token(text: str, refusal: Refusal | None) -> bool:
    """Returns whether a loader with a token wrote that the kernel refused something that the token may lack.

    `refusal` is the verifier's or libbpf's, if there is one.
    """
    return _NO_MAP in text or (_REFUSED.search(text) is not None and not (refusal and refusal.log))


def explain_token_refusal(
    token: Delegation, capabilities: int | None, files: Iterable[Path], text: str
) -> Refusal | None:
    """Explains why the kernel refused something to an agent with a token.

    `capabilities` are those that it had in its user namespace. `files` are its binary and its arguments, and
    `text` is what it wrote. Returns None if it lacked CAP_NET_ADMIN or CAP_PERFMON, which may be the cause.
    """
    files = list(files)
    had = _names(capabilities)
    if "BPF" not in had and "SYS_ADMIN" not in had:
        why = "it had no CAP_BPF in its user namespace, without which the kernel makes no token"
        return _refusal(why, "add BPF to caps=")
    if _NO_TOKEN in text or any(map(_has_old_libbpf, files)):
        fix = "libbpf 1.5 makes a token of $LIBBPF_BPF_TOKEN_PATH: link the agent with that"
        return _refusal("it made no token, because its libbpf is older than 1.5", fix)
    missing = list(_missing(token, files, "libbpf: " in text))
    if missing:
        return _name_missing(missing)
    if not {"SYS_ADMIN", "NET_ADMIN"} & had or not {"SYS_ADMIN", "PERFMON"} & had:
        return None
    why = f"the kernel refused something, and the token has {token}"
    return _refusal(why, f"delegate more in token=, if that is what it lacks: {_OUTSIDE}")


def _refusal(why: str, fix: str) -> Refusal:
    return Refusal(Explanation(why, fix), "", "")


def _names(capabilities: int | None) -> set[str]:
    bits = -1 if capabilities is None else capabilities  # all, if it ended before they were read
    return {name for number, name in enumerate(ALL_CAPABILITIES) if bits >> number & 1}


def _name_missing(missing: list[tuple[str, str, str]]) -> Refusal:
    users: dict[tuple[str, str], list[str]] = {}
    for option, name, user in missing:
        users.setdefault((option, name), []).append(user)
    listed = "; ".join(f"no {what_is(o)} {name} (for {', '.join(of)})" for (o, name), of in users.items())
    by_option: dict[str, list[str]] = {}
    for option, name in users:
        by_option.setdefault(option, []).append(name)
    add = "; ".join(f"add {', '.join(names)} to {option}" for option, names in by_option.items())
    return _refusal(f"the token delegates {listed}", f"{add} in token=")


def _missing(token: Delegation, files: Iterable[Path], is_libbpf: bool) -> Iterator[tuple[str, str, str]]:
    """Yields a mount option, the kernel's name that it lacks, and for what that is needed."""
    needed = [*needed_by(files)]
    programs = [each for each in needed if isinstance(each, NeededProgram)]
    maps = [each for each in needed if isinstance(each, NeededMap)]
    for command, users in (("prog_load", programs), ("map_create", maps)):
        if users and not token.has("delegate_cmds", COMMANDS.index(command)):
            yield "delegate_cmds", command, "its programs" if users is programs else "its maps"
    if is_libbpf and any(each.is_data for each in maps):
        programs.append(NeededProgram("", "socket", ProgramType.SOCKET_FILTER, 0))
    for program in programs:
        user = f"program {program.name!r}" if program.name else "libbpf's trial of data sections"
        if not token.has("delegate_progs", program.type):
            yield "delegate_progs", str(ProgramType.from_number(program.type)), user
        if not token.has("delegate_attachs", program.attach_type):
            yield "delegate_attachs", _attach_type(program.attach_type), user + _zero(program)
    for each in maps:
        if not token.has("delegate_maps", each.type):
            yield "delegate_maps", str(MapType.from_number(each.type)), f"map {each.name!r}"


def _attach_type(number: int) -> str:
    return to_str(lib.libbpf_bpf_attach_type_str(number)) or str(number)


def _zero(program: NeededProgram) -> str:
    return "" if program.attach_type or program.type == ProgramType.CGROUP_SKB else ", whose attach type is 0"


def _has_old_libbpf(path: Path) -> bool:
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError:
        return False
    if b"libbpf.so.1\0" in data:
        return version() < _FIRST_LIBBPF
    return b"\0libbpf: " in data and b"LIBBPF_BPF_TOKEN_PATH" not in data
