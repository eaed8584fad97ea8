-- kalends: no-transaction
-- What a booking was at some moment, by the day of its start then (UTC), which is all that lists as of a moment sort by.
-- The types are those that change a start, a status or hosts; `bookings_as_of` and lists name the same.
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_of_day
    ON events (tenant_id, left(state->>'start_at', 10), (state->>'status'), occurred_at)
    WHERE type IN ('booking.created', 'booking.approved', 'booking.declined', 'booking.cancelled', 'booking.rescheduled',
        'booking.reassigned', 'booking.completed', 'booking.no_show', 'booking.no_show_undone', 'payment.updated');
-- Which bookings a host has lost to another.
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_of_former_hosts ON events USING gin (former_hosts(data))
    WHERE type IN ('booking.rescheduled', 'booking.reassigned');
