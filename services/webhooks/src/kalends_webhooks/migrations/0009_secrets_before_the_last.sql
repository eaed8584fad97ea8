-- A secret that is replaced signs on for its day, also where the one after it is replaced within it: what lived before
-- `previous_secret`, the newest first, each until its own end.
ALTER TABLE subscriptions ADD COLUMN earlier_secrets bytea[] NOT NULL DEFAULT '{}';
ALTER TABLE subscriptions ADD COLUMN earlier_until timestamptz[] NOT NULL DEFAULT '{}';
