"""What calendars and bookings mean to each other: no I/O here; clock, zone and ids come from outside."""
