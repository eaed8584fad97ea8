-- Each delivery found its event by looking through all events of the batch: 400 events to 20 webhooks took a second, and to
-- 100, by that, about the five after which a transaction is ended, so that a consumer with much to catch up tried in vain first and then went
-- on in small steps. Now they are joined by number, hashed. So that nothing else is, what is looked up in tables is a scalar
-- each, which takes the index. Otherwise as in 0001 and 0003.
CREATE OR REPLACE FUNCTION emit(
    p_tenants text[], p_versions bigint[],
    p_event_tenants text[], p_ids text[], p_types text[], p_created_at timestamptz[], p_streams text[], p_data json[],
    p_persons text[], p_attendees json[], p_traces text[],
    p_of integer[], p_webhooks text[], p_deliveries text[], p_claims text[], p_leases integer[],
    OUT stale text[], OUT queued text[], OUT redacted text[]
) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_mergejoin = off SET enable_nestloop = off SET enable_hashjoin = on
AS $$
BEGIN
    queued := '{}';
    redacted := '{}';
    stale := lock_feeds(p_tenants, p_versions);
    IF cardinality(stale) > 0 THEN
        RETURN;
    END IF;
    WITH given AS (
        SELECT * FROM unnest(
            p_event_tenants, p_ids, p_types, p_created_at, p_streams, p_data, p_persons, p_attendees, p_traces
        ) WITH ORDINALITY AS e (tenant_id, id, type, created_at, stream_id, data, person_id, attendees, traceparent, n)
    ), fresh AS (
        SELECT g.*, row_number() OVER (PARTITION BY g.tenant_id ORDER BY g.n) AS place
        FROM given g
        WHERE (SELECT p.seq FROM public_events p WHERE p.tenant_id = g.tenant_id AND p.id = g.id LIMIT 1) IS NULL
    ), moved AS (
        UPDATE feeds f SET last_seq = f.last_seq + c.count
        FROM (SELECT tenant_id, count(*) AS count FROM fresh GROUP BY tenant_id) AS c
        WHERE f.tenant_id = c.tenant_id AND f.tenant_id = ANY (p_tenants)
        RETURNING f.tenant_id, f.last_seq - c.count AS base
    ), placed AS MATERIALIZED (
        SELECT e.*, m.base + e.place AS seq FROM fresh e JOIN moved m ON m.tenant_id = e.tenant_id
    ), made AS (
        INSERT INTO public_events (tenant_id, seq, id, type, created_at, stream_id, data, person_id, attendees, traceparent)
        SELECT e.tenant_id, e.seq, e.id, e.type, e.created_at, e.stream_id, e.data, e.person_id,
            CASE WHEN (
                SELECT x.person_id FROM erased x WHERE x.tenant_id = e.tenant_id AND x.person_id = e.person_id LIMIT 1
            ) IS NULL THEN e.attendees END,
            e.traceparent
        FROM placed e
        ORDER BY e.n
        RETURNING id, person_id, attendees IS NULL AS empty
    ), queued_now AS (
        INSERT INTO queue (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, due_at, claim)
        SELECT p.tenant_id, d.id, d.webhook_id, p.seq, p.id, p.type, p.stream_id,
            now() + make_interval(secs => d.lease), d.claim
        FROM unnest(p_of, p_webhooks, p_deliveries, p_claims, p_leases) AS d (event, webhook_id, id, claim, lease)
        JOIN placed p ON p.n = d.event
        ORDER BY d.id
        RETURNING id
    )
    SELECT coalesce((SELECT array_agg(q.id) FROM queued_now q), '{}'),
        coalesce((SELECT array_agg(m.id) FROM made m WHERE m.empty AND m.person_id IS NOT NULL), '{}')
    INTO queued, redacted;
END $$;
ALTER FUNCTION lock_feeds SET enable_nestloop = on;
ALTER FUNCTION lock_feeds SET enable_hashjoin = off;
ALTER FUNCTION lock_feeds SET enable_mergejoin = off;
