-- kalends: no-transaction
CALL tell_places_their_status();
-- All that a list of a host's bookings by status and time asks of a place.
CREATE INDEX CONCURRENTLY IF NOT EXISTS seats_status ON seats (tenant_id, subject_id, status, start_at, holder_id)
    INCLUDE (end_at) WHERE status IS NOT NULL;
