-- kalends: no-transaction
-- So that a process which begins knows at once whether anybody's schedule has public holidays.
CREATE INDEX CONCURRENTLY IF NOT EXISTS objects_holidays ON objects (tenant_id, id)
    WHERE kind = 'schedule' AND json_typeof(body -> 'holidays') = 'object';
