"""How much a test run tries: `make test` storms and properties at reduced counts, `make test-full` at the full figures."""

import os
from typing import Final

FULL: Final = os.environ.get("KALENDS_TEST_FULL") == "1"


def count(*, reduced: int, full: int) -> int:
    """How often: `full` in a run of `make test-full`, else `reduced`."""
    return full if FULL else reduced


def set_up_hypothesis() -> None:
    """Examples of a property by the run's scale; no deadline for one, because the machine is shared.

    A reduced run draws the same examples each time, as it judges a change; a full one searches on.
    """
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "kalends",
        max_examples=count(reduced=60, full=1_000),
        deadline=None,
        derandomize=not FULL,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("kalends")
