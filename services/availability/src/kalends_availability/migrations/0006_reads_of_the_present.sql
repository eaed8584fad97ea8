-- kalends: no-transaction
-- Rows that are no longer current are kept for questions about past moments, however many there come to be; whatever is
-- asked of the present has an index without them.
-- When a host's bookings of an event type were made, for its place in a round robin.
CREATE INDEX CONCURRENTLY IF NOT EXISTS busy_made ON busy (tenant_id, event_type_id, subject_id, created_at)
    WHERE seen_until IS NULL AND resource_id IS NULL AND lapses_at IS NULL;
-- It serves whatever was asked of this one.
DROP INDEX CONCURRENTLY IF EXISTS busy_event_type;
CREATE INDEX CONCURRENTLY IF NOT EXISTS calendar_busy_open ON calendar_busy (tenant_id, id) WHERE seen_until IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS calendars_open ON calendars (tenant_id, id) WHERE seen_until IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS calendars_current ON calendars (tenant_id, host_id) WHERE seen_until IS NULL;
