"""The rules of bookings and holds: pure, with the clock and ids passed in."""
