-- kalends: no-transaction
-- Rows that are no longer current, for questions about past moments.
CREATE INDEX CONCURRENTLY IF NOT EXISTS busy_gone ON busy (tenant_id, subject_id, reserved_to) WHERE seen_until IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS busy_units_gone ON busy (tenant_id, resource_id, reserved_to)
    WHERE seen_until IS NOT NULL AND resource_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS calendar_busy_gone ON calendar_busy (tenant_id, host_id, busy_to) WHERE seen_until IS NOT NULL;
