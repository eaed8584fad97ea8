-- kalends: no-transaction
-- What is held at present of a tenant, which is never much: that its event type, hosts and resources are in use.
CREATE INDEX CONCURRENTLY IF NOT EXISTS busy_held ON busy (tenant_id, lapses_at)
    WHERE seen_until IS NULL AND lapses_at IS NOT NULL;
