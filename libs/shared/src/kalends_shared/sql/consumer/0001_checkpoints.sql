-- How far this schema's read models have got in each source; written in the transaction of the effects.
CREATE TABLE checkpoints (
    source text PRIMARY KEY,
    tx bigint NOT NULL DEFAULT 0,
    position bigint NOT NULL DEFAULT 0,
    -- When the event at the checkpoint was published, at the earliest: where a new subscription begins.
    published_at timestamptz
) WITH (fillfactor = 50);

-- Events that could not be applied (`failed`), and later ones of the same streams that wait behind them (`parked`).
-- They are asked of their source again when they are tried again, so that no copy of personal data is kept here.
CREATE TABLE dead_letters (
    source text NOT NULL,
    tx bigint NOT NULL,
    position bigint NOT NULL,
    tenant_id text NOT NULL,
    stream_id text NOT NULL,
    event_id text NOT NULL,
    type text NOT NULL,
    status text NOT NULL CHECK (status IN ('failed', 'parked')),
    error text,
    attempts integer NOT NULL DEFAULT 1,
    retry_requested boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    tried_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, tx, position)
);
CREATE INDEX dead_letters_stream ON dead_letters (source, tenant_id, stream_id);

-- Begins a consumer's transaction: holds off any other consumer of the source until commit (by a lock, which takes no
-- transaction id, so that effects may still take stream locks before their first write), then tells the checkpoint, the
-- streams with parked events, and whether a retry was asked for. Without p_durable the commit does not wait for the disk.
CREATE FUNCTION consumer_begin(
    p_source text, p_durable boolean, OUT tx bigint, OUT "position" bigint, OUT published_at timestamptz,
    OUT parked text[], OUT retry boolean
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('consumer/' || current_schema() || '/' || p_source, 1));
    IF NOT p_durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    SELECT c.tx, c.position, c.published_at INTO consumer_begin.tx, consumer_begin.position, consumer_begin.published_at
    FROM checkpoints c WHERE c.source = p_source;
    tx := coalesce(tx, 0);
    position := coalesce(consumer_begin.position, 0);
    SELECT array_agg(DISTINCT d.tenant_id || '/' || d.stream_id), coalesce(bool_or(d.retry_requested), false)
    INTO consumer_begin.parked, consumer_begin.retry
    FROM dead_letters d WHERE d.source = p_source;
    parked := coalesce(parked, '{}');
END $$;
