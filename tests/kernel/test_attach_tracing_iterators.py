"""Tests iterators: their targets, and reading them."""

import os
import threading

import pytest

from pytest_bpfmaps import AttachError, UnsupportedError

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
"""
TASKS = """
SEC("iter/task") int show(struct bpf_iter__task *ctx)
{
    struct task_struct *task = ctx->task;
    if (task)
        BPF_SEQ_PRINTF(ctx->meta->seq, "%d %d\\n", task->tgid, task->pid);
    return 0;
}
"""
ELEMENTS = """
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, __u64);
} the_map SEC(".maps");
SEC("iter/bpf_map_elem") int show(struct bpf_iter__bpf_map_elem *ctx)
{
    __u32 *key = ctx->key;
    __u64 *value = ctx->value;
    if (key && value)
        BPF_SEQ_PRINTF(ctx->meta->seq, "%u=%llu\\n", *key, *value);
    return 0;
}
"""
CGROUPS = """
SEC("iter/cgroup") int show(struct bpf_iter__cgroup *ctx)
{
    struct cgroup *cgroup = ctx->cgroup;
    if (cgroup)
        BPF_SEQ_PRINTF(ctx->meta->seq, "%llu\\n", cgroup->kn->id);
    return 0;
}
"""


@pytest.fixture
def show(bpf):
    return lambda code: bpf.load(code=HEAD + code)


@pytest.mark.bpf_requires("iter/task")
class TestTasks:
    def test_all_tasks(self, show):
        with show(TASKS).programs.show.attach() as tasks:
            assert f"{os.getpid()} {os.getpid()}" in list(tasks)
            assert f"{os.getpid()} {os.getpid()}\n" in tasks.read()
            assert tasks.read_bytes().endswith(b"\n")

    def test_one_thread_one_process(self, show):
        obj = show(TASKS)
        me, done = os.getpid(), threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        try:
            with obj.programs.show.attach(tid=me) as one:
                assert list(one) == [f"{me} {me}"]
            with obj.programs.show.attach(pid=me) as both:
                assert set(both) >= {f"{me} {me}", f"{me} {thread.native_id}"}
                assert all(line.startswith(f"{me} ") for line in both)
        except UnsupportedError as e:  # before Linux 6.1; the iterator must not run over all tasks instead
            assert "run over all tasks" in str(e)  # noqa: PT017
        finally:
            done.set()
            thread.join()

    def test_with_its_object(self, show):
        obj = show(TASKS)
        with obj.attach() as links:
            (tasks,) = links
            assert f"{os.getpid()} {os.getpid()}" in list(tasks)

    def test_wrong_targets(self, show):
        attach = show(TASKS).programs.show.attach
        with pytest.raises(AttachError, match=r"no target 'pidd'(.*\n)*.*'pid'"):
            attach(pidd=1)


@pytest.mark.bpf_requires("iter/bpf_map_elem")
def test_elements_of_a_map(show):
    obj = show(ELEMENTS)
    obj.maps.the_map[1], obj.maps.the_map[2] = 10, 20
    with obj.programs.show.attach(map=obj.maps.the_map) as elements:
        assert sorted(elements) == ["1=10", "2=20"]
        obj.maps.the_map.clear()
        assert list(elements) == []
    with pytest.raises(AttachError):
        obj.programs.show.attach()


@pytest.mark.bpf_requires("iter/bpf_map_elem")
def test_the_map_of_an_iterator_has_any_id(show, bpf):
    """The kernel gives each new map the next number. Only one above 255 has more than one byte."""
    number = 0
    while number < 255:
        with bpf.create_map("array", key=4, value=4, max_entries=1) as other:
            number = other.id
    obj = show(ELEMENTS)
    with obj.programs.show.attach(map=obj.maps.the_map) as link:
        assert link.info.target == {"iterator": "bpf_map_elem", "map_id": obj.maps.the_map.id}
    assert obj.maps.the_map.id > 255


@pytest.mark.bpf_requires("iter/task", "iter/bpf_map_elem")
def test_a_target_of_another_kind_of_iterator_is_refused(show, bpf_cgroup):
    """The kernel takes a map's descriptor for a thread's id, or ignores the target."""
    tasks, elements = show(TASKS).programs.show, show(ELEMENTS)
    the_map = elements.maps.the_map
    with pytest.raises(AttachError, match="this iterator does not run over a map\n  -> leave map= out"):
        tasks.attach(map=the_map)
    with pytest.raises(AttachError):
        tasks.attach(cgroup=bpf_cgroup)
    for together in (
        {"order": "children"},
        {"map": the_map, "pid": os.getpid()},
        {"map": the_map, "order": "children"},
    ):
        with pytest.raises(AttachError, match="these keywords do not go together"):
            elements.programs.show.attach(**together)
    with tasks.attach() as link:
        assert f"{os.getpid()} {os.getpid()}" in list(link)


@pytest.mark.bpf_requires("iter/cgroup")
def test_cgroups_below_one(show, bpf_cgroup):
    obj = show(CGROUPS)
    path = str(getattr(bpf_cgroup, "path", bpf_cgroup))
    child = os.path.join(path, "child")
    os.mkdir(child)
    try:
        ids = [str(os.stat(p).st_ino) for p in (path, child)]
        with obj.programs.show.attach(cgroup=path) as below:
            assert list(below) == ids
        with obj.programs.show.attach(cgroup=path, order="descendants_post") as below:
            assert list(below) == ids[::-1]
        with obj.programs.show.attach(cgroup=path, order="self_only") as itself:
            assert list(itself) == ids[:1]
    finally:
        os.rmdir(child)
