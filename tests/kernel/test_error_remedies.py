"""Tests remedies of docs/errors: each test makes the error, does what the entry says, and that works.

tests/kernel/test_remedies.py and test_advice_* test
what the messages themselves say.
"""

import pytest

from pytest_bpfmaps import BpfError
from pytest_bpfmaps.manual.pages import entries

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
CODE = (
    HEAD
    + """
struct event { __u32 size; __u32 count; };
const volatile __u32 limit = 100;
__u32 seen, *unused;
struct event *keeps_the_type;
struct cell { __u32 n; char text[4]; __u32 few[2]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4);
         __type(key, __u32); __type(value, struct cell); } cells SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u64); } hash SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 4); __type(value, __u32); } queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4);
         __uint(key_size, 4); __uint(value_size, 4); } programs SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
SEC("xdp") int push(struct xdp_md *ctx)
{
    __u32 size = ctx->data_end - ctx->data;
    struct event event = {.size = size, .count = 1};

    bpf_map_push_elem(&queue, &size, 0);
    bpf_ringbuf_output(&events, &event, size < 100 ? 4 : sizeof(event), 0);
    seen = size;
    return size > limit ? XDP_DROP : XDP_PASS;
}
"""
)
# Entries hold on each kernel. The running one is enough, and quicker than a guest.
pytestmark = [pytest.mark.bpf_requires("xdp", "ringbuf", "queue"), pytest.mark.bpf_kernels("host")]


@pytest.fixture
def obj(bpf):
    return bpf.load(code=CODE)


def push(obj, size=64):
    return obj.programs.push.run(bytes(size)).retval


def captured(obj, size, check, type="event", tag=None):
    with obj.maps.events.capture(type, tag=tag) as events:
        push(obj, size)
        events.wait(count=1)
        check(events)


def change_list(obj, *, written):
    obj.maps.cells[1] = {"few": [1, 2]}
    few = list(obj.maps.cells[1].few) if written else obj.maps.cells[1].few
    few[0] = 5
    obj.maps.cells[1] = {"few": few}
    assert obj.maps.cells[1].few == [5, 2]


def closed(obj):
    obj.maps.hash[1] = 2
    taken = obj.maps.hash.snapshot()
    obj.close()
    return taken


# the address of the entry, words of its remedy, the mistake, and the corrected code
OBJECT = [
    ("no-such-key", "`m.get(key)` returns None", lambda o: o.maps.hash[1], lambda o: o.maps.hash.get(1)),
    (
        "map-is-empty",
        "`bpf.wait_until(lambda: bool(m))`",
        lambda o: o.maps.queue.pop(),
        lambda o: (push(o), o.bpf.wait_until(lambda: bool(o.maps.queue)), o.maps.queue.pop()),
    ),
    (
        "map-operation-refused",
        "write before `freeze()`",
        lambda o: (o.maps.hash.freeze(), o.maps.hash.update_elem(1, 2)),
        lambda o: (o.maps.hash.update_elem(1, 2), o.maps.hash.freeze()),
    ),
    (
        "constant-variable",
        'bpf.load(…, globals={"name": 5})',
        lambda o: setattr(o.globals, "limit", 5),
        lambda o: o.bpf.load(code=CODE, globals={"limit": 5}),
    ),
    (
        "constant-variable",
        "leave out `const`",
        lambda o: setattr(o.globals, "limit", 5),
        lambda o: setattr(o.globals, "seen", 5),
    ),
    (
        "wrong-type",
        "give the type that the message names",
        lambda o: o.maps.hash.update_elem("1", 2),
        lambda o: o.maps.hash.update_elem(1, 2),
    ),
    (
        "wrong-type",
        "give a mapping",
        lambda o: o.maps.cells.update_elem(1, (1, "a", [1, 2], 3)),
        lambda o: o.maps.cells.update_elem(1, {"n": 1, "text": "a", "few": [1, 2]}),
    ),
    (
        "wrong-type",
        "give the object",
        lambda o: o.maps.programs.update_elem(0, "push"),
        lambda o: o.maps.programs.update_elem(0, o.programs.push),
    ),
    (
        "wrong-type",
        "or its file descriptor",
        lambda o: o.maps.programs.update_elem(0, "push"),
        lambda o: o.maps.programs.update_elem(0, o.programs.push.fd),
    ),
    (
        "wrong-type",
        "change a list, and write the list",
        lambda o: change_list(o, written=False),
        lambda o: change_list(o, written=True),
    ),
    (
        "wrong-value",
        "shorten the value",
        lambda o: o.maps.cells.update_elem(1, {"text": "too long"}),
        lambda o: o.maps.cells.update_elem(1, {"text": "fits"}),
    ),
    (
        "wrong-value",
        "give as many as the message says",
        lambda o: o.maps.cells.update_elem(1, {"few": [1, 2, 3]}),
        lambda o: o.maps.cells.update_elem(1, {"few": [1, 2]}),
    ),
    (
        "wrong-value",
        "The message has the closest names",
        lambda o: o.maps.cells.update_elem(1, {"txt": "a"}),
        lambda o: o.maps.cells.update_elem(1, {"text": "a"}),
    ),
    (
        "number-out-of-range",
        "or give a positive number",
        lambda o: o.maps.hash.update_elem(1, -1),
        lambda o: o.maps.hash.update_elem(1, 1),
    ),
    (
        "no-value",
        "read the fields that were sent",
        lambda o: captured(o, 64, lambda events: events[0].count),
        lambda o: captured(o, 64, lambda events: events[0].size),
    ),
    (
        "no-such-name",
        "write one of the names",
        lambda o: o.maps.hsh,
        lambda o: o.maps.hash,
    ),
    (
        "ambiguous-name",
        'expect({"count": 3})',
        lambda o: captured(o, 200, lambda events: events.expect(count=1)),
        lambda o: captured(o, 200, lambda events: events.expect({"count": 1})),
    ),
    (
        "used-after-close",
        "m.snapshot()",
        lambda o: (o.close(), o.maps.hash[1]),
        lambda o: closed(o)[1],
    ),
    (
        "pins",
        "pins in a folder of the test's own",
        lambda o: o.maps.hash.pin("/tmp/no-bpf-file-system"),
        lambda o: o.maps.hash.pin("name"),
    ),
    (
        "pins",
        "or pin under another name",
        lambda o: (o.maps.hash.pin("name"), o.maps.cells.pin("name")),
        lambda o: o.maps.cells.pin("other"),
    ),
    (
        "wrong-record",
        'capture({0: "open_event", 1: "exit_event"}, tag="kind")',
        lambda o: captured(o, 200, lambda events: events[0].count, type={100: "event"}, tag="size"),
        lambda o: captured(o, 200, lambda events: events[0].count, type={200: "event"}, tag="size"),
    ),
    (
        "cannot-run",
        "an Ethernet frame needs 14 bytes",
        lambda o: o.programs.push.run(bytes(4)),
        lambda o: o.programs.push.run(bytes(14)),
    ),
    (
        "cannot-reuse-map",
        "make the live map",
        lambda o: reuse(o, value="u32"),
        lambda o: reuse(o, value="u64"),
    ),
    (
        "cannot-create-map",
        "the message names the attribute",
        lambda o: o.bpf.create_map("hash", key="u32", value="u64", max_entries=0),
        lambda o: o.bpf.create_map("hash", key="u32", value="u64", max_entries=1),
    ),
    (
        "cannot-create-map",
        "leave the flag out",
        lambda o: o.bpf.create_map("hash", key="u32", value="u64", max_entries=1, flags=1 << 10),
        lambda o: o.bpf.create_map("hash", key="u32", value="u64", max_entries=1),
    ),
    (
        "cannot-create-map",
        '`"u32"`, `"struct { u32 a; u64 b; }"`, or a size in bytes',
        lambda o: o.bpf.create_map("hash", key="unsigned", value="u65", max_entries=1),
        lambda o: o.bpf.create_map("hash", key=4, value="struct { u32 a; u64 b; }", max_entries=1),
    ),
]


def reuse(obj, value):
    made = obj.bpf.create_map("hash", key="u32", value=value, max_entries=8)
    return obj.bpf.load(code=CODE, reuse={"hash": made})


class WithBpf:
    """An object, and the fixture that has loaded it."""

    def __init__(self, bpf):
        self.bpf = bpf
        self._made = bpf.load(code=CODE)

    def __getattr__(self, name):
        return getattr(self._made, name)


CHECKED = "if ((void *)(long)ctx->data + 1 > (void *)(long)ctx->data_end) return 0; return"
UNCHECKED = """
SEC("xdp") int first(struct xdp_md *ctx) { return *(char *)(long)ctx->data; }
"""
NO_SIZE = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u64); } hash SEC(".maps");
SEC("xdp") int p(struct xdp_md *ctx) { return bpf_map_lookup_elem(&hash, &(__u32){0}) ? 1 : 2; }
"""
ONE = 'struct event { int a; };\nSEC("xdp") int one(struct xdp_md *ctx) { return XDP_PASS; }\n'
MACRO = '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n'
TC = MACRO + 'SEC("tc") int classify(struct __sk_buff *skb) { return TC_ACT_SHOT; }\n'
SHARED = "int shared(void) { return 2; }\n"
CALLS = 'SEC("xdp") int one(struct xdp_md *ctx) { return shared(); }\n'
PINNED = NO_SIZE.replace(
    "__type(key", "__uint(max_entries, MAX); __uint(pinning, LIBBPF_PIN_BY_NAME); __type(key"
)


def object_of(bpf, text, tmp_path):
    """Writes an object file with that content."""
    (tmp_path / "made.bpf.o").write_bytes(text)
    return bpf.load(tmp_path / "made.bpf.o")


def pinned_twice(bpf, pin_root):
    """Loads a map that is pinned by name in two sizes."""
    pin_root.mkdir(exist_ok=True)
    bpf.load(code=HEAD + PINNED, defines={"MAX": 1})
    bpf.load(code=HEAD + PINNED, defines={"MAX": 2}, pin_root=pin_root)


def linked(bpf, folder, *sources):
    for number, text in enumerate(sources):
        (folder / f"s{number}.bpf.c").write_text(HEAD.replace("char LICENSE", "static char LICENSE") + text)
    return bpf.load([folder / f"s{number}.bpf.c" for number in range(len(sources))])


# the same for functions that get `bpf` and a folder
FIXTURE = [
    (
        "cannot-open-object",
        "compile it again",
        lambda b, folder: object_of(b, b"no object", folder),
        lambda b, folder: object_of(b, b.compile(code=HEAD + ONE).read_bytes(), folder),
    ),
    (
        "cannot-load",
        'max_entries={"name": 1024}',
        lambda b, _: b.load(code=HEAD + NO_SIZE),
        lambda b, _: b.load(code=HEAD + NO_SIZE, max_entries={"hash": 1024}),
    ),
    (
        "cannot-load",
        "load with a `pin_root` of its own",
        lambda b, _: pinned_twice(b, b.pin_root),
        lambda b, _: pinned_twice(b, b.pin_root / "own"),
    ),
    (
        "verifier-rejected",
        "compare with `data_end` before each access",
        lambda b, _: b.load(code=HEAD + UNCHECKED),
        lambda b, _: b.load(code=HEAD + UNCHECKED.replace("return", CHECKED)),
    ),
    (
        "verifier-accepted",
        "expect that it loads",
        lambda b, _: b.rejects(code=HEAD + ONE),
        lambda b, _: b.load(code=HEAD + ONE),
    ),
    (
        "another-message-of-verifier",
        "give a regular expression that fits all of them",
        lambda b, _: b.rejects("R9 offset", code=HEAD + UNCHECKED),
        lambda b, _: b.rejects("R[0-9]+ offset", code=HEAD + UNCHECKED),
    ),
    (
        "cannot-compile",
        "Write a `#define` for a macro",
        lambda b, _: b.load(code=TC),
        lambda b, _: b.load(code=TC.replace(MACRO, f"{MACRO}#define TC_ACT_SHOT 2\n")),
    ),
    (
        "cannot-link",
        "make it `static` or `__weak` in one of them",
        lambda b, folder: linked(b, folder, SHARED + CALLS, SHARED),
        lambda b, folder: linked(b, folder, SHARED + CALLS, f"__weak {SHARED}"),
    ),
    (
        "source-not-found",
        "name a `.bpf.c` file",
        lambda b, folder: b.load(folder),
        lambda b, folder: ((folder / "one.bpf.c").write_text(HEAD + ONE), b.load(folder / "one.bpf.c")),
    ),
]


@pytest.mark.parametrize(
    ("address", "remedy", "wrong", "right"),
    [pytest.param(*each, id=f"{each[0]}: {each[1]}") for each in OBJECT],
)
def test_remedies_with_an_object(bpf, address, remedy, wrong, right):
    apply(address, remedy, lambda: wrong(WithBpf(bpf)), lambda: right(WithBpf(bpf)))


@pytest.mark.parametrize("case", [pytest.param(each, id=f"{each[0]}: {each[1]}") for each in FIXTURE])
def test_remedies_for_a_source(bpf, tmp_path, case):
    address, remedy, wrong, right = case
    apply(address, remedy, lambda: wrong(bpf, tmp_path), lambda: right(bpf, tmp_path))


def apply(address, remedy, wrong, right):
    """Makes a mistake, whose error must have the entry's address, and does what the entry says."""
    assert remedy in " ".join(entries()[address].split())
    with pytest.raises((BpfError, TypeError)) as caught:
        wrong()
    if isinstance(caught.value, BpfError):  # a list that can't be changed raises Python's own error
        assert caught.value.full_text().splitlines()[-1] == f"  see: bpfmaps docs {address}"
    right()
