-- Statistics of a tenant mislead: one that has come since they were made is taken for one of few rows, and an index on the
-- tenant with anything behind it for as good as the one that is meant, at the cost of reading all that the tenant has.
-- Without them every tenant counts as a two-hundredth of the table, and the columns behind it decide.
ALTER TABLE busy ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE calendar_busy ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE calendars ALTER COLUMN tenant_id SET STATISTICS 0;
