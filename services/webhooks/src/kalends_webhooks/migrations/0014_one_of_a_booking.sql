-- Where order is asked for, one delivery of a booking is in flight, also amid a replay: of two of the same event the one made
-- first goes first, and what is older waits for what is under way. Otherwise as in 0006 and 0007.
CREATE OR REPLACE FUNCTION claim(p_tenants text[], p_webhooks text[], p_rooms integer[], p_leases integer[], p_claim text)
RETURNS TABLE (
    tenant_id text, id text, webhook_id text, attempts smallint, log json, forced boolean, subscription_version integer,
    event_id text, type text, created_at timestamptz, data json, attendees json, traceparent text
) LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
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
                        AND e.webhook_id = q.webhook_id AND e.id <> q.id
                        AND ((e.seq, e.id) < (q.seq, q.id) OR (e.claim IS NOT NULL AND e.due_at > now()))
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
    FROM claimed c CROSS JOIN LATERAL (
        SELECT e.id, e.type, e.created_at, e.data, e.attendees, e.traceparent FROM public_events e
        WHERE e.tenant_id = c.tenant_id AND e.seq BETWEEN c.seq AND c.seq ORDER BY e.seq LIMIT 1
    ) AS p;
END $$;
