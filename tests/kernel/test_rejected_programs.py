"""Tests the sentence, the C line and the registers for each program of fixtures/rejected."""

import re
from pathlib import Path

import pytest

from pytest_bpfmaps import VerifierError
from pytest_bpfmaps.kernel.privileges import CAPABILITIES, effective_capabilities, only_capabilities

FOLDER = Path(__file__).parents[2] / "fixtures" / "rejected"
PROGRAMS = sorted(p.name.removesuffix(".bpf.c") for p in FOLDER.glob("*.bpf.c"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_message_explains_the_rejection(bpf, bpf_kernel, name, record_property):
    source = FOLDER / f"{name}.bpf.c"
    text = source.read_text()
    with pytest.raises(VerifierError) as caught, only_capabilities(capabilities_for(text)):
        bpf.load(source)
    error, message = caught.value, str(caught.value)
    print(message)
    record_property("kernel", bpf_kernel.id)
    record_property("verifier_log", error.log)

    expected = re.match(r"// expect: (.*)", text)[1]
    first, *_ = message.splitlines()
    assert first.startswith(f"the verifier rejected program 'prog' of {name}.bpf.c: ")
    assert re.search(expected, first)
    assert "\n  -> " in message
    lines = list(enumerate(text.splitlines(), 1))
    # clang moves the instructions of a relocation; the message shows the line that names the field
    shown = [n for n, line in lines if "// shown" in line]
    marked = shown or [n for n, line in lines if "// rejected" in line]
    for number in marked:
        assert f"{name}.bpf.c:{number}: " in message
    assert error.log
    assert error.errno


def capabilities_for(text):
    """Returns this process's capabilities without those that the source names after "// without:"."""
    without = re.search(r"// without: (.*)", text)
    names = re.findall(r"CAP_\w+", without[1]) if without else []
    return effective_capabilities() & ~sum(1 << CAPABILITIES[name] for name in names)
