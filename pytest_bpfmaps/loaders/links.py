"""Where the programs of another process are attached: by links, by perf events, or without a descriptor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_bpfmaps.attach.link_types import AttachType, LinkType, attach_type_name
from pytest_bpfmaps.attach.links import LinkInfo
from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.kernel.attached_programs import AttachedProgram, cgroup_folders
from pytest_bpfmaps.kernel.attached_to_maps import functions_of_struct
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.btf import kernel_btf_name, load_codecs, vmlinux_codecs
from pytest_bpfmaps.kernel.held_objects import PerfTarget
from pytest_bpfmaps.kernel.program_info import ProgramInfo, program_info
from pytest_bpfmaps.kernel.tracefs import tracefs
from pytest_bpfmaps.loaders.programs import full_name

_TRACING = {
    "trace_fentry": "fentry",
    "trace_fexit": "fexit",
    "trace_raw_tp": "tp_btf",
    "trace_iter": "iter",
    "modify_return": "fmod_ret",
    "lsm_mac": "lsm",
}
_PREFIXES = ("btf_trace_", "bpf_lsm_", "bpf_iter_")
_FAMILIES = {2: "ipv4", 10: "ipv6"}
_HOOKS = ("prerouting", "local_in", "forward", "local_out", "postrouting")
_PLACES: dict[int, str] = {
    **dict.fromkeys((LinkType.XDP, LinkType.TCX, LinkType.NETKIT), "ifindex"),
    LinkType.CGROUP: "cgroup_id",
    LinkType.NETNS: "netns_inode",
    LinkType.SOCKMAP: "map_id",
}
UNTOLD = "the kernel does not tell"
"""The target of a link of which the kernel tells none."""


@dataclass(frozen=True, slots=True)
class AgentLink:
    """A program at a target.

    - `program` is the program's name, and `program_id` its id.
    - `type` is the kernel's type of link, ``perf_event``, ``tcx`` …, also for an attachment without a link:
      ``tc``, ``xdp``, ``cgroup``, ``perf_event``, ``struct_ops``.
    - `target` is where: ``tracepoint/sched/sched_process_exec``, ``kprobe/do_unlinkat``,
      ``fentry/do_unlinkat``, ``veth0 ingress``, ``veth0``, the path of a cgroup …
    - `attach_type` is the kernel's, where it has one: ``cgroup_inet_ingress``.
    - `id` is the link's id; None for an attachment without a link. `pins` are the paths where it is pinned.

    It equals a tuple ``(program, target)`` or ``(program, type, target)``.
    """

    program: str
    type: str
    target: str
    program_id: int = 0
    attach_type: str | None = None
    id: int | None = None
    pins: tuple[str, ...] = field(default=())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple):
            return other in ((self.program, self.target), (self.program, self.type, self.target))
        return isinstance(other, AgentLink) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self.program_id, self.type, self.target))

    def _key(self) -> tuple[object, ...]:
        return self.program_id, self.type, self.target, self.id

    def __str__(self) -> str:
        return f"{self.program} at {self.target} ({self.type})"


class AgentLinks(list[AgentLink]):
    """The links of a process. It equals a list of links or tuples in any order."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | tuple):
            return NotImplemented
        left = list(other)
        for each in self:
            if each not in left:
                return False
            left.remove(each)
        return not left

    def __ne__(self, other: object) -> bool:
        return not self == other


def describe_links(
    links: Iterable[LinkInfo],
    perf: Iterable[PerfTarget],
    attached: Iterable[AttachedProgram],
    programs: Mapping[int, ProgramInfo],
    pins: Mapping[int, tuple[str, ...]],
) -> AgentLinks:
    """Returns where `programs` are attached. Their keys are ids, and the keys of `pins` are ids of links."""
    names = {number: full_name(info) for number, info in programs.items()}
    events = list(dict.fromkeys(each for each in perf if each.program_id in names))
    places = [each for each in attached if each.program_id in names]
    found = AgentLinks()
    for info in links:
        target, used = _target_of(info, events, places)
        program = programs.get(info.program_id)
        if program is not None and info.type == LinkType.TRACING:
            target = _tracing(info.target, program)
        elif program is not None and program.type == ProgramType.TRACING:  # SEC("tp_btf")
            target = target.replace("raw_tracepoint/", "tp_btf/")
        for each in used:
            (events if isinstance(each, PerfTarget) else places).remove(each)  # type: ignore[arg-type]
        type, attach_type = str(info.type), info.target.get("attach_type")
        if program is not None and program.type == ProgramType.EXT:
            attach_type = None  # the kernel has number 0 there, which is cgroup_inet_ingress
        for number in _programs_of(info):
            name = names.get(number) or f"program id {number}"
            found.append(AgentLink(name, type, target, number, attach_type, info.id, pins.get(info.id, ())))
    found += [AgentLink(names[e.program_id], "perf_event", _perf_text(e), e.program_id) for e in events]
    for place in places:
        attach_type = attach_type_name(place.attach_type) if place.attach_type >= 0 else None
        found.append(
            AgentLink(names[place.program_id], place.type, place.target, place.program_id, attach_type)
        )
    return found


def _programs_of(info: LinkInfo) -> list[int]:
    """Returns the programs of a link: of a struct's link, each of its functions."""
    functions = functions_of_struct(info.target["map_id"]) if info.type == LinkType.STRUCT_OPS else []
    return functions or [info.program_id]


def _target_of(
    info: LinkInfo, events: list[PerfTarget], places: list[AttachedProgram]
) -> tuple[str, list[PerfTarget | AttachedProgram]]:
    """Returns a link's target, and the events and places that are this link's own."""
    target = info.target
    own = [each for each in events if each.program_id == info.program_id]
    if info.type == LinkType.PERF_EVENT:
        if not target:  # before Linux 6.6 only the perf event tells
            return (_perf_text(own[0]), [own[0]]) if own else (UNTOLD, [])
        text = _perf_of_link(target)
        return text, [*[each for each in own if _perf_text(each) == text][:1]]
    at = next((p for p in places if p.program_id == info.program_id and _is_place(p, info)), None)
    if at is not None:
        return at.target, [at]
    text = _TEXTS[info.type](target) if info.type in _TEXTS else ""
    return text or UNTOLD, []


def _is_place(place: AttachedProgram, info: LinkInfo) -> bool:
    key = _PLACES.get(info.type)
    if key is None or place.type != str(info.type) or place.place != info.target.get(key):
        return False
    return info.type == LinkType.XDP or attach_type_name(place.attach_type) == info.target["attach_type"]


def _perf_of_link(target: Mapping[str, Any]) -> str:
    if target["event"] == "event":
        return f"perf_event type {target['type']} config {target['config']}"
    name = target.get("tracepoint") or target.get("function") or target.get("path", "")
    return _perf_text(PerfTarget(0, target["event"], name, target.get("offset", 0)))


def _perf_text(event: PerfTarget) -> str:
    if event.kind == "tracepoint":
        return f"tracepoint/{tracepoint_path(event.name)}"
    if event.kind == "raw_tracepoint":
        return f"raw_tracepoint/{event.name}"
    offset = f"+{event.offset:#x}" if event.offset or event.kind.startswith("u") else ""
    return f"{event.kind}/{event.name}{offset}"


def tracepoint_path(name: str) -> str:
    """Returns ``sched/sched_process_exec`` for the name of an event; the name, if tracefs does not tell."""
    root = tracefs()
    if root is None:
        return name
    groups = [group.name for group in (root / "events").iterdir() if (group / name).is_dir()]
    return f"{groups[0]}/{name}" if len(groups) == 1 else name


def _tracing(target: Mapping[str, Any], program: ProgramInfo) -> str:
    """Returns ``fentry/do_unlinkat``, or ``freplace/function of program``.

    The link tells the function since Linux 5.13, the program since 6.1.
    """
    kind = _TRACING.get(target["attach_type"], target["attach_type"])
    if program.type == ProgramType.EXT:
        replaced = program_info(target["object_id"])
        if replaced is None or not replaced.btf_id:
            return f"freplace/ ({UNTOLD} which function)"
        function = load_codecs(replaced.btf_id).btf.type(target["type_id"]).name
        return f"freplace/{function} of {full_name(replaced)}"
    object_id = program.attach_btf or target["object_id"]
    type_id = program.attach_type_id or target["type_id"]
    if not type_id:
        return f"{kind}/ ({UNTOLD} which function)"
    try:
        if kernel_btf_name(object_id) == "vmlinux":
            name = vmlinux_codecs().btf.type(type_id).name
        elif kernel_btf_name(object_id):
            return f"{kind}/type {type_id} of module {kernel_btf_name(object_id)}"
        else:
            name = load_codecs(object_id).btf.type(type_id).name
    except MapError:
        return f"{kind}/type {type_id} of BTF id {object_id}"
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return f"{kind}/{name}"


def _cgroup(target: Mapping[str, Any]) -> str:
    wanted = target["cgroup_id"]
    return next((path for path, inode in cgroup_folders() if inode == wanted), f"cgroup id {wanted}")


def _netfilter(target: Mapping[str, Any]) -> str:
    hook = target["hook"]
    name = _HOOKS[hook] if hook < len(_HOOKS) else f"hook {hook}"
    family = _FAMILIES.get(target["family"], f"family {target['family']}")
    return f"{family} {name} priority {target['priority']}"


def _interface(target: Mapping[str, Any]) -> str:
    type = target.get("attach_type", "")
    where = " ingress" if type == str(AttachType.TCX_INGRESS) else " egress" if "egress" in type else ""
    return f"ifindex {target['ifindex']}{where}" if target["ifindex"] else "an interface that is gone"


_TEXTS: dict[int, Any] = {
    LinkType.RAW_TRACEPOINT: lambda t: f"raw_tracepoint/{t['tracepoint']}" if t.get("tracepoint") else "",
    LinkType.CGROUP: _cgroup,
    LinkType.ITER: lambda t: f"iter/{t['iterator']}" if t.get("iterator") else "",
    LinkType.NETNS: lambda t: f"net:[{t['netns_inode']}]",
    LinkType.XDP: _interface,
    LinkType.TCX: _interface,
    LinkType.NETKIT: _interface,
    # older kernels tell no number, which is then 0
    LinkType.KPROBE_MULTI: lambda t: f"kprobe.multi/ {t['count']} functions" if t["count"] else "",
    LinkType.UPROBE_MULTI: lambda t: f"uprobe.multi/{t['path']} {t['count']} places" if t["count"] else "",
    LinkType.STRUCT_OPS: lambda t: f"struct_ops map id {t['map_id']}",
    LinkType.SOCKMAP: lambda t: f"map id {t['map_id']}",
    LinkType.NETFILTER: _netfilter,
}
