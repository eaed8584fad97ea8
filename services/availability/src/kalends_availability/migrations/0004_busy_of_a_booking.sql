-- kalends: no-transaction
-- For the rows that a later event closes. With two leading columns of its own it is chosen over the host's index, which
-- a plan made while the table was small would go on to read from end to end of an account.
CREATE INDEX CONCURRENTLY IF NOT EXISTS busy_open ON busy (tenant_id, id) WHERE seen_until IS NULL;
