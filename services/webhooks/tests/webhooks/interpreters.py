"""The interpreters of other languages, where the machine has them; `.ci/interpreters` installs what is missing."""

import os
import shutil
import sys
from pathlib import Path

import pytest

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def interpreter(name: str) -> str:
    """Where it is; without it the test is passed over, and says so."""
    found = sys.executable if name == "python" else shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not on this machine; .ci/interpreters installs it")
    return found
