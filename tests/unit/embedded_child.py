"""Reads the objects in files, in a process of its own, so that a crash does not end the test run.

    python embedded_child.py FILE…

Prints a JSON list for each file: the names of the programs and maps that its objects would load.
"""

import faulthandler
import json
import sys
from pathlib import Path

from pytest_bpfmaps.loaders.embedded_objects import needed_by

if __name__ == "__main__":
    faulthandler.enable()
    for name in sys.argv[1:]:
        print(json.dumps([part.name for part in needed_by([Path(name)])]), flush=True)
