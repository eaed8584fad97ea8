"""Settings from an environment, and what is told of a wrong one."""

from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from kalends_shared.settings import ServiceSettings, SettingsError, describe, load

URL = "postgresql://u:hunter2@h/d"


class Probe(ServiceSettings, frozen=True, kw_only=True):
    nets: Annotated[tuple[str, ...], Meta(description="Networks.")] = ("10.0.0.0/8",)
    on: Annotated[bool, Meta(description="A switch.")] = False
    ratio: Annotated[float, Meta(ge=0, le=1, description="A share.")] = 0.5

    def __post_init__(self) -> None:
        if "everywhere" in self.nets:
            raise ValueError("KALENDS_NETS: everywhere is no network")


def test_values_are_read_by_their_types() -> None:
    read = load(
        Probe,
        {
            "KALENDS_DATABASE_URL": URL,
            "KALENDS_NETS": "fd00::/8, 127.0.0.0/8,",
            "KALENDS_ON": "true",
            "KALENDS_OPS_PORT": "7",
        },
    )
    assert (read.database_url, read.nets, read.on, read.ops_port, read.ratio) == (
        URL,
        ("fd00::/8", "127.0.0.0/8"),
        True,
        7,
        0.5,
    )
    assert read.direct_url == URL
    assert load(Probe, {"KALENDS_DATABASE_URL": URL, "KALENDS_NETS": ""}).nets == ("10.0.0.0/8",), "empty is unset"


def test_a_secret_may_stand_in_a_file_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(URL + "\n")
    read = load(Probe, {"KALENDS_DATABASE_URL_FILE": str(file)})
    assert read.database_url == URL
    assert "hunter2" not in repr(read)


def test_what_a_kind_itself_finds_wrong_is_told_as_the_rest_is() -> None:
    with pytest.raises(SettingsError, match="KALENDS_NETS: everywhere"):
        load(Probe, {"KALENDS_DATABASE_URL": URL, "KALENDS_NETS": "everywhere"})


def test_all_that_is_wrong_is_told_at_once_without_secrets() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            Probe,
            {
                "KALENDS_RATIO": "2",
                "KALENDS_ON": "maybe",
                "KALENDS_LOG_LEVEL": "loud",
                "KALENDS_NATS_URL_FILE": "/nowhere/at/all",
            },
        )
    told = str(caught.value).splitlines()
    assert sorted(line.split(":")[0].split(" ")[0] for line in told) == [
        "KALENDS_DATABASE_URL", "KALENDS_LOG_LEVEL", "KALENDS_NATS_URL_FILE", "KALENDS_ON", "KALENDS_RATIO",
    ]  # fmt: skip


def test_the_default_file_says_of_each_what_it_is_and_reads_as_the_defaults() -> None:
    text = describe(Probe)
    assert "# Networks.\n#KALENDS_NETS=10.0.0.0/8\n" in text
    assert "KALENDS_DATABASE_URL_FILE" in text
    uncommented = [line.lstrip("#") for line in text.splitlines() if line.lstrip("#").startswith("KALENDS_")]
    given = dict(line.split("=", 1) for line in uncommented) | {"KALENDS_DATABASE_URL": URL}
    assert load(Probe, given) == load(Probe, {"KALENDS_DATABASE_URL": URL})
