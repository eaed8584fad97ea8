"""What booking is told: who may serve a start, in which order, or which rule refuses."""

from datetime import timedelta

import pytest

from .world import NOW, OFFICE, Client, at, pointers, refusal

DAY = timedelta(days=1)


async def test_a_quote(api: Client) -> None:
    host = await api.host(OFFICE, email="ann@example.test")
    place = await api.made("location", {"name": "Shop"})
    room = await api.made("resource", {"name": "Room", "quantity": 2})
    kind = await api.event_type(host, location_ids=[place["id"]], resource_ids=[room["id"]])
    quote = await api.quote(kind["id"], at(7))
    assert (quote["event_type"], quote["timezone"], quote["location"]) == (kind, "Europe/Madrid", place)
    assert quote["resources"] == [{"id": room["id"], "quantity": 2}]
    start = quote["starts"][0]
    assert (start["start_at"], start["end_at"], start["refusal"]) == (
        "2026-04-06T07:00:00Z",
        "2026-04-06T07:30:00Z",
        None,
    )
    assert start["hosts"] == [
        {
            "id": host["id"],
            "name": "Ann",
            "email": "ann@example.test",
            "timezone": host["timezone"],
            "limits_timezone": "Europe/Madrid",
            "rank": {},
        }
    ]


async def test_bookings_and_holds_are_not_judged_but_calendars_are(api: Client) -> None:
    kind = await api.event_type()
    host = {"id": kind["hosts"][0]["host_id"]}
    await api.booked(kind, at(9))
    assert (await api.quote(kind["id"], at(9)))["starts"][0]["refusal"] is None
    await api.busy_calendar(host, (at(9), at(10)))
    refused = (await api.quote(kind["id"], at(9)))["starts"][0]["refusal"]
    assert (refused["code"], refused["rule"]) == ("slot_taken", "busy")


@pytest.mark.parametrize(
    ("settings", "hour", "rule"),
    [
        ({}, 6, "working_hours"),
        ({}, 7.25, "grid"),
        ({"duration_minutes": 45, "slot_interval_minutes": 30}, 8.5, "fit"),
        ({"minimum_notice_minutes": 60 * 24 * 10}, 7, "notice"),
        ({"booking_window": {"rolling_days": 2}}, 7, "window"),
        ({}, 7 - 24 * 7, "notice"),
    ],
)
async def test_the_rule_that_refuses(api: Client, settings: dict[str, object], hour: float, rule: str) -> None:
    kind = await api.event_type(await api.host(OFFICE), **settings)
    refused = (await api.quote(kind["id"], at(hour)))["starts"][0]["refusal"]
    assert (refused["code"], refused["rule"]) == ("slot_not_offered", rule)


async def test_seconds_are_off_the_grid(api: Client) -> None:
    kind = await api.event_type()
    refused = (await api.quote(kind["id"], at(9) + timedelta(seconds=1)))["starts"][0]["refusal"]
    assert refused["rule"] == "grid"


async def test_away_restriction_and_inactive(api: Client) -> None:
    host = await api.host(OFFICE | {"away": [{"start_at": "2026-04-06T07:00:00Z", "end_at": "2026-04-06T07:10:00Z"}]})
    narrow = await api.made("schedule", OFFICE | {"weekly": [{"days": ["mon"], "start": "10:30", "end": "11:00"}]})
    kind = await api.event_type(host, restriction_schedule_id=narrow["id"])
    rules = [(await api.quote(kind["id"], at(h)))["starts"][0]["refusal"] for h in (7, 7.5, 8.5)]
    assert [r and r["rule"] for r in rules] == ["away", "restriction", None]
    await api.patch("host", host["id"], {"active": False})
    assert (await api.quote(kind["id"], at(8.5)))["starts"][0]["refusal"]["rule"] == "host_inactive"
    await api.patch("event_type", kind["id"], {"active": False})
    assert (await refusal(api.quote(kind["id"], at(8.5)))).code == "inactive"


async def test_ids_and_lengths_in_a_request(api: Client) -> None:
    kind, other = await api.event_type(durations=[30, 60]), await api.host()
    place = await api.made("location", {"name": "Shop"})
    for fields, pointer in (
        ({"host_id": "hst_gone"}, ("#/host_id", "not_found")),
        ({"host_id": other["id"]}, ("#/host_id", "invalid")),
        ({"location_id": "loc_gone"}, ("#/location_id", "not_found")),
        ({"end_at": at(9.75)}, ("#/end_at", "invalid")),
        ({"end_at": at(9)}, ("#/end_at", "invalid")),
    ):
        assert pointers(await refusal(api.quote(kind["id"], at(9), **fields))) == [pointer]
    assert pointers(await refusal(api.quote("evt_gone", at(9)))) == [("#/event_type_id", "not_found")]
    quote = await api.quote(kind["id"], at(9), end_at=at(10), location_id=place["id"])
    assert (quote["starts"][0]["end_at"], quote["location"]["id"]) == ("2026-04-06T10:00:00Z", place["id"])


async def test_a_moving_booking_keeps_its_length(api: Client) -> None:
    kind = await api.event_type()
    one = await api.booked(kind, at(9))
    await api.patch("event_type", kind["id"], {"duration_minutes": 60})
    fields = {"end_at": at(10.5), "booking_id": one.id, "purpose": "reschedule"}
    assert (await api.quote(kind["id"], at(10), **fields))["starts"][0]["refusal"] is None
    fields["end_at"] = at(10.25)
    assert pointers(await refusal(api.quote(kind["id"], at(10), **fields))) == [("#/end_at", "invalid")]


async def test_a_booking_whose_event_type_was_deleted_stays_where_it_is(api: Client) -> None:
    kind = await api.event_type()
    await api.delete("event_type", kind["id"])
    for purpose in ("reschedule", "reassign"):
        fields = {"booking_id": "bkg_one", "purpose": purpose}
        assert (await refusal(api.quote(kind["id"], at(9), **fields))).code == "inactive"


async def test_reassigning_judges_the_host_not_the_time(api: Client) -> None:
    kind = await api.event_type(await api.host(OFFICE), minimum_notice_minutes=60 * 24 * 30)
    fields = {"end_at": at(7.75), "purpose": "reassign"}
    assert (await api.quote(kind["id"], at(7.25), **fields))["starts"][0]["refusal"] is None
    fields["end_at"] = at(12.5)
    assert (await api.quote(kind["id"], at(12), **fields))["starts"][0]["refusal"]["rule"] == "working_hours"


async def test_a_part_of_several_is_judged_by_its_host_alone(api: Client) -> None:
    office, always, inactive = await api.host(OFFICE), await api.host(), await api.host()
    await api.patch("host", inactive["id"], {"active": False})
    for several in ({"assignment": "collective"}, {"assignment": "any", "required_hosts": 2}):
        kind = await api.event_type(office, always, inactive, **several)
        fields = {"end_at": at(12.5), "purpose": "reassign"}
        start = (await api.quote(kind["id"], at(12), host_id=always["id"], **fields))["starts"][0]
        assert ([host["id"] for host in start["hosts"]], start["refusal"]) == ([always["id"]], None)
        for host, rule in ((office, "working_hours"), (inactive, "host_inactive")):
            start = (await api.quote(kind["id"], at(12), host_id=host["id"], **fields))["starts"][0]
            assert start["refusal"]["rule"] == rule
        stranger = await api.host()
        for one, code in ((stranger["id"], "invalid"), ("hst_gone", "not_found")):
            assert pointers(await refusal(api.quote(kind["id"], at(12), host_id=one, **fields))) == [
                ("#/host_id", code)
            ]
        assert pointers(await refusal(api.quote(kind["id"], at(12), host_id=always["id"]))) == [
            ("#/host_id", "invalid")
        ]


async def test_several_starts_of_a_series(api: Client) -> None:
    kind = await api.event_type(booking_window={"rolling_days": 7})
    more = [at(9) + 30 * DAY, at(9) + 1000 * DAY]
    starts = (await api.quote(kind["id"], at(9), more_starts=more))["starts"]
    # The window binds the first; 730 days bind all.
    assert [s["refusal"] and s["refusal"]["rule"] for s in starts] == [None, None, "window"]


async def test_a_host_is_quoted_in_its_own_zone_and_in_that_of_its_limits(api: Client) -> None:
    for zone, limits in (("America/Lima", OFFICE["timezone"]), (OFFICE["timezone"], None)):
        kind = await api.event_type(await api.host(OFFICE, timezone=zone))
        (host,) = (await api.quote(kind["id"], at(8)))["starts"][0]["hosts"]
        assert (host["timezone"], host.get("limits_timezone")) == (zone, limits)


async def test_only_first_names_the_earlier_starts(api: Client) -> None:
    kind = await api.event_type(await api.host(OFFICE), only_first_slot_of_day=True)
    start = (await api.quote(kind["id"], at(8)))["starts"][0]
    assert start["refusal"] is None
    host = kind["hosts"][0]["host_id"]
    earlier = [["2026-04-06T07:00:00Z", [host]], ["2026-04-06T07:30:00Z", [host]]]
    assert start["earlier_starts"] == earlier
    assert (await api.quote(kind["id"], at(8)))["host_zones"] == {host: OFFICE["timezone"]}
    # Also where a calendar is busy then, for that is the refusal only once no earlier start is free.
    await api.busy_calendar({"id": host}, (at(8), at(9)))
    start = (await api.quote(kind["id"], at(8)))["starts"][0]
    assert (start["refusal"]["rule"], start["earlier_starts"]) == ("busy", earlier)
    assert (await api.quote(kind["id"], at(12)))["starts"][0]["earlier_starts"] == []


async def test_several_hosts_and_the_order_of_refusals(api: Client) -> None:
    office, always = await api.host(OFFICE), await api.host()
    kind = await api.event_type(office, always, assignment="any", required_hosts=2)
    assert {h["id"] for h in (await api.quote(kind["id"], at(7)))["starts"][0]["hosts"]} == {office["id"], always["id"]}
    assert (await api.quote(kind["id"], at(12)))["starts"][0]["refusal"]["rule"] == "working_hours"
    await api.busy_calendar(always, (at(7), at(8)))
    assert (await api.quote(kind["id"], at(7)))["starts"][0]["refusal"]["rule"] == "busy"
    together = await api.event_type(office, always, assignment="collective")
    await api.patch("host", always["id"], {"active": False})
    assert (await api.quote(together["id"], at(8)))["starts"][0]["refusal"]["rule"] == "host_inactive"


@pytest.mark.parametrize("pace", [timedelta(minutes=1), timedelta()], ids=["time goes on", "a stopped clock"])
async def test_round_robin_ranks_by_shortfall(api: Client, pace: timedelta) -> None:
    hosts = [await api.host() for _ in range(3)]
    weights = [100, 100, 200]
    named = [{"host_id": h["id"], "weight": w} for h, w in zip(hosts, weights, strict=True)]
    kind = await api.event_type(*hosts, hosts=named, assignment="round_robin")

    async def order() -> list[int]:
        ranked = (await api.quote(kind["id"], at(9)))["starts"][0]["hosts"]
        return [[h["id"] for h in hosts].index(one["id"]) for one in ranked]

    served = []
    for n in range(8):
        first = (await order())[0]
        served.append(first)
        made = NOW + (n + 1) * pace
        await api.booked(kind, at(9) + n * DAY, host_ids=[hosts[first]["id"]], created_at=made)
    # By weight: two of eight each for the first two, four for the third.
    assert [served.count(n) for n in range(3)] == [2, 2, 4]
    figures = (await api.quote(kind["id"], at(9)))["starts"][0]["hosts"][0]["rank"]
    assert (figures["of"], figures["weights"]) == (8, 400)


async def test_priority_comes_first_and_then_the_longest_unbooked(api: Client) -> None:
    hosts = [await api.host() for _ in range(3)]
    named = [{"host_id": h["id"], "priority": p} for h, p in zip(hosts, (1, 2, 2), strict=True)]
    kind = await api.event_type(*hosts, hosts=named, assignment="any")
    await api.booked(kind, at(9), host_ids=[hosts[1]["id"]])
    ranked = (await api.quote(kind["id"], at(10)))["starts"][0]["hosts"]
    assert [one["id"] for one in ranked] == [hosts[2]["id"], hosts[1]["id"], hosts[0]["id"]]


async def test_alternatives(api: Client) -> None:
    kind = await api.event_type(await api.host(OFFICE))
    await api.booked(kind, at(7.5))

    async def others(**fields: object) -> list[str]:
        found = (await api.ask("alternatives", {"event_type_id": kind["id"], "after": at(7), **fields})).body
        return [one["start_at"] for one in found["data"]]

    assert await others(exclude=[at(7)]) == [
        "2026-04-06T08:00:00Z", "2026-04-06T08:30:00Z", "2026-04-07T07:00:00Z", "2026-04-07T07:30:00Z", "2026-04-07T08:00:00Z",
    ]  # fmt: skip
    assert await others(limit=1, duration_minutes=60) == ["2026-04-06T08:00:00Z"]
    assert (await others(after=NOW - 30 * DAY))[0] == "2026-04-02T07:00:00Z"
    assert await others(after=at(0) + 300 * DAY) == []
    first = await api.event_type(await api.host(OFFICE), only_first_slot_of_day=True)
    kind["id"] = first["id"]
    assert await others(limit=2) == ["2026-04-06T07:00:00Z", "2026-04-07T07:00:00Z"]
    assert await others(limit=1, after=at(7.5)) == ["2026-04-07T07:00:00Z"]
