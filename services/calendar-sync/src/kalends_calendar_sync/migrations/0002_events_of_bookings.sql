-- kalends: no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS calendar_events_booking ON calendar_events (tenant_id, booking_id)
    WHERE booking_id IS NOT NULL;
