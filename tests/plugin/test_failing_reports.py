"""Tests what a failing test shows, and what it leaves out."""

import pytest

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") int rewrite(struct xdp_md *ctx)
{
    unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    if (data + 23 > end)
        return XDP_DROP;
    data[22] = 9; /* the TTL */
    return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""
MAPS = """
struct flow_to { __u32 ip; __u16 port; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 30);
    __type(key, struct flow_to); __type(value, __u64); }
    flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 9);
    __type(key, __u32); __type(value, __u64); }
    counts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2);
    __type(key, __u32); __type(value, __u32); }
    by_cpu SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 100000);
    __type(key, __u32); __type(value, __u32); }
    large SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
"""
FRAME = (
    "FRAME = bytes.fromhex('020000000002' '020000000001' '0800' '4500001c00000000401100000a0000010a000002'"
    + (" '0014001e00080000') + bytes(18)\n")
)


@pytest.fixture
def failing(pytester):
    """Returns a function that runs a failing test with the program's object `obj`, and returns its output."""
    pytester.mkdir("bpf")
    (pytester.path / "bpf" / "small.bpf.c").write_text(SOURCE)

    def run(body, *options):
        lines = "".join(f"    {line}\n" for line in ("obj = bpf.load('small.bpf.c')", *body.splitlines()))
        head = f"from pytest_bpfmaps import XDP_PASS\n{FRAME}\n\n"
        pytester.makepyfile(test_x=f"{head}def test_it(bpf, bpf_netns):\n{lines}")
        result = pytester.runpytest_subprocess(*options)
        result.assert_outcomes(failed=1)
        return result

    return run


def test_a_verdict_is_shown_by_name_with_the_packet_in_one_line(failing):
    result = failing("assert obj.programs.drop.run(FRAME).retval == XDP_PASS")
    errors = [line for line in result.outlines if line.startswith("E ")]
    assert errors == [
        "E       AssertionError: assert XDP_DROP == XDP_PASS",
        "E        +  where XDP_DROP = RunResult(retval=XDP_DROP, data=<60 bytes: Ether / IP / UDP"
        " 10.0.0.1:20 > 10.0.0.2:30 / Padding>, duration_ns=" + errors[1].rpartition("=")[2],
    ]
    assert "bpf =" not in result.stdout.str()


def test_a_packet_that_differs_is_shown_by_layers_and_fields(failing):
    result = failing("assert obj.programs.rewrite.run(FRAME).data == FRAME")
    result.stdout.fnmatch_lines(
        ["E  *assert 60 bytes: Ether / IP * == 60 bytes: *", "E*  IP.ttl: 9, expected 64"]
    )


def test_a_packet_of_scapy_is_compared_by_its_bytes(failing):
    result = failing(
        "from scapy.layers.l2 import Ether\nassert obj.programs.rewrite.run(FRAME).data == Ether(FRAME)"
    )
    result.stdout.fnmatch_lines(
        ["E  *assert 60 bytes: Ether / IP * == 60 bytes: *", "E*  IP.ttl: 9, expected 64"]
    )
    result = failing(
        "from scapy.layers.l2 import Ether\ndata = obj.programs.rewrite.run(FRAME).data\n"
        "assert data == Ether(data)\nassert Ether(data) == data"
    )
    result.stdout.fnmatch_lines(["E *the bytes are equal*: write the packet of the run first"])


def test_packets_without_scapy_are_shown_by_offset(failing, pytester):
    pytester.mkpydir("scapy").joinpath("layers.py").write_text("raise ImportError('left out')")
    result = failing("assert obj.programs.rewrite.run(FRAME).data == FRAME + b'1'")
    result.stdout.fnmatch_lines(
        [
            "E*assert 60 bytes: 02000000 0002*… == 61 bytes: *",
            "E*  60 bytes, expected 61",
            "E*  byte 22: 09, expected 40",
        ]
    )


def test_no_frame_of_python_or_this_package_for_a_missing_clang(failing, monkeypatch):
    monkeypatch.setenv("CLANG", "no-such-clang")
    result = failing("pass")
    assert "functools" not in result.stdout.str()
    result.stdout.fnmatch_lines(
        ["E * cannot find clang 'no-such-clang'*", "FAILED test_x.py::test_it - cannot find clang *"]
    )


def test_a_program_that_is_not_there_is_one_sentence(failing):
    result = failing("bpf_netns('near').run(['no-such-program', '-x'])")
    result.stdout.fnmatch_lines(
        [
            "E *TriggerError: cannot run 'no-such-program' in network namespace *near: *no such file*",
            "E * -> install it, or give its path",
        ]
    )
    assert "subprocess.py" not in result.stdout.str()


def test_the_maps_are_shown_and_of_large_ones_the_beginning(failing, pytester):
    (pytester.path / "bpf" / "small.bpf.c").write_text(SOURCE + MAPS)
    result = failing(
        """
obj.maps.flows.update({(ip, 80): ip * 2 for ip in range(25)})
obj.maps.counts[7] = 3
obj.maps.large.update({key: 1 for key in range(100)})
gone = bpf.load('small.bpf.c')
gone.close()
assert 0
"""
    )
    lines = [line for line in result.outlines if line.startswith(("map ", "  "))]
    start = lines.index("map 'flows' (hash): 25 of 30 entries:")
    assert lines[start + 1 : start + 23] == [
        *(f"  {{'ip': {ip}, 'port': 80}}: {ip * 2}" for ip in range(20)),
        "  …",
        "map 'counts' (array): not zero are:",
    ]
    assert lines[start + 23 : start + 26] == [
        "  7: 3",
        "map 'by_cpu' (percpu_array): all are zero",
        "map 'large' (hash): more than 20 of 100000 entries:",
    ]
    assert lines[start + 46] == "  …"
    assert not [line for line in lines if "events" in line]
    assert len([line for line in lines if line.startswith("map ")]) == 4


KERNELS = """
    import pytest

    def pytest_generate_tests(metafunc):
        metafunc.parametrize("kernel", ["5.10", "6.1", "7.2"])

    def pytest_collection_modifyitems(items):
        for item in items:
            item.user_properties.append(("bpf_kernel", item.callspec.params["kernel"]))
"""


def test_the_same_failure_on_several_kernels_is_shown_once(pytester):
    pytester.makeconftest(KERNELS)
    pytester.makepyfile(
        test_it="""
        def test_same(kernel):
            release = "release " + ("7" if kernel == "7.2" else "old")
            print("runs in", kernel)
            print("\\\\n".join(map(str, range(9))))
            assert release == "release 1"

        def test_other(kernel):
            if kernel == "5.10":
                assert 0, "one way"
            assert kernel in "5.10 7.2", "another"
        """
    )
    result = pytester.runpytest_subprocess("-rf")
    result.assert_outcomes(failed=5, passed=1)
    heads = [line.strip("_ ") for line in result.outlines if line.startswith("___")]
    assert heads == ["test_same[5.10, 6.1, 7.2]", "test_other[5.10]", "test_other[6.1]"]
    shown = "E       AssertionError: assert 'release old' == 'release 1'"
    assert result.outlines.count(shown) == 1
    result.stdout.fnmatch_lines(
        [
            "E       AssertionError: assert 'release old' == 'release 1'",
            "*- on 7.2 -*",
            "E       AssertionError: assert 'release 7' == 'release 1'",
            "*- Captured stdout call [[]5.10[]] -*",
            "runs in 5.10",
            "*- Captured stdout call [[]6.1[]] -*",
            "runs in 6.1",
            "*- Captured stdout call [[]7.2[]] -*",
            "runs in 7.2",
        ]
    )
    assert len([line for line in result.outlines if line.startswith("FAILED test_it.py::test_same[")]) == 3


CHANGES = (
    f'CODE = """\n#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n{MAPS}'
    + 'char LICENSE[] SEC("license") = "GPL";\n"""\n'
    + """
import pytest

@pytest.fixture(scope="module")
def maps(bpf_module):
    return bpf_module.load(code=CODE).maps

def test_before(maps):
    maps.flows[1, 80] = 10
    maps.flows[2, 80] = 20
    maps.flows[3, 80] = 30
    maps.counts[2] = 7

def test_fails(maps):
    maps.flows[1, 80] = 11
    maps.flows[4, 443] = 40
    del maps.flows[2, 80]
    maps.large[1] = 1
    assert 0
"""
)


def test_what_changed_in_maps_that_tests_share(pytester):
    pytester.makepyfile(test_x=CHANGES)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    shown = result.outlines[result.outlines.index("map 'flows' (hash): 3 of 30 entries:") :]
    assert shown[1:5] == [
        "  since the test began: 1 added, 1 gone, 1 changed",
        "    added {'ip': 4, 'port': 443}: 40",
        "    gone {'ip': 2, 'port': 80}: 20",
        "    changed {'ip': 1, 'port': 80}: 10 -> 11",
    ]
    counts = shown.index("map 'counts' (array): not zero are:")
    assert shown[counts + 1 : counts + 3] == ["  no change since the test began", "  2: 7"]
    large = shown.index("map 'large' (hash): 1 of 100000 entries:")
    assert shown[large + 1] == "  1: 1"  # too large to be read before each test


def test_many_maps_without_elements_share_a_line(failing, pytester):
    names = [f"empty{i}" for i in range(24)]
    kind = (
        "__uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 9); __type(key, __u32); __type(value, __u32);"
    )
    maps = "".join(f'struct {{ {kind} }} {name} SEC(".maps");\n' for name in names)
    (pytester.path / "bpf" / "small.bpf.c").write_text(SOURCE + maps)
    shown = failing("bpf.load('small.bpf.c').maps.empty3[7] = 1\nassert not 'maps'").outlines
    at = shown.index("map 'empty3' (hash): 1 of 9 entries:")
    assert shown[at + 1] == "  7: 1"
    (line,) = [line for line in shown if "23 more maps of small.bpf.c are empty or all zero: " in line]
    assert "empty0, empty1, empty2, empty4" in line
    assert line.endswith(", …")
    assert not any(line.startswith("map 'empty0'") for line in shown)


def test_programs_are_shown_with_their_runs_and_targets(failing, pytester):
    tail = "struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 1); __type(key, __u32); "
    tail += '__type(value, __u32); } next SEC(".maps");'
    (pytester.path / "bpf" / "tail.bpf.c").write_text(SOURCE.replace("char LICENSE", f"{tail}\nchar LICENSE"))
    body = """
obj.programs.drop.attach(interface='lo', netns=bpf_netns())
obj.programs.rewrite.run(FRAME)
obj.programs.rewrite.run(FRAME, repeat=1000)
with obj.programs.rewrite.attach(interface='lo', netns=bpf_netns()):
    pass
bpf.load('tail.bpf.c')
assert not 'programs'
"""
    shown = failing(body).outlines
    (drop, of_tail), (rewrite, _) = (
        [line for line in shown if line.startswith(f"program {name!r}")] for name in ("drop", "rewrite")
    )
    assert drop.startswith("program 'drop' (xdp): did not run, attached by interface='lo', netns=<")
    assert rewrite.startswith(
        "program 'rewrite' (xdp): ran 1,001 times, was attached by interface='lo', netns=<"
    )
    why = "did not run, unless by a tail call: the kernel counts none"
    assert of_tail == f"program 'drop' (xdp): {why}, not attached"


SHARED = (
    f'CODE = """{SOURCE}"""\n'
    + """
import pytest

@pytest.fixture(scope="module")
def programs(bpf_module):
    return bpf_module.load(code=CODE).programs

def test_before(programs):
    programs.drop.run(bytes(64))

@pytest.mark.parametrize("times", [0, 1])
def test_fails(programs, times):
    for _ in range(times):
        programs.drop.run(bytes(64))
    assert 0
"""
)


def test_runs_are_counted_since_the_test_began(pytester):
    pytester.makepyfile(test_x=SHARED)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=2)
    lines = [line for line in result.outlines if line.startswith("program 'drop'")]
    assert lines == ["program 'drop' (xdp): did not run, not attached", "program 'drop' (xdp): ran once"]


def test_programs_that_did_nothing_share_a_line(failing, pytester):
    more = "".join(f'SEC("xdp") int more{i}(struct xdp_md *ctx) {{ return 0; }}\n' for i in range(5))
    (pytester.path / "bpf" / "small.bpf.c").write_text(SOURCE + more)
    shown = failing("obj.programs.more1.run(FRAME)\nassert not 'programs'").outlines
    assert "program 'more1' (xdp): ran once" in shown
    start = "6 more programs of small.bpf.c did not run, and are not attached: "
    assert [line for line in shown if line.startswith(start)]
    assert not [line for line in shown if line.startswith("program 'drop'")]


VARIABLES = """
const volatile __u32 limit = 100;
struct { __u32 low; __u8 high[4]; } seen;
__u64 dropped;
__u32 many[2];

SEC("xdp") int count(struct xdp_md *ctx)
{
    many[1] += ctx->ingress_ifindex;
    if (ctx->data_end - ctx->data < limit)
        dropped++;
    else
        seen.high[1]++;
    bpf_printk("%d", seen.low);
    return XDP_PASS;
}
"""


def test_variables_that_are_not_zero_are_shown(failing, pytester):
    (pytester.path / "bpf" / "small.bpf.c").write_text(SOURCE + VARIABLES)
    body = """
obj.programs.count.run(bytes(200))
gone = bpf.load('small.bpf.c')
gone.close()
bpf.load('small.bpf.c', globals={'limit': 0})
assert not 'variables'
"""
    shown = failing(body).outlines
    start = shown.index("variables of small.bpf.c: not zero are:")
    assert sorted(shown[start + 1 : start + 4]) == [
        "  limit: 100",
        "  many: [0, 1]",  # the interface lo
        r"  seen: {'low': 0, 'high': b'\x00\x01\x00\x00'}",
    ]
    assert "variables of small.bpf.c: all are zero" in shown[start + 4 :]
    assert "____fmt" not in "\n".join(shown)


def test_a_few_long_values_are_shown_whole_and_of_many_the_beginning(failing, pytester):
    long = """
struct long_name { char text[160]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 30);
    __type(key, __u32); __type(value, struct long_name); } few SEC(".maps"), many SEC(".maps");
"""
    (pytester.path / "bpf" / "small.bpf.c").write_text(SOURCE + long)
    result = failing(
        """
obj.maps.few[1] = {'text': 'x' * 150}
obj.maps.many.update({key: {'text': 'x' * 150} for key in range(20)})
assert 0
"""
    )
    shown = result.outlines
    assert shown[shown.index("map 'few' (hash): 1 of 30 entries:") + 1] == f"  1: {{'text': '{'x' * 150}'}}"
    first = shown[shown.index("map 'many' (hash): 20 of 30 entries:") + 1]
    assert first.startswith("  0: {'text': 'xxx")
    assert first.endswith("x…")
    assert len(first) < 110


def test_no_frame_of_python_in_a_test_that_uses_a_kernel(failing):
    result = failing("__import__('json').loads('{')")
    assert "raw_decode" not in result.stdout.str()
    result.stdout.fnmatch_lines(
        ["E * json.decoder.JSONDecodeError: Expecting *", "*test_x.py:*: JSONDecodeError"]
    )


def test_python_frames_of_a_test_without_a_kernel_stay(pytester):
    pytester.makepyfile("import json\ndef test_it():\n    json.loads('{')")
    assert "raw_decode" in pytester.runpytest_subprocess().stdout.str()
