"""Which hosts and units serve a start (slots.md 5, 6, 8b, 9, 10, 10b)."""

from datetime import timedelta
from typing import Any

from kalends_booking.domain import choosing
from kalends_booking.domain.choosing import Seen, Taken, Wish
from kalends_shared.contracts.availability import EventType, EventTypeHost, Limit
from kalends_shared.contracts.quotes import Quote, QuotedHost, QuotedResource, QuotedStart, Refusal

from .given import HOUR, MADE, NOON, ONE, refused


def wish(
    *hosts: str,
    seats: int = 1,
    keep: tuple[str, ...] = (),
    resources: dict[str, int] | None = None,
    earlier: Any = (),
    zones: dict[str, str] | None = None,
    **settings: Any,
) -> Wish:
    """A wish for noon to one with these hosts in ranked order."""
    several = {"assignment": "round_robin"} if len(hosts) > 1 else {}
    kind = EventType(
        **{
            "id": "evt_1",
            "created_at": MADE,
            "updated_at": MADE,
            "version": 1,
            "title": "Visit",
            "duration_minutes": 60,
            "hosts": [EventTypeHost(host) for host in hosts],
            **several,
            **settings,
        }
    )
    start = QuotedStart(
        start_at=NOON,
        end_at=ONE,
        hosts=[QuotedHost(id=host, name=host, email=None, timezone="UTC") for host in hosts],
        earlier_starts=list(earlier),
    )
    held = [QuotedResource(one, quantity) for one, quantity in (resources or {}).items()]
    quote = Quote(
        quoted_at=MADE, event_type=kind, timezone="UTC", host_zones=zones or {}, resources=held, starts=[start]
    )
    return Wish(quote=quote, start=start, seats=seats, keep=keep)


def taken(
    subject: str,
    slot: str = "evt_1",
    seats: int = 1,
    shift: timedelta = timedelta(),
) -> Taken:
    resource = subject.partition("#")[0] if "#" in subject else None
    low, high = NOON + shift, ONE + shift
    return Taken(subject, resource, slot, low, high, low, high, seats)


def hosts(wanted: Wish, *seen: Taken, counted: Any = None) -> list[list[str]]:
    return [[h.id for h in option.hosts] for option in choosing.options(wanted, Seen(seen, counted or {}))]


def test_one_host_needs_no_look() -> None:
    assert choosing.plain(wish("ann")) is not None
    assert choosing.plain(wish("ann", "bob")) is None
    assert choosing.plain(wish("ann", "bob", assignment="collective")) is not None
    assert choosing.plain(wish("ann", resources={"res_room": 1})) is not None
    assert choosing.plain(wish("ann", resources={"res_room": 2})) is None
    assert choosing.plain(wish("ann", earlier=[(NOON - HOUR, ["ann"])])) is None


def test_ranked_hosts_are_tried_in_order_without_the_busy_ones() -> None:
    assert hosts(wish("ann", "bob", "cid")) == [["ann"], ["bob"], ["cid"]]
    assert hosts(wish("ann", "bob", "cid"), taken("ann")) == [["bob"], ["cid"]]


def test_all_busy_is_taken() -> None:
    with refused("slot_taken", rule="busy"):
        hosts(wish("ann", "bob"), taken("ann"), taken("bob", shift=timedelta(minutes=30)))


def test_what_only_touches_is_free() -> None:
    assert hosts(wish("ann", "bob"), taken("ann", shift=HOUR), taken("bob", shift=-HOUR)) == [["ann"], ["bob"]]


def test_buffers_of_the_new_one_count() -> None:
    assert hosts(wish("ann", "bob", buffer_before_minutes=1), taken("ann", shift=-HOUR)) == [["bob"]]


def test_a_booking_that_moves_keeps_its_host_where_it_can() -> None:
    assert hosts(wish("ann", "bob", keep=("bob",)))[0] == ["bob"]
    assert hosts(wish("ann", "bob", keep=("bob",)), taken("bob"))[0] == ["ann"]


def test_some_of_many() -> None:
    two = wish("ann", "bob", "cid", required_hosts=2)
    assert hosts(two) == [["ann", "bob"], ["ann", "cid"]]
    assert hosts(two, taken("ann")) == [["bob", "cid"]]
    with refused("slot_taken"):
        hosts(two, taken("ann"), taken("bob"))


class TestGroups:
    def test_the_fullest_begun_one_is_filled_before_any_rank(self) -> None:
        group = wish("ann", "bob", "cid", capacity=5)
        assert hosts(group, taken("cid", seats=3), taken("bob", seats=2)) == [["cid"], ["bob"], ["ann"]]

    def test_not_past_its_capacity(self) -> None:
        group = wish("ann", "bob", capacity=3, seats=2)
        assert hosts(group, taken("ann", seats=2)) == [["bob"]]
        with refused("slot_taken", rule="capacity"):
            hosts(group, taken("ann", seats=2), taken("bob", seats=2))

    def test_another_start_of_the_same_event_type_is_a_conflict(self) -> None:
        group = wish("ann", "bob", capacity=3)
        other, full = timedelta(minutes=15), taken("bob", seats=3)
        assert hosts(group, taken("ann", shift=other)) == [["bob"]]
        with refused("slot_taken", rule="busy"):
            hosts(group, taken("ann", shift=other), taken("bob", shift=other))
        with refused("slot_taken", rule="capacity"):
            hosts(group, taken("ann", shift=other), full)
        with refused("slot_taken", rule="busy"):
            hosts(wish("ann", "bob", capacity=3, assignment="collective"), taken("ann", shift=other), full)

    def test_another_event_type_is_a_conflict(self) -> None:
        assert hosts(wish("ann", "bob", capacity=3), taken("ann", slot="evt_2")) == [["bob"]]

    def test_more_seats_than_it_has(self) -> None:
        with refused("slot_taken", rule="capacity"):
            choosing.admit(wish("ann", capacity=3, seats=4))

    def test_joining_uses_the_units_that_the_group_has(self) -> None:
        group = wish("ann", "bob", capacity=3, resources={"res_room": 3})
        rooms = (taken("res_room#1", slot="evt_1/bob"), taken("res_room#2", slot="evt_1/ann"))
        options = choosing.options(group, Seen((taken("ann"), taken("bob"), *rooms)))
        assert {o.hosts[0].id: o.units[0].subject_id for o in options} == {"ann": "res_room#2", "bob": "res_room#1"}

    def test_not_with_buffers_that_have_grown_into_who_has_the_unit_next(self) -> None:
        rooms = (taken("res_room#1", slot="evt_1/ann"), taken("res_room#1", slot="evt_2/cid", shift=HOUR))
        seen = Seen((taken("ann"), *rooms))
        group = wish("ann", capacity=3, resources={"res_room": 2})
        assert [unit.subject_id for unit in choosing.options(group, seen)[0].units] == ["res_room#1"]
        with refused("slot_taken", rule="resource"):
            choosing.options(wish("ann", capacity=3, resources={"res_room": 2}, buffer_after_minutes=60), seen)

    def test_a_group_that_several_serve_together_has_its_units_once(self) -> None:
        group = wish("ann", "bob", capacity=3, assignment="collective", resources={"res_room": 2})
        rooms = (taken("res_room#1", slot="evt_1/ann"), taken("res_room#2", slot="evt_2/cid"))
        (option,) = choosing.options(group, Seen((taken("ann"), taken("bob"), *rooms)))
        assert [unit.subject_id for unit in option.units] == ["res_room#1"]

    def test_joining_is_never_limited(self) -> None:
        group = wish("ann", "bob", capacity=3, limits=[Limit(count=1, per="day")])
        counted = dict.fromkeys(choosing.all_limits(group), (1, 60))
        assert hosts(group, taken("ann"), counted=counted) == [["ann"]]


class TestResources:
    def test_the_lowest_numbered_free_unit_is_taken(self) -> None:
        options = choosing.options(wish("ann", resources={"res_room": 3}), Seen((taken("res_room#1", slot="x"),)))
        assert [unit.subject_id for unit in options[0].units] == ["res_room#2"]

    def test_none_free_is_taken(self) -> None:
        with refused("slot_taken", rule="resource"):
            choosing.options(wish("ann", resources={"res_room": 1}), Seen((taken("res_room#1", slot="x"),)))


class TestLimits:
    def test_a_full_host_drops_out(self) -> None:
        limited = wish("ann", "bob", limits=[Limit(count=2, per="day")])
        counted = {limit: (2 if limit.host_id == "ann" else 1, 0) for limit in choosing.all_limits(limited)}
        assert hosts(limited, counted=counted) == [["bob"]]

    def test_minutes_must_still_fit(self) -> None:
        limited = wish("ann", "bob", limits=[Limit(minutes=90, per="week")])
        counted = {limit: (1, 31 if limit.host_id == "ann" else 30) for limit in choosing.all_limits(limited)}
        assert hosts(limited, counted=counted) == [["bob"]]

    def test_the_rule_that_leaves_too_few_is_the_one_that_refuses(self) -> None:
        limited = wish("ann", "bob", limits=[Limit(count=1, per="day")])
        counted = dict.fromkeys(choosing.all_limits(limited), (1, 60))
        with refused("limit_reached", rule="limit"):
            hosts(limited, taken("ann"), counted=counted)
        with refused("slot_taken", rule="busy"):
            hosts(limited, taken("ann"), taken("bob"), counted=counted)


class TestFirstOfDay:
    def test_refused_while_an_earlier_start_is_free(self) -> None:
        with refused("slot_not_offered", rule="first_of_day"):
            hosts(wish("ann", earlier=[(NOON - HOUR, ["ann"])]))

    def test_allowed_once_they_are_taken(self) -> None:
        assert hosts(wish("ann", earlier=[(NOON - HOUR, ["ann"])]), taken("ann", shift=-HOUR)) == [["ann"]]

    def test_told_before_its_being_taken(self) -> None:
        """api.md's order: what is not offered, then what is taken."""
        with refused("slot_not_offered", rule="first_of_day"):
            hosts(wish("ann", earlier=[(NOON - HOUR, ["ann"])]), taken("ann"))

    def test_told_before_a_busy_calendar(self) -> None:
        busy = wish("ann", earlier=[(NOON - HOUR, ["ann"])])
        busy.start.hosts, busy.start.refusal = [], Refusal(code="slot_taken", rule="busy", detail="Busy.")
        choosing.admit(busy)
        with refused("slot_not_offered", rule="first_of_day"):
            hosts(busy)
        with refused("slot_taken", rule="busy"):
            hosts(busy, taken("ann", shift=-HOUR))

    def test_an_earlier_start_past_a_limit_is_not_free(self) -> None:
        """Of a date in the event type's zone two starts may lie in two days of a host's."""
        limit = {"limits": [Limit(count=1, per="day")], "zones": {"ann": "Pacific/Auckland"}}
        noon = wish("ann", earlier=[(NOON - HOUR, ["ann"])], **limit)
        noon.start.hosts[0].limits_timezone = "Pacific/Auckland"
        before, after = (
            choosing.limits(noon.event_type, one.start, one.start.hosts)[0]
            for one in (noon.earlier(NOON - HOUR, ["ann"]), noon)
        )
        assert before.to_at == after.from_at == NOON
        assert hosts(noon, counted={before: (1, 60)}) == [["ann"]]
        with refused("slot_not_offered", rule="first_of_day"):
            hosts(noon, counted={after: (1, 60)})
        with refused("limit_reached"):
            hosts(noon, counted={before: (1, 60), after: (1, 60)})

    def test_an_earlier_start_of_another_host_is_limited_in_that_hosts_zone(self) -> None:
        limit = {"limits": [Limit(count=1, per="day")], "zones": {"bob": "Pacific/Auckland"}}
        noon = wish("ann", earlier=[(NOON - HOUR, ["bob"])], **limit)
        of_bob = next(one for one in choosing.all_limits(noon) if one.host_id == "bob")
        assert of_bob.to_at == NOON
        assert hosts(noon, counted={of_bob: (1, 60)}) == [["ann"]]

    def test_a_group_that_has_begun_is_free_while_it_has_room(self) -> None:
        group = wish("ann", capacity=3, seats=2, earlier=[(NOON - HOUR, ["ann"])], limits=[Limit(count=1, per="day")])
        counted = dict.fromkeys(choosing.all_limits(group), (1, 60))
        begun = taken("ann", shift=-HOUR)
        with refused("slot_not_offered", rule="first_of_day"):
            hosts(group, begun, counted=counted)
        assert hosts(group, begun._replace(seats=2)) == [["ann"]]


def test_what_the_quote_refuses_is_refused_as_it_says() -> None:
    wanted = wish("ann")
    wanted.start.refusal = Refusal(code="slot_not_offered", rule="grid", detail="Off the grid.")
    with refused("slot_not_offered", rule="grid"):
        choosing.admit(wanted)
