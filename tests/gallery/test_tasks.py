"""List the tasks of the machine with an iterator: a program that is read like a file."""

import os
import threading

import pytest

pytestmark = pytest.mark.bpf_requires("iter/task")


def test_lists_this_process_and_its_thread(bpf):
    lister = bpf.load("tasks.bpf.c")
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with lister.programs.list_tasks.attach() as tasks:
            heading, *lines = tasks
    finally:
        done.set()
        thread.join()

    assert heading == "PROCESS THREAD NAME"
    mine = {int(line.split()[1]) for line in lines if line.startswith(f"{os.getpid()} ")}
    assert mine >= {os.getpid(), thread.native_id}


def test_each_read_is_a_run_of_its_own(bpf):
    lister = bpf.load("tasks.bpf.c")
    with lister.programs.list_tasks.attach() as tasks:
        assert f"{os.getpid()} {os.getpid()} " in tasks.read()
        assert f"{os.getpid()} {os.getpid()} " in tasks.read()
