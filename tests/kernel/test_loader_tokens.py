"""Tests `bpf.start(…, token=…)`: agents with capabilities in a user namespace only, and a BPF token."""

import os
import shutil
import subprocess
import tempfile

import pytest
from build_agents import AGENTS

from pytest_bpfmaps import LoaderError, UnsupportedError
from pytest_bpfmaps.libbpf import version

HASH, ARRAY = "1", "2"
XDP, BPF_XDP = "6", "37"
ALL = {"delegate_cmds": "any", "delegate_maps": "any", "delegate_progs": "any", "delegate_attachs": "any"}
FEW = {
    "delegate_cmds": ["token_create", "map_create", "btf_load", "prog_load"],
    "delegate_maps": ["hash"],
    "delegate_progs": ["xdp"],
    "delegate_attachs": ["xdp"],
}

OBJECT = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");
SEC("xdp") int frames(struct xdp_md *ctx) { return bpf_ringbuf_output(&events, &(int){1}, 4, 0) ? 1 : 2; }
SEC("tracepoint/sched/sched_switch") int switches(void *ctx) { return 0; }
SEC("kprobe/do_exit") int exits(void *ctx) { return 0; }
SEC("kretprobe/do_exit") int returns(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""

needs_tokens = pytest.mark.bpf_requires(command="token_create")


@pytest.fixture(scope="session")
def agent(tmp_path_factory):
    made = tmp_path_factory.mktemp("agent") / "token"
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-o", made, AGENTS / "token.c"], check=True)
    return made


@pytest.fixture
def with_object(bpf, agent, tmp_path):
    """Returns the agent with an object in its binary, as a skeleton has it."""
    both = tmp_path / "agent"
    both.write_bytes(agent.read_bytes() + bpf.compile(code=OBJECT).read_bytes())
    both.chmod(0o755)
    return both


@needs_tokens
def test_what_it_has_is_found(bpf, bpf_netns, agent):
    network = bpf_netns()
    words = ["token", "btf", "map", HASH, "prog", XDP, BPF_XDP, "attach", "lo", "pin", "/sys/fs/bpf/kept"]
    started = bpf.start([agent, *words], token=FEW, netns=network, ready="waiting")
    assert started.maps.counts == {7: 42}
    assert started.maps.counts.type == "hash"
    assert [(each.name, each.type) for each in started.programs] == [("pass_all", "xdp")]
    assert started.links == [("pass_all", "xdp", "lo")]
    assert list(started.pins) == ["/sys/fs/bpf/kept"]
    assert not os.path.exists("/sys/fs/bpf/kept")
    started.terminate()
    assert started.wait() == 0
    bpf.nothing_left(started)


@needs_tokens
def test_it_has_no_capability_outside(bpf, agent, tmp_path):
    command = [
        "sh",
        "-c",
        "readlink /proc/self/ns/user /proc/self/ns/mnt; pwd; id -u; echo $LIBBPF_BPF_TOKEN_PATH",
    ]
    started = bpf.start(command, token=FEW, cwd=tmp_path)
    assert started.wait() == 0
    user, mounts, folder, number, path = started.stdout.splitlines()
    assert user != os.readlink("/proc/self/ns/user")
    assert mounts != os.readlink("/proc/self/ns/mnt")
    assert (folder, number, path) == (str(tmp_path), "0", "/sys/fs/bpf")
    with pytest.raises(LoaderError, match="BPF_MAP_CREATE: Operation not permitted"):
        bpf.start([agent, "map", "11"], token=FEW, ready="waiting")


@needs_tokens
@pytest.mark.parametrize(
    ("less", "words", "advice"),
    [
        (
            {"delegate_progs": "xdp"},
            ("prog", "5", "0"),
            (
                "no program type tracepoint (for program 'switches'); "
                "no program type kprobe (for program 'exits', program 'returns')",
                "add tracepoint, kprobe to delegate_progs in token=",
            ),
        ),
        (
            {"delegate_maps": ["array", "hash"], "delegate_cmds": "token_create:map_create"},
            ("map", "27"),
            (
                "no command prog_load (for its programs); no map type ringbuf (for map 'events')",
                "add prog_load to delegate_cmds; add ringbuf to delegate_maps in token=",
            ),
        ),
        (
            {"delegate_attachs": ["BPF_CGROUP_INET_INGRESS"]},
            ("prog", XDP, BPF_XDP),
            ("no attach type xdp (for program 'frames')", "add xdp to delegate_attachs in token="),
        ),
        (
            {"delegate_attachs": ["xdp"]},
            ("prog", "5", "0"),
            (
                "no attach type cgroup_inet_ingress (for program 'switches', whose attach type is 0, ",
                "add cgroup_inet_ingress to delegate_attachs in token=",
            ),
        ),
    ],
)
def test_what_the_token_lacks_is_named(bpf, with_object, less, words, advice):
    why, fix = advice
    command = [with_object, "token", *words]
    with pytest.raises(LoaderError) as caught:
        bpf.start(command, token={**ALL, **less}, ready="waiting")
    assert f"the token delegates {why}" in str(caught.value)
    assert str(caught.value).endswith(f"-> {fix}")
    option = fix.split(" in token=")[0].split("; ")[-1].split(" to ")[1]
    if words[0] == "prog":  # the advice helps
        bpf.start(command, token={**ALL, **less, option: "any"}, ready="waiting")


@pytest.fixture
def for_everybody():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield folder


@needs_tokens
def test_another_user_needs_capabilities_in_the_namespace(bpf, agent, for_everybody):
    words = [shutil.copy(agent, for_everybody), "token", "prog", XDP, BPF_XDP]
    with pytest.raises(LoaderError, match=r"no CAP_BPF in its user namespace(?s:.*)add BPF to caps="):
        bpf.start(words, token=ALL, user=65534, ready="waiting")
    with pytest.raises(LoaderError, match=r"it had CAP_BPF(?s:.*)add NET_ADMIN or PERFMON to caps="):
        bpf.start(words, token=ALL, caps=["BPF"], ready="waiting")
    started = bpf.start(words, token=ALL, caps=["BPF", "NET_ADMIN"], user=65534, ready="waiting")
    assert [each.name for each in started.programs] == ["pass_all"]


@needs_tokens
def test_a_libbpf_without_tokens(bpf, agent_binary):
    command = [agent_binary, "load", bpf.compile(AGENTS / "network.bpf.c"), "wait"]
    if version() >= (1, 5):
        started = bpf.start(command, token=ALL, ready="waiting")
        assert "counts_of_each_interface" in [each.name for each in started.maps]
        return
    with pytest.raises(LoaderError, match=r"it made no token, because its libbpf is older than 1\.5"):
        bpf.start(command, token=ALL, ready="waiting")


@needs_tokens
@pytest.mark.parametrize(
    ("token", "message"),
    [
        ({"delegate_prog": ["xdp"]}, "no such mount option(?s:.*)'delegate_progs'"),
        ({"delegate_maps": ["hush"]}, "delegate_maps=hush: this kernel has no such map type(?s:.*)'hash'"),
        ({"delegate_progs": 5}, "it is no list"),
        ({"delegate_cmds": []}, "it delegates nothing"),
        ("any", "it is no mapping"),
    ],
)
def test_what_is_no_delegation(bpf, token, message):
    with pytest.raises(LoaderError, match=message):
        bpf.start(["true"], token=token)


@needs_tokens
def test_nothing_stays_open(bpf):
    def run():
        assert bpf.start(["readlink", "/proc/self/ns/user"], token=FEW).wait() == 0

    run()  # what is kept for the whole run
    before = os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")
    for _ in range(3):
        bpf.start(["true"], token=FEW).close()
    assert (os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")) == before


def test_a_kernel_without_tokens(bpf, bpf_kernel):
    if bpf_kernel.has(command="token_create"):
        pytest.skip("this kernel has BPF tokens")
    with pytest.raises(UnsupportedError, match=r"lacks BPF_TOKEN_CREATE, which came with Linux 6\.9"):
        bpf.start(["true"], token=FEW)
