"""A service may have as many connections as the system lets it."""

import subprocess
import sys

import pytest

LOOK = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from kalends_shared.service import allow_connections
allow_connections({most})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "most", "found"),
    [(256, 900, 65_536, "900 900"), (256, 900, 600, "600 900"), (800, 900, 600, "800 900")],
)
def test_the_soft_limit_of_open_files_is_raised(soft: int, hard: int, most: int, found: str) -> None:
    script = LOOK.format(soft=soft, hard=hard, most=most)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
