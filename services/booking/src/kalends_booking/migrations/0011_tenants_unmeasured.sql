-- Statistics of a tenant mislead: one that has come since they were made is taken for one of few rows, and an index on the
-- tenant with anything behind it for as good as the one that is meant, at the cost of reading all that the tenant has.
-- Without them every tenant counts as a two-hundredth of the table, and the columns behind it decide. (Not of bookings: a
-- list of theirs goes by one index or another for the order of its rows, which needs to know that there are many.)
ALTER TABLE seats ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE reservations ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE holds ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE people ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE person_ids ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE events ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE streams ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE idempotency ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE timers ALTER COLUMN tenant_id SET STATISTICS 0;
-- So commands are planned without knowing whose they are, as they would be anyway from a session's sixth on.
ALTER FUNCTION commit_command SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION commit_due SET plan_cache_mode = force_generic_plan;
