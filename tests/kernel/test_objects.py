"""Tests opening, loading, global variables, sizes, subsets, reuse, and everything that is refused."""

import errno
import re
import subprocess

import pytest

from pytest_bpfmaps import (
    AttachError,
    ClosedError,
    CompileError,
    LoadError,
    MapError,
    MapTypeError,
    MapValueError,
    NameLookupError,
    ReusedTypeWarning,
    VerifierError,
)

TWO = """
const volatile int limit = 7;
const volatile char label[8] = "abc";
int counter;
__u64 total = 5;
static volatile int hidden = 3;
struct pair { int a, b; } pair = {1, 2};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, int);
    __type(value, int);
} m SEC(".maps");

SEC("xdp") int first(struct xdp_md *ctx)
{
    int zero = 0, *v = bpf_map_lookup_elem(&m, &zero);
    if (v)
        *v += limit;
    counter++;
    total += hidden;
    return XDP_PASS;
}

SEC("tc") int second(struct __sk_buff *skb) { pair.a += label[0]; return 0; }
"""
FRAME = bytes(64)


def test_parts_by_attribute_by_item_and_iterable(load_code):
    obj = load_code(TWO)
    assert obj.maps.m is obj.maps["m"]
    assert [m.name for m in obj.maps] == ["m"]
    assert [p.name for p in obj.programs] == ["first", "second"]
    assert set(obj.globals) >= {"limit", "counter", "total", "hidden", "pair", "label"}
    assert "m" in obj.maps
    assert "n" not in obj.maps
    assert (str(obj.programs.first.type), obj.programs.first.section) == ("xdp", "xdp")
    assert obj.programs.first.id > 0


def test_globals_before_and_after_load(load_code):
    obj = load_code(TWO, globals={"limit": 9, "total": 100, "label": "xyz"})
    g = obj.globals
    assert (g.limit, g["counter"], g.total, g.hidden, g.label) == (9, 0, 100, 3, "xyz")
    assert g.pair == {"a": 1, "b": 2}
    obj.programs.first.run(FRAME)
    assert (g.counter, g.total, obj.maps.m[0]) == (1, 103, 9)
    g.counter = 41
    g.pair = (5, 6)
    obj.programs.first.run(FRAME)
    obj.programs.second.run(FRAME)
    assert (g.counter, g.pair) == (42, {"a": 5 + ord("x"), "b": 6})


def test_globals_are_compared_with_a_mapping(load_code):
    g = load_code(TWO).globals
    values = {name: g[name] for name in g}
    assert g == values
    assert g >= {"limit": g.limit, "pair": (1, 2)}
    assert not g != values  # noqa: SIM202 - it must not be the negation of an identity
    assert g != values | {"pair": (1, 3)}
    assert g != values | {"more": 1}
    assert not g >= {"more": 1}
    assert not g >= {"pair": (1, 3)}
    assert g != {"limit": g.limit}


def test_constants_are_frozen_by_the_load(load_code):
    obj = load_code(TWO)
    with pytest.raises(MapError, match=r"(?s)cannot set 'limit' .*froze.*globals=\{'limit': 3\}"):
        obj.globals.limit = 3
    with pytest.raises(OverflowError):
        obj.globals.counter = 2**31
    with pytest.raises(AttributeError, match=r"(?s)no global variable 'conter'.*did you mean 'counter'"):
        _ = obj.globals.conter


def test_sizes_and_subsets(load_code):
    obj = load_code(TWO, max_entries={"m": 100}, programs=["second"])
    assert obj.maps.m.max_entries == 100
    assert [p.name for p in obj.programs] == ["second"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"programs": ["secnd"]}, r"(?s)no program 'secnd' in .*did you mean 'second'"),
        ({"max_entries": {"n": 1}}, r"(?s)no map 'n' in .*there are: m|did you mean 'm'"),
        ({"globals": {"limt": 1}}, r"(?s)no global variable 'limt' in .*did you mean 'limit'"),
    ],
)
def test_unknown_names_in_options(load_code, options, message):
    with pytest.raises(NameLookupError, match=message):
        load_code(TWO, **options)


def test_two_sizes_for_one_map_are_refused(load_code):
    with pytest.raises(MapValueError, match=r"max_entries=3 of map 'm' \(array\): maps={'m': …} says 4"):
        load_code(TWO, max_entries={"m": 3}, maps={"m": {"max_entries": 4}})
    assert load_code(TWO, max_entries={"m": 3}, maps={"m": {"max_entries": 3}}).maps.m.max_entries == 3


def test_unknown_names_of_parts(load_code):
    obj = load_code(TWO)
    with pytest.raises(KeyError, match=r"no program 'frist'"):
        _ = obj.programs["frist"]
    with pytest.raises(AttributeError, match=r"(?s)no map 'mm'.*'m'"):
        _ = obj.maps.mm


REUSER = """
struct halves { __u32 low, high; };
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, struct halves);
} m SEC(".maps");
SEC("xdp") int look(struct xdp_md *ctx)
{
    __u32 key = 1;
    struct halves *found = bpf_map_lookup_elem(&m, &key);

    return found ? found->low : 0;
}
"""


def test_reuse_shares_a_live_map(load_code):
    one = load_code(TWO)
    two = load_code(TWO, reuse={"m": one.maps.m})
    two.programs.first.run(FRAME)
    assert one.maps.m[0] == 7
    assert one.maps.m.id == two.maps.m.id


def test_a_live_map_of_another_name_and_type_has_the_sources_name_and_types(load_code, bpf):
    other = bpf.create_map(
        "array", key="int", value="struct { u16 a, b, c, d; }", max_entries=2, name="other"
    )
    other[1] = (1, 2, 3, 4)
    with pytest.warns(ReusedTypeWarning, match=r"struct \{ .*__u32 low; __u32 high; \} in the object"):
        obj = load_code(REUSER, reuse={"m": other})
    assert obj.maps.m.id == other.id
    assert [m.name for m in obj.maps] == ["m"]
    assert obj.maps.m[1] == {"low": 0x20001, "high": 0x40003}
    obj.maps.m[0] = {"low": 5, "high": 0}
    assert other[0] == (5, 0, 0, 0)
    with pytest.raises(NameLookupError):
        obj.maps["other"]


def test_reuse_of_what_is_no_map_is_refused(load_code):
    with pytest.raises(MapTypeError, match=r"cannot reuse 5 as map 'm' \(array\): it is int, not a map"):
        load_code(REUSER, reuse={"m": 5})


def test_reuse_of_another_shape_is_refused(load_code, make_map):
    with pytest.raises(LoadError, match="type is hash, not array, value_size is 8, not 4"):
        load_code(TWO, reuse={"m": make_map("hash")})


def test_open_then_configure_then_load(bpf, tmp_path):
    opened = bpf.open("packet_counter.bpf.c")
    assert opened.maps.events.max_entries == 4096
    opened.maps.events.max_entries = 8192
    opened.globals.size_limit = 10
    loaded = opened.load()
    try:
        assert loaded.maps.events.max_entries == 8192
        assert loaded.globals.size_limit == 10
    finally:
        loaded.close()
    with pytest.raises(ClosedError, match="closed or loaded already"):
        opened.load()


def test_a_compiled_object_is_loaded_as_it_is(bpf):
    path = bpf.compile("packet_counter.bpf.c")
    assert bpf.load(path).programs.count_packets.run(FRAME).retval == 2


def test_missing_source(bpf):
    with pytest.raises(
        CompileError, match=r"(?s)cannot find .*'packet_cuonter.bpf.c'.*did you mean 'packet_counter.bpf.c'"
    ):
        bpf.load("packet_cuonter.bpf.c")


def test_source_and_code_exclude_each_other(bpf):
    for arguments in ({}, {"source": "packet_counter.bpf.c", "code": "int x;"}):
        with pytest.raises(CompileError, match=r"bpf.load"):
            bpf.load(**arguments)


def test_syntax_error_shows_clangs_diagnostics(load_code):
    with pytest.raises(CompileError) as caught:
        load_code("int f(void) { return 0 }\n")
    assert "inline.bpf.c:" in str(caught.value)
    assert "int f(void) { return 0 }" in str(caught.value)
    assert "expected ';'" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"int main() {}", "it is not an ELF object"),
        (b"\x7fELF", "the ELF header is cut off"),
        (None, r"it is an ELF object for .*, not for BPF"),
    ],
)
def test_what_is_no_bpf_object(bpf, tmp_path, content, message):
    path = tmp_path / "x.bpf.o"
    if content is None:
        source = tmp_path / "x.c"
        source.write_text("int x;")
        subprocess.run(["cc", "-c", source, "-o", path], check=True)
    else:
        path.write_bytes(content)
    with pytest.raises(LoadError, match=message) as caught:
        bpf.load(path)
    assert caught.value.errno == errno.ENOEXEC
    assert str(path) in str(caught.value)


def test_a_big_endian_object(bpf, tmp_path):
    source = tmp_path / "x.bpf.c"
    source.write_text("int x = 3;\n")
    with pytest.raises(LoadError, match="big-endian"):
        bpf.load(bpf.compile(source, cflags=["-target", "bpfeb"]))


def test_an_object_of_garbage_after_its_header(bpf, tmp_path):
    whole = bpf.compile("packet_counter.bpf.c").read_bytes()
    path = tmp_path / "x.bpf.o"
    path.write_bytes(whole[:300])
    with pytest.raises(LoadError, match=r"cannot open .*x\.bpf\.o"):
        bpf.load(path)


def test_the_verifier_says_no(load_code):
    with pytest.raises(VerifierError) as caught:
        load_code('SEC("xdp") int bad(struct xdp_md *ctx) { return *(int *)(long)ctx->data; }')
    error = caught.value
    assert "the verifier rejected program 'bad'" in str(error)
    assert "; " in str(error)
    assert "return *(int *)(long)ctx->data;" in str(error)
    assert "invalid access to packet" in error.log
    assert error.errno == errno.EACCES


def test_what_the_verifier_says_of_a_program_that_it_accepts(load_code):
    code = 'SEC("xdp") int {}(struct xdp_md *ctx) {{ return ctx->data_end - ctx->data > {}; }}'
    obj = load_code(code.format("one", 3) + code.format("two", 4))
    said = [program.verifier for program in obj.programs]
    for each in said:
        found = re.search(r"^processed (\d+) insns", each.log, re.MULTILINE)
        assert found is not None
        assert each.instructions in (None, int(found[1]))
    assert said[0].log.count("insns (limit ") == 1  # its own log, without the other program's


def test_a_map_that_the_kernel_refuses(load_code):
    with pytest.raises(LoadError, match="map 'm'") as caught:
        load_code(
            """struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 0);
               __type(key, int); __type(value, int); } m SEC(".maps");"""
        )
    assert caught.value.errno == errno.EINVAL


def test_attach_without_a_target(load_code):
    obj = load_code(TWO)
    with pytest.raises(AttachError, match=r"none of its sections names a target"):
        obj.attach()
    with pytest.raises(AttachError, match=r"(?s)section 'xdp' names no target.*attach\(interface="):
        obj.programs.first.attach()
    with pytest.raises(AttachError, match=r"(?s)no such target: inteface.*did you mean 'interface'"):
        obj.programs.first.attach(inteface="lo")
    with pytest.raises(AttachError, match="this network namespace has no interface of that name") as caught:
        obj.programs.first.attach(interface="nosuch0")
    assert caught.value.errno == errno.ENODEV


def test_closing_makes_everything_unusable(load_code):
    obj = load_code(TWO)
    program, variables = obj.programs.first, obj.globals
    obj.close()
    for use in (lambda: program.run(FRAME), lambda: variables.counter, lambda: obj.maps.m[0], obj.attach):
        with pytest.raises(ClosedError):
            use()


ECHO = """
SEC("xdp") int echo(struct xdp_md *ctx)
{
    char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

    if (data + 1 > end)
        return XDP_ABORTED;
    data[0] = 7;
    return XDP_TX;
}
"""


def test_run_gives_the_packet_back(load_code):
    result = load_code(ECHO).programs.echo.run(FRAME, repeat=10)
    assert result.retval == 3
    assert result.data == b"\7" + FRAME[1:]
    assert result.duration_ns >= 0


def test_run_refuses_what_is_no_packet(load_code):
    echo = load_code(ECHO).programs.echo
    with pytest.raises(TypeError, match="give bytes"):
        echo.run("text")


@pytest.mark.bpf_requires(helper="bpf_snprintf")  # Linux 5.13; Linux 5.10 accepts packets of any length
def test_run_refuses_a_short_packet(load_code):
    with pytest.raises(LoadError, match=r"(?s)EINVAL.*Ethernet header: 14 bytes"):
        load_code(ECHO).programs.echo.run(b"short")


def test_what_other_objects_are_linked_with_needs_no_section(load_code):
    obj = load_code("""
        __attribute__((noinline)) int add(int a, int b) { return a + b; }
        __attribute__((noinline)) long both(const char *text, long length) { return length + !text; }
        __attribute__((noinline)) long nothing(void) { return 0; }
        struct pair { long a, b; };
        __attribute__((noinline)) long sum(struct pair *pair) { return pair ? pair->a + pair->b : 0; }
        int calls = 3;
    """)
    assert len(obj.programs) == 0
    assert obj.globals.calls == 3


@pytest.mark.parametrize("more", ["", "extern void bpf_no_such_function(void) __ksym __weak;"])
def test_a_hidden_function_is_verified_where_it_is_called(load_code, more):
    code = """
        %s
        %s __noinline int put(long *where) { *where = 1; return 0; }
        SEC("socket") int prog(struct __sk_buff *skb)
        {
            long value = 0;
            put(&value);
            return value;
        }
    """
    if more:
        code = code.replace("put(&value);", "put(&value); if (bpf_no_such_function) bpf_no_such_function();")
    with pytest.raises(VerifierError, match="put"):
        load_code(code % (more, ""))
    assert load_code(code % (more, "__hidden")).programs.prog.run(b"\0" * 14).retval == 1


def test_an_enum_that_is_only_declared(bpf, tmp_path):
    made = bpf.compile(
        code="""
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        struct holder { enum later *at; int number; } holder = { 0, 5 };
        SEC("socket") int prog(struct __sk_buff *skb) { return holder.at ? 1 : holder.number; }
        """
    )
    foreign = tmp_path / "foreign.bpf.o"  # outside of the cache: objects in the cache are not checked
    foreign.write_bytes(made.read_bytes())
    obj = bpf.load(foreign)
    assert obj.globals.holder.number == 5
    assert obj.programs.prog.run(bytes(14)).retval == 5
