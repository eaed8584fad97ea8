"""The demo's steps, in order. Each checks what it shows."""

from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from kalends_cli.demo.peers import HOST_USER, PASSWORD, CalendarServer, Receiver, line
from kalends_cli.demo.show import Client, Show

ZONE: Final = "Europe/Madrid"
EVENTS: Final = ["booking.created", "booking.confirmed", "booking.rescheduled", "booking.cancelled"]


def next_tuesday(today: date) -> date:
    """A working day at least two days ahead, so that nothing of the story lies in the past."""
    return today + timedelta(days=(1 - today.weekday() - 2) % 7 + 2)


class Story:
    """One booking's life. `day` is the date it happens on, in Madrid."""

    def __init__(
        self, show: Show, url: str, admin_key: str, calendars: CalendarServer, receiver: Receiver, day: date
    ) -> None:
        self.show, self.calendars, self.receiver, self.day = show, calendars, receiver, day
        self.url = url
        self.api = Client(url, admin_key, show)

    def tell(self) -> None:
        self.make_a_key()
        self.set_up_the_host()
        self.connect_the_calendar()
        self.offer()
        self.subscribe()
        self.book()
        self.reschedule()
        self.cancel()

    def at(self, clock: str) -> str:
        hours, minutes = map(int, clock.split(":"))
        local = datetime(self.day.year, self.day.month, self.day.day, hours, minutes, tzinfo=ZoneInfo(ZONE))
        return local.isoformat()

    def offered(self, *, quiet: bool = True) -> list[str]:
        """The starts offered that day, as wall times in Madrid."""
        params = {"start": str(self.day), "end": str(self.day), "timezone": ZONE}
        path = f"/event-types/{self.event_type}/availability"
        answer = self.api.call("GET", path, params=params, quiet=True)
        starts = [slot["start_at"][11:16] for slot in answer["days"][0]["slots"]]
        if not quiet:
            self.show.request("GET", f"/api/v1{path}?start={self.day}&end={self.day}&timezone={ZONE}", None)
            self.show.console.print(f"  ← {self.day:%A %d %B}: [bold]{'  '.join(starts) or 'nothing'}[/bold]")
        return starts

    def make_a_key(self) -> None:
        self.show.step("A key for the integrator's back end")
        body = {"name": "Demo", "scopes": ["read", "write", "webhooks"]}
        key = self.api.call("POST", "/api-keys", body, want=201, keep=("id", "scopes", "mode", "prefix"))
        self.show.check("the secret is shown once, here", key["secret"])
        self.api = Client(self.url, key["secret"], self.show)

    def set_up_the_host(self) -> None:
        self.show.step("A schedule, a host, an event type")
        weekly = [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "09:00", "end": "15:00"}]
        schedule = self.api.call(
            "POST",
            "/schedules",
            {"name": "Office hours", "timezone": ZONE, "weekly": weekly},
            want=201,
            keep=("id", "timezone"),
        )
        host = self.api.call(
            "POST",
            "/hosts",
            {"name": "Grace Hopper", "email": "grace@example.test", "timezone": ZONE, "schedule_id": schedule["id"]},
            want=201,
            keep=("id", "name", "schedule_id"),
        )
        self.host = host["id"]
        event_type = self.api.call(
            "POST",
            "/event-types",
            {
                "title": "First consultation",
                "duration_minutes": 30,
                "hosts": [{"host_id": self.host}],
                "buffer_after_minutes": 0,
            },
            want=201,
            keep=("id", "slug", "duration_minutes", "hosts"),
        )
        self.event_type = event_type["id"]
        starts = self.offered(quiet=False)
        self.show.check("twelve half hours from nine to three", len(starts) == 12, starts)

    def connect_the_calendar(self) -> None:
        self.show.step("Grace's own calendar, on a CalDAV server with recurring events")
        body = {
            "host_id": self.host,
            "provider": "caldav",
            "url": self.calendars.url,
            "username": HOST_USER,
            "password": PASSWORD,
            "writes_bookings": True,
        }
        made = self.api.call(
            "POST", "/calendars", body, want=201, keep=("id", "provider", "status", "reads_busy", "writes_bookings")
        )
        self.show.check("the password never comes out", "password" not in made, made)
        self.show.until(
            "the calendar has been read",
            lambda: self.api.call("GET", f"/calendars/{made['id']}", quiet=True)["last_synced_at"],
        )

    def offer(self) -> None:
        self.show.step("What is left to offer")
        self.show.until("her stand-up at 09:30 is missing", lambda: "09:30" not in self.offered())
        self.show.until("so is her lunch, 13:00 to 14:00", lambda: not {"13:00", "13:30"} & set(self.offered()))
        starts = self.offered(quiet=False)
        self.show.check("what she marked as free, 11:00, is still offered", "11:00" in starts, starts)

    def subscribe(self) -> None:
        self.show.step("A webhook for every change")
        body = {"url": self.receiver.url, "events": EVENTS}
        hook = self.api.call(
            "POST", "/webhooks", body, want=201, keep=("id", "url", "events", "profile", "secret_hint")
        )
        self.receiver.secret = hook["secret"]
        self.show.check(
            "the signing secret is shown once, here", hook["secret"].startswith("whsec_"), hook["secret"][:6]
        )

    def book(self) -> None:
        self.show.step("The booking")
        body = {
            "event_type_id": self.event_type,
            "start_at": self.at("10:00"),
            "booker_name": "Ada Lovelace",
            "booker_email": "ada@example.test",
            "booker_timezone": "Europe/London",
        }
        booking = self.api.call(
            "POST", "/bookings", body, want=201, keep=("id", "status", "start_at", "end_at", "host_ids", "version")
        )
        self.booking = booking["id"]
        self.show.check("it is confirmed", booking["status"] == "confirmed", booking["status"])
        refused = self.api.call("POST", "/bookings", body, want=409, keep=("code",))
        self.show.check(
            f"a second one for the same time is refused, with {len(refused['alternatives'])} alternatives",
            refused["code"] == "slot_taken" and refused["alternatives"],
            refused,
        )
        self.show.until("the slot is gone", lambda: "10:00" not in self.offered())
        self.in_calendar("10:00")
        self.webhook("booking.confirmed", "10:00")

    def reschedule(self) -> None:
        self.show.step("The same booking, moved to noon")
        path = f"/bookings/{self.booking}/reschedule"
        body = {"start_at": self.at("12:00"), "reason": "A train that was late"}
        moved = self.api.call("POST", path, body, keep=("id", "status", "start_at", "end_at", "version"))
        self.show.check("it kept its id", moved["id"] == self.booking, moved["id"])
        self.show.until(
            "10:00 is back and 12:00 is gone", lambda: "10:00" in (starts := self.offered()) and "12:00" not in starts
        )
        self.in_calendar("12:00")
        self.webhook("booking.rescheduled", "12:00")

    def cancel(self) -> None:
        self.show.step("And cancelled")
        path = f"/bookings/{self.booking}/cancel"
        body = {"reason": "No longer needed"}
        gone = self.api.call("POST", path, body, keep=("id", "status", "cancelled_reason", "version"))
        self.show.check("it is cancelled", gone["status"] == "cancelled", gone["status"])
        self.show.until("the slot is back", lambda: "12:00" in self.offered())
        self.show.until("the event is gone from Radicale", lambda: not self.ours())
        self.webhook("booking.cancelled", None)
        self.show.check("no webhook came with a wrong signature", self.receiver.refused == 0, self.receiver.refused)
        self.show.check("Grace's own events are all still there", len(self.calendars.events()) == 3)

    def ours(self) -> list[str]:
        """The items in Radicale that are not Grace's own."""
        return [item for uid, item in self.calendars.events().items() if not uid.endswith("@demo")]

    def in_calendar(self, clock: str) -> None:
        """Shows the booking's event in Radicale, once it is there at that time and only there."""
        wanted = datetime.fromisoformat(self.at(clock))

        def look() -> str | None:
            items = self.ours()
            return items[0] if len(items) == 1 and _starts_at(items[0], wanted) else None

        item = self.show.until(f"its event in Radicale begins at {clock}", look)
        keep = ("UID", "DTSTART", "DTEND", "SUMMARY")
        for text in item.splitlines():
            if text.partition(":")[0].partition(";")[0] in keep:
                self.show.console.print(f"      [dim]{text}[/dim]", highlight=False)

    def webhook(self, event: str, clock: str | None) -> None:
        """Shows the webhook of that event, whose signature the Standard Webhooks library has verified."""
        got = self.show.until(
            f"{event} was received and its signature holds", lambda: self.receiver.wait_for(event, 0.05)
        )
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
            self.show.console.print(f"      [dim]{name}: {got.headers[name]}[/dim]", highlight=False)
        booking: dict[str, Any] = msgspec.json.decode(got.body)["data"]["booking"]
        self.show.check("it tells of this booking", booking["id"] == self.booking, booking["id"])
        if clock is not None:
            same = datetime.fromisoformat(booking["start_at"]) == datetime.fromisoformat(self.at(clock))
            self.show.check(f"at {clock}", same, booking["start_at"])


def _starts_at(item: str, wanted: datetime) -> bool:
    text = line(item, "DTSTART")
    zone = ZoneInfo("UTC") if text.endswith("Z") else _zone_of(item)
    return datetime.strptime(text.rstrip("Z"), "%Y%m%dT%H%M%S").replace(tzinfo=zone) == wanted


def _zone_of(item: str) -> ZoneInfo:
    head = next(text for text in item.splitlines() if text.startswith("DTSTART")).partition(":")[0]
    return ZoneInfo(head.partition("TZID=")[2].partition(";")[0])
