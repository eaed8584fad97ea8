"""What operators see of this service beside units of work."""

from typing import Final

from prometheus_client import Counter, Gauge

READ: Final = Counter("kalends_calendar_readings_total", "Readings of calendars, by outcome.", ["outcome"])
CHANGED: Final = Counter("kalends_calendar_events_total", "External events upserted or deleted.", ["what"])
QUARANTINED: Final = Counter("kalends_calendar_problems_total", "Calendar objects that could not be understood.")
WRITTEN: Final = Counter("kalends_calendar_writes_total", "Writes of bookings into calendars, by outcome.", ["outcome"])
DIVERGED: Final = Counter("kalends_calendar_edits_total", "Events of ours that a host has moved or deleted.")
DUE: Final = Gauge("kalends_calendar_due", "Calendars to be read, and bookings to be written, by kind.", ["kind"])
FAILING: Final = Gauge("kalends_calendar_failing", "Calendars whose last reading failed.")
DEAD: Final = Gauge("kalends_calendar_dead_writes", "Bookings that were given up on writing into a calendar.")
OLDEST: Final = Gauge("kalends_calendar_oldest_write_seconds", "How long the oldest due write has been due.")
