-- Appends events to one stream at the version expected (0: a new stream), after taking the locks asked for and the
-- stream's own. Raises KE001 where the stream has another version; nothing is written then, and no transaction id taken.
-- A transaction that appends to several streams calls lock_keys with all their ids first.
CREATE OR REPLACE FUNCTION append_events(
    p_tenant text, p_stream text, p_expected integer, p_locks text[],
    p_ids text[], p_types text[], p_schema_versions smallint[], p_data json[], p_states json[],
    p_occurred_at timestamptz, p_actor json, p_correlation_id text, p_causation_id text, p_traceparent text,
    OUT version integer, OUT tx bigint, OUT "position" bigint
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count integer := cardinality(p_ids);
BEGIN
    IF v_count = 0 THEN
        RAISE EXCEPTION 'an append needs an event' USING ERRCODE = 'KE003';
    END IF;
    -- As lock_keys does it; a call costs as much as the locks.
    PERFORM pg_advisory_xact_lock(sorted.h)
    FROM (SELECT DISTINCT lock_key(p_tenant, k) AS h FROM unnest(p_locks || p_stream) AS k ORDER BY h) AS sorted;
    version := p_expected + v_count;
    -- A row that is not written takes no transaction id.
    IF p_expected = 0 THEN
        INSERT INTO streams (tenant_id, stream_id, version) VALUES (p_tenant, p_stream, append_events.version)
        ON CONFLICT (tenant_id, stream_id) DO NOTHING;
    ELSE
        UPDATE streams s SET version = append_events.version
        WHERE s.tenant_id = p_tenant AND s.stream_id = p_stream AND s.version = p_expected;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream % is not at version %', p_stream, p_expected USING ERRCODE = 'KE001';
    END IF;
    SELECT pg_current_xact_id()::text::bigint + e.tx_offset INTO tx FROM epoch e;
    IF v_count = 1 THEN
        INSERT INTO events (tenant_id, stream_id, version, tx, id, type, schema_version, occurred_at, actor,
            correlation_id, causation_id, traceparent, data, state)
        VALUES (p_tenant, p_stream, append_events.version, append_events.tx, p_ids[1], p_types[1], p_schema_versions[1],
            p_occurred_at, p_actor, p_correlation_id, p_causation_id, p_traceparent, p_data[1], p_states[1])
        RETURNING events.position INTO append_events.position;
    ELSE
        WITH appended AS (
            INSERT INTO events (tenant_id, stream_id, version, tx, id, type, schema_version, occurred_at, actor,
                correlation_id, causation_id, traceparent, data, state)
            SELECT p_tenant, p_stream, p_expected + e.n, append_events.tx, e.id, e.type, e.schema_version, p_occurred_at,
                p_actor, p_correlation_id, p_causation_id, p_traceparent, e.data, e.state
            FROM unnest(p_ids, p_types, p_schema_versions, p_data, p_states) WITH ORDINALITY
                AS e (id, type, schema_version, data, state, n)
            ORDER BY e.n
            RETURNING events.position AS p
        )
        SELECT max(p) INTO append_events.position FROM appended;
    END IF;
END $$;
