"""Rule 9: in which order hosts are tried."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from kalends_availability.domain.plan import HostPlan, Plan

DAYS_SECONDS: Final = 90 * 86_400.0


class Standing(NamedTuple):
    """When a host's bookings of an event type were created (Unix time, ascending), the last 90 days of them and the very last."""

    created: Sequence[float] = ()
    last: float | None = None

    def since(self, begin: float) -> int:
        """Bookings created from a moment on; under a stopped clock a host joins in the moment of its first booking."""
        return len(self.created) - bisect_left(self.created, begin)


class Ranked(NamedTuple):
    """A host in its place, and the figures that put it there."""

    host: HostPlan
    figures: dict[str, float]


_NEW: Final = Standing()


def ranked(plan: Plan, hosts: Sequence[HostPlan], standings: Mapping[str, Standing], now: float) -> list[Ranked]:
    """The hosts, the one to be tried first in front; by priority, shortfall (round robin), longest unbooked, id."""
    if plan.event_type.assignment in {"single", "collective"}:
        return [Ranked(host, {}) for host in hosts]
    if plan.event_type.assignment == "round_robin":
        equals = {priority: _Equals(plan, priority, standings) for priority in {host.priority for host in hosts}}
        figures = {h.id: equals[h.priority].figures(h, now) for h in hosts}
    else:
        figures = {h.id: {"priority": float(h.priority)} for h in hosts}

    def place(host: HostPlan) -> tuple[float, float, float, str]:
        last = standings.get(host.id, _NEW).last
        return -host.priority, -figures[host.id].get("shortfall", 0.0), -1.0 if last is None else last, host.id

    return [Ranked(host, figures[host.id]) for host in sorted(hosts, key=place)]


class _Equals:
    """The active hosts of one priority, among whom bookings are shared out."""

    def __init__(self, plan: Plan, priority: int, standings: Mapping[str, Standing]) -> None:
        hosts = [host for host in plan.hosts if host.active and host.priority == priority]
        self._weights = sum(host.weight for host in hosts)
        self._theirs = [standings[host.id] for host in hosts if host.id in standings]
        self._standings = standings
        self._bookings: dict[float, int] = {}

    def figures(self, host: HostPlan, now: float) -> dict[str, float]:
        """The shortfall `w/W * N - n`, counted since this host joined."""
        since, weights = max(now - DAYS_SECONDS, host.joined), self._weights
        own, bookings = self._standings.get(host.id, _NEW).since(since), self._since(since)
        # One division, so that hosts with equal claims get equal numbers.
        shortfall = (host.weight * bookings - own * weights) / weights if weights else 0.0
        return {
            "priority": host.priority,
            "weight": host.weight,
            "weights": weights,
            "bookings": own,
            "of": bookings,
            "shortfall": shortfall,
        }

    def _since(self, begin: float) -> int:
        # Most hosts have joined together, or longer ago than counts: then one sum serves them all.
        if (found := self._bookings.get(begin)) is None:
            found = self._bookings[begin] = sum(one.since(begin) for one in self._theirs)
        return found
