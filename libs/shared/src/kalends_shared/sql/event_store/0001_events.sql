-- Where a logical restore has reset the server's transaction counter, this offset is raised above max(events.tx), so
-- that tx goes on ascending.
CREATE TABLE epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    tx_offset bigint NOT NULL DEFAULT 0
);
INSERT INTO epoch DEFAULT VALUES;

CREATE TABLE streams (
    tenant_id text NOT NULL,
    stream_id text NOT NULL,
    version integer NOT NULL,
    PRIMARY KEY (tenant_id, stream_id)
) WITH (fillfactor = 80);

CREATE TABLE events (
    tenant_id text NOT NULL,
    stream_id text NOT NULL,
    version integer NOT NULL,
    tx bigint NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY,
    id text NOT NULL,
    type text NOT NULL,
    schema_version smallint NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    actor json NOT NULL,
    correlation_id text,
    causation_id text,
    traceparent text,
    data json NOT NULL,
    state json NOT NULL,
    PRIMARY KEY (tenant_id, stream_id, version)
);
CREATE INDEX events_tail ON events (tx, position);

CREATE FUNCTION refuse_mutation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is forbidden: events are only ever appended', TG_OP, TG_TABLE_NAME USING ERRCODE = 'KE002';
END $$;
-- By statement, so that TRUNCATE, and an UPDATE that would find no row, are refused too.
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_mutation();

-- What the relay knows about its stream, so that one which has aged out empty can be told from one that was wiped.
CREATE TABLE relay_hints (
    context text PRIMARY KEY,
    stream_created text NOT NULL,
    last_seq bigint NOT NULL,
    tx bigint NOT NULL,
    position bigint NOT NULL
);

-- The transaction's id with the epoch below it. Taking it makes this a writing transaction: lock first.
CREATE FUNCTION current_tx() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT pg_current_xact_id()::text::bigint + tx_offset FROM epoch
$$;

-- Every transaction below this has ended, so nothing can still appear below it: the end of what a tail may read.
CREATE FUNCTION tail_horizon() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint + tx_offset FROM epoch
$$;

CREATE FUNCTION lock_key(p_tenant text, p_key text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT hashtextextended(current_schema() || '/' || p_tenant || '/' || p_key, 0)
$$;

-- Takes the transaction's locks on these keys (ids of streams, hosts, resources), in one order for all commands.
-- Call it before any write: then the order of transaction ids is the order of each stream, and no two commands deadlock.
CREATE FUNCTION lock_keys(p_tenant text, p_keys text[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- DISTINCT keeps the sort below the lock: the sub-select is not flattened.
    PERFORM pg_advisory_xact_lock(sorted.h)
    FROM (SELECT DISTINCT lock_key(p_tenant, k) AS h FROM unnest(p_keys) AS k ORDER BY h) AS sorted;
END $$;

-- Appends events to one stream at the version expected (0: a new stream), after taking the locks asked for and the
-- stream's own. Raises KE001 where the stream has another version; nothing is written then, and no transaction id taken.
-- A transaction that appends to several streams calls lock_keys with all their ids first.
CREATE FUNCTION append_events(
    p_tenant text, p_stream text, p_expected integer, p_locks text[],
    p_ids text[], p_types text[], p_schema_versions smallint[], p_data json[], p_states json[],
    p_occurred_at timestamptz, p_actor json, p_correlation_id text, p_causation_id text, p_traceparent text,
    OUT version integer, OUT tx bigint, OUT "position" bigint
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count integer := cardinality(p_ids);
    v_now integer;
BEGIN
    IF v_count = 0 THEN
        RAISE EXCEPTION 'an append needs an event' USING ERRCODE = 'KE003';
    END IF;
    PERFORM lock_keys(p_tenant, p_locks || p_stream);
    SELECT s.version INTO v_now FROM streams s WHERE s.tenant_id = p_tenant AND s.stream_id = p_stream;
    IF coalesce(v_now, 0) <> p_expected THEN
        RAISE EXCEPTION 'stream % has version %, not %', p_stream, coalesce(v_now, 0), p_expected USING ERRCODE = 'KE001';
    END IF;
    version := p_expected + v_count;
    tx := current_tx();
    -- The stream's lock already holds others off; the primary key and this guard hold off what went around the lock.
    IF p_expected = 0 THEN
        INSERT INTO streams (tenant_id, stream_id, version) VALUES (p_tenant, p_stream, append_events.version);
    ELSE
        UPDATE streams s SET version = append_events.version
        WHERE s.tenant_id = p_tenant AND s.stream_id = p_stream AND s.version = p_expected;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'stream % has moved on from version %', p_stream, p_expected USING ERRCODE = 'KE001';
        END IF;
    END IF;
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
