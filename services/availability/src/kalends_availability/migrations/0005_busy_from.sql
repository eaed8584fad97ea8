-- Where a calendar event's busy time begins, so that events far ahead are not read. Of rows before this that is unknown: 0
-- has them read as they were.
ALTER TABLE calendar_busy ADD COLUMN busy_from integer NOT NULL DEFAULT 0;
