-- In what follows `tenant` (of change, booking_row and hold_row: `choice`) is a place in the array of tenants.
CREATE TYPE due_timer AS (tenant integer, key text, due_at timestamptz, kind text);
CREATE TYPE freed_place AS (tenant integer, holder_id text, stays boolean);

-- Commits what time has done to streams that there are, of many tenants at once: events, read models, timers, and the
-- places that end (`stays`: with a trace). The caller holds the locks of all of it. Nothing is written of a tenant one of
-- whose streams has moved on from the version before its first change; `moved` are their places in `p_tenants`.
CREATE FUNCTION commit_due(
    p_tenants text[], p_actor json, p_traceparent text, p_changes change[], p_bookings booking_row[],
    p_holds hold_row[], p_freed freed_place[], p_timers due_timer[], OUT moved integer[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_tx bigint;
    v_part record;
BEGIN
    moved := ARRAY(
        SELECT DISTINCT e.choice
        FROM (
            SELECT c.choice, c.stream_id, min(c.version) - 1 AS expected FROM unnest(p_changes) c GROUP BY 1, 2
        ) e
        LEFT JOIN streams s ON s.tenant_id = p_tenants[e.choice] AND s.stream_id = e.stream_id
        WHERE s.version IS DISTINCT FROM e.expected);
    IF cardinality(moved) > 0 THEN
        p_changes := ARRAY(SELECT c FROM unnest(p_changes) c WHERE (c).choice <> ALL (moved));
        p_bookings := ARRAY(SELECT b FROM unnest(p_bookings) b WHERE (b).choice <> ALL (moved));
        p_holds := ARRAY(SELECT h FROM unnest(p_holds) h WHERE (h).choice <> ALL (moved));
        p_freed := ARRAY(SELECT f FROM unnest(p_freed) f WHERE (f).tenant <> ALL (moved));
        p_timers := ARRAY(SELECT t FROM unnest(p_timers) t WHERE (t).tenant <> ALL (moved));
    END IF;
    IF cardinality(p_changes) = 0 THEN
        RETURN;
    END IF;

    FOR v_part IN
        SELECT f.tenant, array_remove(array_agg(CASE WHEN NOT f.stays THEN f.holder_id END), NULL) AS frees,
            array_remove(array_agg(CASE WHEN f.stays THEN f.holder_id END), NULL) AS leaves
        FROM unnest(p_freed) f GROUP BY 1
    LOOP
        PERFORM free_places(p_tenants[v_part.tenant], v_part.frees, v_part.leaves);
    END LOOP;

    v_tx := current_tx();
    UPDATE streams s SET version = e.version
    FROM (SELECT c.choice, c.stream_id, max(c.version) AS version FROM unnest(p_changes) c GROUP BY 1, 2) e
    WHERE s.tenant_id = p_tenants[e.choice] AND s.stream_id = e.stream_id;
    INSERT INTO events (tenant_id, stream_id, version, tx, id, type, schema_version, occurred_at, actor, traceparent,
        data, state)
    SELECT p_tenants[e.choice], e.stream_id, e.version, v_tx, e.id, e.type, e.schema_version, e.occurred_at, p_actor,
        p_traceparent, e.data, e.state
    FROM unnest(p_changes) WITH ORDINALITY AS e (choice, stream_id, version, occurred_at, id, type, schema_version, data,
        state, n)
    ORDER BY e.n;

    IF cardinality(p_bookings) > 0 THEN
        UPDATE bookings b SET status = r.status, version = r.version, state = r.state
        FROM unnest(p_bookings) r WHERE b.tenant_id = p_tenants[r.choice] AND b.id = r.id;
        UPDATE seats s SET status = r.status, in_force = s.in_force AND NOT EXISTS (
            SELECT FROM unnest(p_freed) f WHERE f.tenant = r.choice AND f.holder_id = r.id)
        FROM unnest(p_bookings) r
        WHERE s.tenant_id = p_tenants[r.choice] AND s.holder_id = r.id AND s.status IS DISTINCT FROM r.status;
    END IF;
    IF cardinality(p_holds) > 0 THEN
        UPDATE holds h SET version = r.version, state = r.state
        FROM unnest(p_holds) r WHERE h.tenant_id = p_tenants[r.choice] AND h.id = r.id;
    END IF;
    IF cardinality(p_timers) > 0 THEN
        INSERT INTO timers (tenant_id, key, due_at, wake_at, kind, payload)
        SELECT p_tenants[t.tenant], t.key, t.due_at, t.due_at, t.kind, '{}' FROM unnest(p_timers) t
        ON CONFLICT (tenant_id, key) DO UPDATE SET due_at = excluded.due_at, wake_at = excluded.wake_at,
            kind = excluded.kind, payload = excluded.payload, attempts = 0, error = NULL;
    END IF;
END $$;
