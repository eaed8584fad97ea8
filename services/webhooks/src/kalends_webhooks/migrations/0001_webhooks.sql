-- One row an account and mode. Its lock, held to commit, makes the sequence of public events gapless to whoever reads:
-- a lower number never appears after a higher one was seen. `subscriptions_version` tells caches that they are old.
CREATE TABLE feeds (
    tenant_id text PRIMARY KEY,
    last_seq bigint NOT NULL DEFAULT 0,
    subscriptions_version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- What an account is told, made once. A negative `seq` is a sample sent by `test`, which is not in the feed. `data` holds
-- no attendee data, `attendees` nothing else, so that an erasure empties it; bodies are rendered at send.
CREATE TABLE public_events (
    tenant_id text NOT NULL,
    seq bigint NOT NULL,
    id text NOT NULL,
    type text NOT NULL,
    created_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    stream_id text NOT NULL,
    data json NOT NULL,
    person_id text,
    attendees json,
    traceparent text,
    PRIMARY KEY (tenant_id, seq)
);
CREATE UNIQUE INDEX public_events_id ON public_events (tenant_id, id);
CREATE INDEX public_events_person ON public_events (tenant_id, person_id) WHERE person_id IS NOT NULL;
CREATE SEQUENCE samples MINVALUE 1;

-- Persons whose attendee data is never stored again, however late an event with it comes.
CREATE TABLE erased (
    tenant_id text NOT NULL,
    person_id text NOT NULL,
    PRIMARY KEY (tenant_id, person_id)
);

CREATE TABLE subscriptions (
    tenant_id text NOT NULL,
    id text NOT NULL,
    version integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- The whole of what was asked for, with the profile chosen (contracts.webhooks.WebhookIn without its secret).
    wanted json NOT NULL,
    -- What of it claiming goes by.
    max_in_flight integer,
    rate_limit integer,
    ordered boolean NOT NULL,
    disabled_reason text,
    secret bytea NOT NULL,
    secret_hint text NOT NULL,
    previous_secret bytea,
    previous_until timestamptz,
    -- Since when every attempt has failed; null after a success.
    failing_since timestamptz,
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 80);

-- How many attempts a subscription with a rate limit may begin at once, as of a moment; it grows by the rate since then.
CREATE TABLE allowances (
    tenant_id text NOT NULL,
    webhook_id text NOT NULL,
    tokens double precision NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, webhook_id)
) WITH (fillfactor = 50);

-- Deliveries that are still to be made, and nothing else: what has ended moves to `deliveries`, so claiming is as fast
-- after a year as on the first day. `due_at` of a claimed row is when its lease ends, so that what a crashed worker held
-- comes due by itself; `claim` names the lease, and only its holder can end it.
CREATE TABLE queue (
    tenant_id text NOT NULL,
    id text COLLATE "C" NOT NULL,
    webhook_id text NOT NULL,
    seq bigint NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    stream_id text NOT NULL,
    replay text NOT NULL DEFAULT '',
    -- Asked for by hand (test, retry, replay), so that it goes out though the subscription may be disabled.
    forced boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL,
    claim text,
    attempts smallint NOT NULL DEFAULT 0,
    log json NOT NULL DEFAULT '[]',
    PRIMARY KEY (tenant_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
-- A lane is one endpoint's part of the queue; workers look lanes up, never the queue as a whole.
CREATE INDEX queue_lane ON queue (tenant_id, webhook_id, due_at);
-- One delivery of an event to a subscription, and one more for each replay; and what is first of a stream. It does not
-- begin as the lanes' index does, so that no plan takes it for that one and sorts a lane to claim ten rows.
CREATE UNIQUE INDEX queue_once ON queue (tenant_id, stream_id, webhook_id, seq, replay);

-- Deliveries that have ended, by days, so that retention drops a table instead of deleting rows. Ids begin with the
-- time of their making, which is what the partitions go by.
CREATE TABLE deliveries (
    tenant_id text NOT NULL,
    id text COLLATE "C" NOT NULL,
    webhook_id text NOT NULL,
    seq bigint NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    stream_id text NOT NULL,
    replay text NOT NULL,
    status text NOT NULL CHECK (status IN ('succeeded', 'failed')),
    created_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT now(),
    attempts smallint NOT NULL,
    log json NOT NULL,
    PRIMARY KEY (tenant_id, id)
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_webhook ON deliveries (tenant_id, webhook_id, id);
CREATE INDEX deliveries_event ON deliveries (tenant_id, seq);
CREATE TABLE deliveries_default PARTITION OF deliveries DEFAULT;

-- Takes the locks of these accounts' feeds, in one order for all, and returns the accounts whose subscriptions are not
-- at the version that the caller knows.
CREATE FUNCTION lock_feeds(p_tenants text[], p_versions bigint[]) RETURNS text[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_stale text[];
    v_found integer;
BEGIN
    SELECT count(*) INTO v_found FROM (
        SELECT 1 FROM feeds f WHERE f.tenant_id = ANY (p_tenants) ORDER BY f.tenant_id FOR NO KEY UPDATE
    ) AS locked;
    IF v_found < cardinality(p_tenants) THEN
        INSERT INTO feeds (tenant_id) SELECT t FROM unnest(p_tenants) AS t ORDER BY t ON CONFLICT DO NOTHING;
        PERFORM 1 FROM feeds f WHERE f.tenant_id = ANY (p_tenants) ORDER BY f.tenant_id FOR NO KEY UPDATE;
    END IF;
    SELECT array_agg(f.tenant_id) INTO v_stale
    FROM feeds f JOIN unnest(p_tenants, p_versions) AS k (tenant_id, version) ON f.tenant_id = k.tenant_id
    WHERE f.subscriptions_version <> k.version;
    RETURN coalesce(v_stale, '{}');
END $$;

-- Makes public events and their deliveries, in one statement's time: locks the feeds, gives each new event its place in
-- its account's order, and queues deliveries of those that are new. `p_tenants` are the accounts, `p_versions` the
-- versions of their subscriptions by which the deliveries were chosen; where one has moved on nothing is written, and
-- the account is returned. `p_of` is the number of a delivery's event in the arrays, from 1; `p_claims` and `p_leases`
-- are of deliveries that the caller sends itself at once, null and 0 of the others. Returns what it queued, and the events
-- that are about erased persons.
CREATE FUNCTION emit(
    p_tenants text[], p_versions bigint[],
    p_event_tenants text[], p_ids text[], p_types text[], p_created_at timestamptz[], p_streams text[], p_data json[],
    p_persons text[], p_attendees json[], p_traces text[],
    p_of integer[], p_webhooks text[], p_deliveries text[], p_claims text[], p_leases integer[],
    OUT stale text[], OUT queued text[], OUT redacted text[]
) LANGUAGE plpgsql VOLATILE AS $$
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
        WHERE NOT EXISTS (SELECT 1 FROM public_events p WHERE p.tenant_id = g.tenant_id AND p.id = g.id)
    ), moved AS (
        UPDATE feeds f SET last_seq = f.last_seq + c.count
        FROM (SELECT tenant_id, count(*) AS count FROM fresh GROUP BY tenant_id) AS c
        WHERE f.tenant_id = c.tenant_id
        RETURNING f.tenant_id, f.last_seq - c.count AS base
    ), made AS (
        INSERT INTO public_events (tenant_id, seq, id, type, created_at, stream_id, data, person_id, attendees, traceparent)
        SELECT e.tenant_id, m.base + e.place, e.id, e.type, e.created_at, e.stream_id, e.data, e.person_id,
            CASE WHEN x.person_id IS NULL THEN e.attendees END, e.traceparent
        FROM fresh e JOIN moved m ON m.tenant_id = e.tenant_id
        LEFT JOIN erased x ON x.tenant_id = e.tenant_id AND x.person_id = e.person_id
        ORDER BY e.n
        RETURNING tenant_id, seq, id, type, stream_id, person_id, attendees IS NULL AS empty
    ), queued_now AS (
        INSERT INTO queue (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, due_at, claim)
        SELECT p.tenant_id, d.id, d.webhook_id, p.seq, p.id, p.type, p.stream_id,
            now() + make_interval(secs => d.lease), d.claim
        FROM unnest(p_of, p_webhooks, p_deliveries, p_claims, p_leases) AS d (event, webhook_id, id, claim, lease)
        JOIN made p ON p.tenant_id = p_event_tenants[d.event] AND p.id = p_ids[d.event]
        ORDER BY d.id
        RETURNING id
    )
    SELECT coalesce((SELECT array_agg(q.id) FROM queued_now q), '{}'),
        coalesce((SELECT array_agg(m.id) FROM made m WHERE m.empty AND m.person_id IS NOT NULL), '{}')
    INTO queued, redacted;
END $$;

-- How many of a lane's deliveries may be claimed now by its subscription's own bounds, over all workers; at most
-- `p_room`. One worker at a time gets to ask; none waits for another. What is granted of a rate is spent.
CREATE FUNCTION bounded_room(p_tenant text, p_webhook text, p_room integer, p_cap integer, p_rate integer)
RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_room integer := p_room;
    v_waiting integer;
    v_tokens double precision;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('lane/' || current_schema() || '/' || p_webhook, 4)) THEN
        RETURN 0;
    END IF;
    IF p_cap IS NOT NULL THEN
        SELECT v_room - greatest(0, v_room + count(*) - p_cap) INTO v_room FROM queue q
        WHERE q.tenant_id = p_tenant AND q.webhook_id = p_webhook AND q.claim IS NOT NULL
            AND q.due_at BETWEEN now() AND now() + interval '2 minutes';
    END IF;
    IF p_rate IS NOT NULL AND v_room > 0 THEN
        SELECT count(*) INTO v_waiting FROM (
            SELECT 1 FROM queue q WHERE q.tenant_id = p_tenant AND q.webhook_id = p_webhook AND q.due_at <= now()
            LIMIT v_room
        ) AS due;
        -- A tenth of a second's worth may come at once, and one at the least.
        SELECT least(greatest(1, p_rate / 10.0), a.tokens + extract(epoch FROM clock_timestamp() - a.at) * p_rate)
        INTO v_tokens FROM allowances a WHERE a.tenant_id = p_tenant AND a.webhook_id = p_webhook;
        v_tokens := coalesce(v_tokens, 1);
        v_room := least(v_waiting, floor(v_tokens)::integer);
        INSERT INTO allowances (tenant_id, webhook_id, tokens, at)
        VALUES (p_tenant, p_webhook, v_tokens - v_room, clock_timestamp())
        ON CONFLICT (tenant_id, webhook_id) DO UPDATE SET tokens = excluded.tokens, at = excluded.at;
    END IF;
    RETURN greatest(v_room, 0);
END $$;

-- Takes what is due of these lanes, as much of each as there is room for, in the order in which it came due, under a lease;
-- what another worker holds is passed over. Of an ordered subscription only what is first of its stream. The plan is held
-- to the lanes' index, whatever the statistics say of a table that is empty one moment and holds a hundred thousand rows
-- the next.
CREATE FUNCTION claim(p_tenants text[], p_webhooks text[], p_rooms integer[], p_leases integer[], p_claim text)
RETURNS TABLE (
    tenant_id text, id text, webhook_id text, attempts smallint, log json, forced boolean, subscription_version integer,
    event_id text, type text, created_at timestamptz, data json, attendees json, traceparent text
) LANGUAGE plpgsql VOLATILE SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    SET LOCAL synchronous_commit = off;
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

-- Ends or puts off attempts that were made under a lease. Only the lease's holder gets to: rows whose claim is another
-- by now are left as they are, and not returned. `p_waits` is in seconds; null where the delivery has ended. Also keeps
-- since when each subscription has failed. A crash of the server may lose this, and then an attempt is made again.
CREATE FUNCTION finish(
    p_tenants text[], p_ids text[], p_claims text[], p_statuses text[], p_waits double precision[], p_logs json[],
    p_now timestamptz
) RETURNS SETOF text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SET LOCAL synchronous_commit = off;
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

-- Workers that live. What one that has died had claimed comes due as soon as another notices, not when its leases end.
CREATE TABLE workers (
    name text PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Says that a worker lives, and, where it asks, frees what was claimed by those not seen for `p_dead` seconds; returns
-- how many deliveries that were. A worker that lives after all finds its results refused.
CREATE FUNCTION worker_lives(p_name text, p_dead double precision) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_dead text[];
    v_freed integer := 0;
BEGIN
    SET LOCAL synchronous_commit = off;
    INSERT INTO workers (name) VALUES (p_name) ON CONFLICT (name) DO UPDATE SET seen_at = now();
    IF p_dead IS NOT NULL THEN
        WITH gone AS (
            DELETE FROM workers w WHERE w.name IN (
                SELECT d.name FROM workers d WHERE d.seen_at < now() - make_interval(secs => p_dead) FOR UPDATE SKIP LOCKED
            ) RETURNING w.name
        )
        SELECT array_agg(g.name) INTO v_dead FROM gone g;
        IF v_dead IS NOT NULL THEN
            UPDATE queue q SET claim = NULL, due_at = now() WHERE split_part(q.claim, '.', 1) = ANY (v_dead);
            GET DIAGNOSTICS v_freed = ROW_COUNT;
        END IF;
    END IF;
    RETURN v_freed;
END $$;
