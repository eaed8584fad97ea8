-- Claims and results now wait for the disk, as all else does. Without, a crash of the server forgot those of the last
-- moments, and each was a delivery made twice. Both are written in batches, so it costs a flush a batch. Otherwise the
-- functions are as before (0001, their plans 0003).
CREATE OR REPLACE FUNCTION claim(p_tenants text[], p_webhooks text[], p_rooms integer[], p_leases integer[], p_claim text)
RETURNS TABLE (
    tenant_id text, id text, webhook_id text, attempts smallint, log json, forced boolean, subscription_version integer,
    event_id text, type text, created_at timestamptz, data json, attendees json, traceparent text
) LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH lanes AS MATERIALIZED (
        SELECT w.tenant_id, w.webhook_id, w.lease, coalesce(s.ordered, false) AS ordered, s.version,
            CASE WHEN s.max_in_flight IS NULL AND s.rate_limit IS NULL THEN w.room
                ELSE bounded_room(w.tenant_id, w.webhook_id, w.room, s.max_in_flight, s.rate_limit) END AS room
        FROM unnest(p_tenants, p_webhooks, p_rooms, p_leases) AS w (tenant_id, webhook_id, room, lease)
        LEFT JOIN subscriptions s ON s.tenant_id = w.tenant_id AND s.id = w.webhook_id
    ), picked AS (
        SELECT q.tenant_id, q.id, w.lease, w.version
        FROM lanes w
        CROSS JOIN LATERAL (
            SELECT q.tenant_id, q.id FROM queue q
            WHERE q.tenant_id = w.tenant_id AND q.webhook_id = w.webhook_id AND q.due_at <= now()
                AND NOT (w.ordered AND EXISTS (
                    SELECT 1 FROM queue e WHERE e.tenant_id = q.tenant_id AND e.stream_id = q.stream_id
                        AND e.webhook_id = q.webhook_id AND e.seq < q.seq
                ))
            ORDER BY q.tenant_id, q.webhook_id, q.due_at LIMIT w.room FOR UPDATE SKIP LOCKED
        ) AS q
    ), claimed AS (
        UPDATE queue q SET claim = p_claim, due_at = now() + make_interval(secs => p.lease)
        FROM picked p WHERE q.tenant_id = p.tenant_id AND q.id = p.id
        RETURNING q.tenant_id, q.id, q.webhook_id, q.seq, q.attempts, q.log, q.forced, p.version
    )
    SELECT c.tenant_id, c.id, c.webhook_id, c.attempts, c.log, c.forced, c.version, p.id, p.type, p.created_at, p.data,
        p.attendees, p.traceparent
    FROM claimed c JOIN public_events p ON p.tenant_id = c.tenant_id AND p.seq = c.seq;
END $$;

CREATE OR REPLACE FUNCTION finish(
    p_tenants text[], p_ids text[], p_claims text[], p_statuses text[], p_waits double precision[], p_logs json[],
    p_now timestamptz
) RETURNS SETOF text LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    RETURN QUERY
    WITH given AS (
        SELECT * FROM unnest(p_tenants, p_ids, p_claims, p_statuses, p_waits, p_logs)
            AS g (tenant_id, id, claim, status, wait, log)
    ), ended AS (
        DELETE FROM queue q USING given g
        WHERE q.tenant_id = g.tenant_id AND q.id = g.id AND q.claim = g.claim AND g.wait IS NULL
        RETURNING q.tenant_id, q.id, q.webhook_id, q.seq, q.event_id, q.event_type, q.stream_id, q.replay, q.created_at,
            q.attempts, g.status, g.log
    ), logged AS (
        INSERT INTO deliveries (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, status,
            created_at, attempts, log)
        SELECT e.tenant_id, e.id, e.webhook_id, e.seq, e.event_id, e.event_type, e.stream_id, e.replay, e.status,
            e.created_at, e.attempts + 1, e.log
        FROM ended e
    ), later AS (
        UPDATE queue q SET due_at = clock_timestamp() + make_interval(secs => g.wait), claim = NULL,
            attempts = q.attempts + 1, log = g.log
        FROM given g
        WHERE q.tenant_id = g.tenant_id AND q.id = g.id AND q.claim = g.claim AND g.wait IS NOT NULL
        RETURNING q.tenant_id, q.id, q.webhook_id
    ), done AS (
        SELECT e.tenant_id, e.id, e.webhook_id, e.status = 'succeeded' AS well FROM ended e
        UNION ALL SELECT l.tenant_id, l.id, l.webhook_id, false FROM later l
    ), health AS (
        UPDATE subscriptions s SET failing_since = CASE WHEN h.well THEN NULL ELSE p_now END
        FROM (SELECT d.tenant_id, d.webhook_id, bool_or(d.well) AS well FROM done d GROUP BY 1, 2) AS h
        WHERE s.tenant_id = h.tenant_id AND s.id = h.webhook_id AND (s.failing_since IS NULL) <> h.well
    )
    SELECT d.id FROM done d;
END $$;
