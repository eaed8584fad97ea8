"""Public holidays, as PyPI `holidays` has them. It is loaded where a schedule asks: it takes 20 MB, and most of a second."""

from functools import lru_cache

from kalends_availability.domain.zones import date_of, day_of


@lru_cache(maxsize=256)
def public_holidays(country: str, subdivision: str | None, year: int) -> frozenset[int]:
    """The days of a year that are public holidays there."""
    import holidays

    made = holidays.country_holidays(country, subdiv=subdivision, years=year)
    # A holiday's observed date may lie in the year before or after; each year answers for its own dates.
    return frozenset(day for day in map(day_of, made) if date_of(day).year == year)


@lru_cache(maxsize=1)
def _supported() -> dict[str, list[str]]:
    import holidays

    return holidays.list_supported_countries(include_aliases=True)


def known(country: str, subdivision: str | None) -> tuple[bool, bool]:
    """Tells whether there is such a country, and such a subdivision of it."""
    found = _supported().get(country)
    return found is not None, subdivision is None or (found is not None and subdivision in found)


def load() -> None:
    """Does beforehand what the first question would wait for."""
    public_holidays("ES", None, 2026)
