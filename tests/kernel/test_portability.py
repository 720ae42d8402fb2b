"""Tests repairs of objects that libbpf refuses: each gives a warning, and libbpf accepts the result."""

import os
import warnings
from contextlib import suppress

import pytest
from shown_blocks import shows

from pytest_bpfmaps import LoadError, PortabilityError, PortabilityWarning
from pytest_bpfmaps.compiler import portability
from pytest_bpfmaps.harness import Bpf
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, version
from pytest_bpfmaps.matrix.compilers import compiler_for

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct event { int a, b, c; };
"""
PROGRAM = 'SEC("xdp") int p(struct xdp_md *ctx) { return XDP_PASS; }'


def map_of(type, *lines):
    inside = "".join(f"{line};\n" for line in (f"__uint(type, BPF_MAP_TYPE_{type})", *lines))
    return f'struct {{ {inside} }} the_map SEC(".maps");\n{PROGRAM}'


RING, PERF = "__uint(max_entries, 4096)", "__uint(max_entries, 0)"
MAPS = {
    "ring": map_of("RINGBUF", RING),
    "ring-value": map_of("RINGBUF", RING, "__type(value, struct event)"),
    "ring-key": map_of("RINGBUF", RING, "__type(key, int)"),
    "ring-value-size": map_of("RINGBUF", RING, "__uint(value_size, 8)"),
    "perf-sizes": map_of("PERF_EVENT_ARRAY", PERF, "__uint(key_size, 4)", "__uint(value_size, 4)"),
    "perf-types": map_of("PERF_EVENT_ARRAY", PERF, "__type(key, int)", "__type(value, int)"),
    "perf-value": map_of("PERF_EVENT_ARRAY", PERF, "__type(key, int)", "__type(value, struct event)"),
    "perf-key": map_of("PERF_EVENT_ARRAY", PERF, "__type(key, __u64)", "__type(value, int)"),
    "perf-nothing": map_of("PERF_EVENT_ARRAY", PERF),
    "array": map_of("ARRAY", "__uint(max_entries, 1)", "__type(key, int)", "__type(value, struct event)"),
}
SECTIONS = {
    name: f'SEC("{name}") int p(void *ctx) {{ return 0; }}'
    for name in (
        *("xdp", "xdp_prog", "xdp_drop/port", "socket", "socket_filter", "classifier", "classifier/ingress"),
        *("action", "action_mirror", "cgroup_skb/egress", "cgroup/skb_count", "sk_msg1", "sk_msg", "tc"),
        *(
            "lwt_in",
            "lwt_in_prog",
            "sockops",
            "sockops_cork",
            "perf_event",
            "flow_dissector_0",
            "tcx/ingress",
        ),
        *("netfilter", "tc/egress", "sk_skb/verdict"),
    )
}
LEGACY = """
struct bpf_map_def { unsigned int type, key_size, value_size, max_entries, map_flags; };
struct bpf_map_def SEC("maps") old = { BPF_MAP_TYPE_ARRAY, 4, 8, 2, 0 };
"""


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(portability, "_told", set())


def libbpf_loads(path):
    """Returns whether libbpf accepts the object without this package."""
    with capture_log() as log:
        handle = lib.bpf_object__open_file(os.fsencode(path), ffi.NULL)
        if handle == ffi.NULL:
            return False, log.text
        loaded = lib.bpf_object__load(handle) == 0
        lib.bpf_object__close(handle)
    return loaded, log.text


@pytest.mark.parametrize("name", MAPS)
def test_a_map_that_libbpf_refuses_loads_with_a_warning(bpf, name):
    accepted, log = libbpf_loads(bpf.compile(code=HEAD + MAPS[name]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        bpf.load(code=HEAD + MAPS[name])
    assert ([] if accepted else [PortabilityWarning]) == [w.category for w in said], log
    for each in said:
        assert "\n" not in str(each.message)
        assert os.path.basename(each.filename) == "inline.bpf.c"
        declaration = (HEAD + MAPS[name]).splitlines()[each.lineno - 1]
        assert 'the_map SEC(".maps")' in declaration


def test_the_manual_shows_a_warning(bpf, tmp_path):
    source = tmp_path / "prog.bpf.c"
    source.write_text(HEAD + MAPS["ring-value"].replace("the_map", "events"))
    with pytest.warns(PortabilityWarning) as said:
        bpf.load(source)
    name = os.path.basename(said[0].filename)
    shows("portability.md", "'events'", f"{name}:{said[0].lineno}: PortabilityWarning: {said[0].message}")


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_that_libbpf_refuses_is_known_with_a_warning(bpf, name):
    _, log = libbpf_loads(bpf.compile(code=HEAD + SECTIONS[name]))
    unknown = f"missing BPF prog type, check ELF section name '{name}'" in log
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        opened = bpf.open(code=HEAD + SECTIONS[name])
    assert ([PortabilityWarning] if unknown else []) == [w.category for w in said], log
    assert str(opened.programs.p.type) != "unspec"
    for each in said:
        assert f'SEC("{name}")' in (HEAD + SECTIONS[name]).splitlines()[each.lineno - 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("xdp_prog", "xdp"),
        ("xdp_devmap/x", "xdp/devmap"),
        ("socket_filter", "socket"),
        ("classifier/ingress", "classifier"),
        ("cgroup/connect4_prog", "cgroup/connect4"),
        ("cgroup/sock1", "cgroup/sock"),
        ("sk_reuseport/migrate1", "sk_reuseport/migrate"),
        ("sk_skb/stream_parser/x", "sk_skb/stream_parser"),
        ("sk_skb1", "sk_skb"),
    ],
)
def test_an_old_section_means_what_it_meant(bpf, old, new):
    program = 'SEC("{}") int {}(void *ctx) {{ return 0; }}'
    with pytest.warns(PortabilityWarning, match=f'write SEC."{new}"'):
        opened = bpf.open(code=HEAD + program.format(old, "a") + program.format(new, "b"))
    assert opened.programs.a.type == opened.programs.b.type
    types = [lib.bpf_program__expected_attach_type(p.handle) for p in opened.programs]
    assert types[0] == types[1]


def test_old_sections_run(bpf):
    code = """
    SEC("xdp_prog") int p(void *ctx) { return XDP_DROP; }
    SEC("classifier/x") int q(void *ctx) { return 2; }
    """
    with pytest.warns(PortabilityWarning):
        obj = bpf.load(code=HEAD + code)
    assert obj.programs.p.run(bytes(64)).retval == 1
    assert obj.programs.q.run(bytes(64)).retval == 2


def test_a_legacy_map_is_told_by_its_line(bpf):
    with pytest.warns(PortabilityWarning, match="map 'old' is a legacy definition") as said:
        bpf.load(code=HEAD + LEGACY + PROGRAM)
    assert (HEAD + LEGACY).splitlines()[said[0].lineno - 1].startswith("struct bpf_map_def SEC")


def test_a_missing_declaration_is_told(bpf):
    with pytest.warns(PortabilityWarning, match=r"'u32' is the kernel's own short name.*write __u32"):
        bpf.load(code=HEAD + "u32 x;" + PROGRAM)


def test_each_place_is_told_once(bpf):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            bpf.load(code=HEAD + MAPS["ring-value"])
    assert len(said) == 1


def test_where_warnings_are_errors_it_fails_each_time(bpf):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(PortabilityWarning):
                bpf.load(code=HEAD + MAPS["ring-value"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (MAPS["ring-value"], r"a value of 12 bytes.*ringbuf.*\n.*capture\(\"event\"\)"),
        (LEGACY + PROGRAM, r"legacy definition.*\n.*SEC\(\"\.maps\"\)"),
        (SECTIONS["xdp_prog"], r"xdp_prog.*\n.*write SEC\(\"xdp\"\)"),
        ("u32 x;" + PROGRAM, r"'u32'.*\n.*write __u32"),
    ],
)
def test_where_it_has_to_be_portable_it_is_refused(code, message):
    with Bpf(compiler_for(None, True), portable=True) as strict:
        for _ in range(2):
            with pytest.raises(PortabilityError, match=message) as caught:
                strict.load(code=HEAD + code)
    assert caught.value.errno == 22


def test_the_portable_spelling_loads(bpf):
    """The remedy is to use the struct of the program by its name."""
    code = HEAD + map_of("RINGBUF", RING).replace(
        "{ return XDP_PASS; }",
        "{ struct event e = {1, 2, 3}; bpf_ringbuf_output(&the_map, &e, sizeof(e), 0); return 2; }",
    )
    with Bpf(compiler_for(None, True), portable=True) as strict:
        obj = strict.load(code=code)
        with obj.maps.the_map.capture("event") as events:
            obj.programs.p.run(bytes(64))
        assert events == [{"a": 1, "b": 2, "c": 3}]


@pytest.mark.parametrize(
    ("ini", "arguments", "refused"),
    [("", [], False), ("bpf_portable = true", [], True), ("", ["--bpf-strict"], True)],
)
def test_the_ini_option_and_the_strict_run(pytester, ini, arguments, refused):
    code = HEAD + MAPS["ring-value"]
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.makepyfile(f"def test_it(bpf):\n    bpf.load(code={code!r})\n")
    result = pytester.runpytest_subprocess(*arguments)
    result.assert_outcomes(failed=int(refused), passed=int(not refused), warnings=int(not refused))
    shown = (
        "*PortabilityError: cannot load *inline.bpf.c:*"
        if refused
        else "*inline.bpf.c:*: PortabilityWarning: *"
    )
    result.stdout.fnmatch_lines([shown])


LEFT_OUT = (
    HEAD + 'SEC("?uprobe.multi") int many(void *ctx) { return 0; } SEC("xdp") int p(void *c) { return 2; }'
)


def test_a_section_of_a_program_that_is_not_loaded(bpf):
    """libbpf takes such an object, too: it is refused when the program is to be loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bpf.load(code=LEFT_OUT).programs.p.run(bytes(64)).retval == 2
        opened = bpf.open(code=LEFT_OUT)
    if version() < (1, 3):
        opened.programs.many.autoload = True
        with pytest.warns(PortabilityWarning, match=r"uprobe\.multi.* is newer"), suppress(LoadError):
            opened.load().close()
