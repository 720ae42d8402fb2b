"""The report in the XML format of Cobertura. https://cobertura.github.io/cobertura/"""

from __future__ import annotations

import os
import time
from pathlib import Path
from xml.etree import ElementTree as ET

from pytest_bpfmaps.coverage.data import FileCoverage
from pytest_bpfmaps.coverage.reports.report_file import put
from pytest_bpfmaps.coverage.view import FileView, View


def write(view: View, target: Path) -> None:
    """Writes the file. Raises `OSError`."""
    root = ET.Element("coverage", version="1", timestamp=str(int(time.time() * 1000)))
    totals = [file.total for file in view.files]
    for name, value in _rates(*totals, sums=True).items():
        root.set(name, value)
    ET.SubElement(ET.SubElement(root, "sources"), "source").text = _text(str(view.root))
    packages = ET.SubElement(root, "packages")
    folders: dict[str, list[FileView]] = {}
    for file in view.files:
        folders.setdefault(os.path.dirname(file.name), []).append(file)
    for folder, files in folders.items():
        about = {"name": _text(folder.replace("/", ".") or "."), **_rates(*(file.total for file in files))}
        package = ET.SubElement(packages, "package", about)
        classes = ET.SubElement(package, "classes")
        for file in files:
            _class(classes, file)
    ET.indent(root)
    put(target, ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _class(classes: ET.Element, file: FileView) -> None:
    about = {"name": _text(os.path.basename(file.name)), "filename": _text(file.name)}
    made = ET.SubElement(classes, "class", {**about, **_rates(file.total)})
    methods = ET.SubElement(made, "methods")
    for function, count in sorted(file.total.functions.items()):
        rate = str(float(bool(count)))
        about = {"name": _text(function.name), "signature": ""}
        rates = {"line-rate": rate, "branch-rate": rate, "complexity": "0"}
        method = ET.SubElement(methods, "method", {**about, **rates})
        place = {"number": str(function.line), "hits": str(count)}
        ET.SubElement(ET.SubElement(method, "lines"), "line", place)
    lines = ET.SubElement(made, "lines")
    branches = file.branches()
    for line, count in sorted(file.total.lines.items()):
        one = ET.SubElement(lines, "line", number=str(line), hits=str(count))
        if ways := branches.get(line):
            taken = sum(bool(n) for _, n in ways)
            one.set("branch", "true")
            one.set("condition-coverage", f"{100 * taken // len(ways)}% ({taken}/{len(ways)})")


def _rates(*files: FileCoverage, sums: bool = False) -> dict[str, str]:
    lines = [count for file in files for count in file.lines.values()]
    branches = [count for file in files for count in file.branches.values()]
    found = {"complexity": "0"}
    for what, all_of_it, word in (("line", lines, "lines"), ("branch", branches, "branches")):
        covered = sum(map(bool, all_of_it))
        found[f"{what}-rate"] = f"{covered / len(all_of_it):.4g}" if all_of_it else "1"
        if sums:
            found[f"{word}-covered"], found[f"{word}-valid"] = str(covered), str(len(all_of_it))
    return found


def _text(name: str) -> str:
    """Returns a file name that XML can hold, whatever its bytes are."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
