"""Tests how libbpf is opened, its log, and its return codes."""

import re
import threading

import pytest

from pytest_bpfmaps import LoadError, UnsupportedError
from pytest_bpfmaps.libbpf import capture_log, check, check_pointer, ffi, lib, opts, version
from pytest_bpfmaps.libbpf.library import Library

NO_OBJECT = b"/etc/hostname"


def open_nothing():
    return lib.bpf_object__open_file(NO_OBJECT, ffi.NULL)


def test_version_is_one_we_support():
    assert (1, 1) <= version() < (2, 0)


def test_a_missing_symbol_is_named():
    assert not lib.has("bpf_no_such_function")
    with pytest.raises(
        UnsupportedError, match=r"(?s)bpf_no_such_function\(\) of libbpf 1\.\d+: .* newer libbpf"
    ):
        _ = lib.bpf_no_such_function


@pytest.mark.parametrize("where", ["/nonexistent/libbpf.so.1", "libbpf-nonexistent.so.1"])
def test_no_libbpf_says_what_to_install(where):
    with pytest.raises(UnsupportedError, match="apt-get install libbpf1"):
        _ = Library(where).libbpf_major_version


def test_a_libbpf_named_by_the_environment_is_used(monkeypatch):
    monkeypatch.setenv("BPFMAPS_LIBBPF", "/nonexistent/libbpf.so.1")
    with pytest.raises(UnsupportedError, match="/nonexistent/libbpf"):
        _ = Library().libbpf_major_version


def test_log_is_captured_per_call():
    with capture_log() as log:
        assert open_nothing() == ffi.NULL
    assert "is not a proper ELF object" in log.text
    with capture_log() as second:
        pass
    assert second.messages == []


def test_debug_messages_on_request():
    with capture_log(level=2) as log:
        open_nothing()
    assert re.search(r"loading (object from )?/etc/hostname", log.text)  # libbpf 1.4 has more words


def test_nested_captures_get_their_own_part():
    with capture_log() as outer:
        with capture_log() as inner:
            open_nothing()
        open_nothing()
    assert len(inner.messages) == len(outer.messages) == 1


def test_each_thread_captures_its_own_messages():
    captured = {}
    together = threading.Barrier(4)

    def work(number):
        together.wait()
        with capture_log() as log:
            for _ in range(number):
                open_nothing()
        captured[number] = len(log.messages)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert captured == {1: 1, 2: 2, 3: 3, 4: 4}


def test_messages_that_nobody_captures_are_logged(caplog):
    open_nothing()
    assert "is not a proper ELF object" in caplog.text


def test_check_gives_the_result_or_raises():
    assert check(7, LoadError, "cannot try") == 7
    with pytest.raises(LoadError, match="cannot try x: EPERM: Operation not permitted") as caught:
        check(-1, LoadError, "cannot try", on="x")
    assert caught.value.errno == 1
    assert isinstance(caught.value, OSError)


def test_check_pointer_takes_errno():
    pointer = lib.bpf_object__open_file(b"/nonexistent.bpf.o", ffi.NULL)
    with pytest.raises(LoadError, match="ENOENT"):
        check_pointer(pointer, LoadError, "cannot open", on="/nonexistent.bpf.o")


def test_opts_know_their_size():
    made = opts("bpf_map_batch_opts", elem_flags=4)
    assert (made.sz, made.elem_flags, made.flags) == (24, 4, 0)
