"""Each program of fixtures/rejected: the sentence, the C line, the registers."""

import re
from pathlib import Path

import pytest

from pytest_bpfmaps import VerifierError

FOLDER = Path(__file__).parents[2] / "fixtures" / "rejected"
PROGRAMS = sorted(p.name.removesuffix(".bpf.c") for p in FOLDER.glob("*.bpf.c"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_message_explains_the_rejection(bpf, bpf_kernel, name, record_property):
    source = FOLDER / f"{name}.bpf.c"
    text = source.read_text()
    error = refusal_of(bpf, source)
    if error is None:
        accepted = re.search(r"// accepted by: (.*)", text)
        assert accepted, "the verifier accepted the program"
        pytest.skip(f"{bpf_kernel.release} accepts this program: {accepted[1]}")
    message = str(error)
    print(message)
    record_property("verifier_log", error.log)

    expected = re.match(r"// expect: (.*)", text)[1]
    first, *_ = message.splitlines()
    assert first.startswith(f"the verifier rejected program 'prog' of {name}.bpf.c: ")
    assert re.search(expected, first)
    assert "\n  -> " in message
    marked = [n for n, line in enumerate(text.splitlines(), 1) if "// rejected" in line]
    for number in marked:
        assert f"{name}.bpf.c:{number}: " in message
    assert error.log
    assert error.errno


def refusal_of(bpf, source):
    try:
        bpf.load(source)
    except VerifierError as e:
        return e
    return None
