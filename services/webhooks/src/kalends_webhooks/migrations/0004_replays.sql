-- Replays that are too large for the call that asks for them, until they are done. Places after `after` up to `until`
-- are still to be looked at; each step moves `after` in the transaction in which it queues deliveries, so one that is
-- cut off goes on where it was and queues nothing twice.
CREATE TABLE replays (
    tenant_id text NOT NULL,
    id text NOT NULL,
    webhook_id text NOT NULL,
    -- What was asked for (contracts.webhooks.ReplayIn).
    asked json NOT NULL,
    -- Whether the subscription was enabled then: one that is disabled meanwhile has the rest dropped.
    enabled boolean NOT NULL,
    after bigint NOT NULL,
    until bigint NOT NULL,
    made bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 50);
