-- What was offered at a past moment needs to know how fresh calendars were then. A row tells of an unbroken time: while it
-- holds, successes were at most 15 minutes apart until last_synced_at.
ALTER TABLE calendars
    ADD COLUMN seen_from timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN seen_until timestamptz;
ALTER TABLE calendars DROP CONSTRAINT calendars_pkey, ADD PRIMARY KEY (tenant_id, id, version);
