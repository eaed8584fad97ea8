"""External calendars, both ways."""
