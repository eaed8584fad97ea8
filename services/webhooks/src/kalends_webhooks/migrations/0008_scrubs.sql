-- The log of deliveries keeps the beginning of each answer, and a receiver may have told of the person in it; so may a
-- stored reply that shows a delivery. A person's erasure has that emptied too, behind the event: once at once, and once
-- more when attempts that were under way have ended. `scrub_at` is when, null when all is done.
ALTER TABLE erased ADD COLUMN scrub_at timestamptz DEFAULT now();
ALTER TABLE erased ADD COLUMN scrubbed boolean NOT NULL DEFAULT false;
CREATE INDEX erased_scrub ON erased (scrub_at) WHERE scrub_at IS NOT NULL;
