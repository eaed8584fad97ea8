"""Event types, schedules, slots."""
