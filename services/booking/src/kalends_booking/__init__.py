"""Bookings, holds, reservations, timers."""
