-- Equality of text beside overlap of ranges, in one index.
CREATE EXTENSION IF NOT EXISTS btree_gist;

-- The guard: a subject (a host, or a unit of a resource, `<resource id>#<unit>`) is in one slot at a time. `during`
-- includes buffers. `slot` says whose places share a row: the event type, for a unit `<event type>/<host>`. Rows are
-- pruned a day after they have ended, so that the table stays as small as the future.
CREATE TABLE reservations (
    tenant_id text NOT NULL,
    subject_id text NOT NULL,
    resource_id text,
    slot text NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    during tstzrange NOT NULL,
    CONSTRAINT reservations_once EXCLUDE USING gist (tenant_id WITH =, subject_id WITH =, during WITH &&)
);
CREATE INDEX reservations_ended ON reservations (upper(during));
CREATE INDEX reservations_resource ON reservations USING gist (tenant_id, resource_id, during)
    WHERE resource_id IS NOT NULL;

-- Who sits in which slot of a host or unit: a booking, or a hold until `expires_at`. A row that is not `in_force` tells
-- only whose booking it was. Limits count the slots in force, past ones too, so these rows are not pruned.
CREATE TABLE seats (
    tenant_id text NOT NULL,
    holder_id text NOT NULL,
    subject_id text NOT NULL,
    slot text NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    seats integer NOT NULL,
    expires_at timestamptz,
    in_force boolean NOT NULL DEFAULT true,
    PRIMARY KEY (tenant_id, holder_id, subject_id)
);
CREATE INDEX seats_slot ON seats (tenant_id, subject_id, start_at, holder_id);

-- Read models, written in the transaction of their events. A booking's row holds no attendee data.
CREATE TABLE bookings (
    tenant_id text NOT NULL,
    id text NOT NULL,
    event_type_id text NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    status text NOT NULL,
    series_id text,
    person_id text NOT NULL,
    person_version text NOT NULL,
    version integer NOT NULL,
    state json NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX bookings_start ON bookings (tenant_id, start_at, id);
CREATE INDEX bookings_event_type ON bookings (tenant_id, event_type_id, start_at, id);
CREATE INDEX bookings_status ON bookings (tenant_id, status, start_at, id);
CREATE INDEX bookings_person ON bookings (tenant_id, person_id, start_at, id);
CREATE INDEX bookings_series ON bookings (tenant_id, series_id, start_at, id) WHERE series_id IS NOT NULL;

CREATE TABLE holds (
    tenant_id text NOT NULL,
    id text NOT NULL,
    version integer NOT NULL,
    state json NOT NULL,
    PRIMARY KEY (tenant_id, id)
);

-- All attendee data: what a booker told about themself, a row each time, named by (person, version). Versions are made
-- by the caller and sort by time, so that two bookings of one person never meet in a row. Erasure empties all of them.
CREATE TABLE people (
    tenant_id text NOT NULL,
    person_id text NOT NULL,
    version text NOT NULL,
    created_at timestamptz NOT NULL,
    name text,
    email text,
    phone text,
    timezone text,
    guests json,
    answers json,
    PRIMARY KEY (tenant_id, person_id, version)
);

-- One person for each address, whatever its case; found by its hash. An erased person has no row.
CREATE TABLE person_ids (
    tenant_id text NOT NULL,
    email_hash bytea NOT NULL,
    person_id text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, email_hash),
    UNIQUE (tenant_id, person_id)
);

CREATE TYPE claim AS (
    choice integer, holder_id text, subject_id text, resource_id text, slot text, start_at timestamptz,
    end_at timestamptz, reserved_from timestamptz, reserved_to timestamptz, seats integer, capacity integer,
    expires_at timestamptz
);
CREATE TYPE host_limit AS (
    choice integer, host_id text, event_type_id text, from_at timestamptz, to_at timestamptz, max_count integer,
    max_minutes integer, start_at timestamptz, end_at timestamptz
);
CREATE TYPE booker_cap AS (event_type_id text, person_id text, at_most integer, besides text);
-- `choice` 0 belongs to every choice; `version` is the stream's after the event.
CREATE TYPE change AS (
    choice integer, stream_id text, version integer, occurred_at timestamptz, id text, type text,
    schema_version smallint, data json, state json
);
CREATE TYPE booking_row AS (
    choice integer, id text, event_type_id text, start_at timestamptz, end_at timestamptz, status text, series_id text,
    person_id text, person_version text, version integer, state json
);
CREATE TYPE hold_row AS (choice integer, id text, version integer, state json);
CREATE TYPE person_version AS (
    person_id text, known boolean, email_hash bytea, version text, name text, email text, phone text, timezone text,
    guests json, answers json
);
CREATE TYPE idempotency_entry AS (
    method text, path text, key text, request_hash bytea, status smallint, headers json, person_id text
);

-- The seats in force of a slot beside those of `p_besides`: null where there are none.
CREATE FUNCTION live_seats(
    p_tenant text, p_subject text, p_slot text, p_start timestamptz, p_end timestamptz, p_now timestamptz,
    p_besides text[]
) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT sum(s.seats) FROM seats s
    WHERE s.tenant_id = p_tenant AND s.subject_id = p_subject AND s.start_at = p_start AND s.end_at = p_end
        AND s.slot = p_slot AND s.in_force AND (s.expires_at IS NULL OR s.expires_at > p_now)
        AND s.holder_id <> ALL (p_besides)
$$;

-- Why a choice does not fit: the rule's name, or null where it fits. Reads only; the seats of `p_frees` count as free.
-- (IF inside IF: what is not asked is not planned either.)
CREATE FUNCTION refusal(
    p_tenant text, p_now timestamptz, p_choice integer, p_claims claim[], p_limits host_limit[], p_cap booker_cap,
    p_frees text[]
) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rule text;
BEGIN
    SELECT CASE WHEN c.resource_id IS NOT NULL THEN 'resource' WHEN c.capacity > 1 THEN 'capacity' ELSE 'busy' END
    INTO v_rule
    FROM unnest(p_claims) c
    JOIN reservations r ON r.tenant_id = p_tenant AND r.subject_id = c.subject_id
        AND r.during && tstzrange(c.reserved_from, c.reserved_to)
    WHERE c.choice = p_choice AND CASE
        WHEN c.capacity > 1 AND r.slot = c.slot AND r.start_at = c.start_at AND r.end_at = c.end_at
        THEN live_seats(p_tenant, r.subject_id, r.slot, r.start_at, r.end_at, p_now, p_frees) + c.seats > c.capacity
        ELSE live_seats(p_tenant, r.subject_id, r.slot, r.start_at, r.end_at, p_now, p_frees) > 0 END
    ORDER BY c.resource_id NULLS FIRST LIMIT 1;
    IF v_rule IS NOT NULL THEN
        RETURN v_rule;
    END IF;
    IF cardinality(p_limits) > 0 THEN IF EXISTS (
        SELECT FROM unnest(p_limits) l
        CROSS JOIN LATERAL (
            SELECT count(*) AS slots, coalesce(sum(extract(epoch FROM o.end_at - o.start_at) / 60), 0) AS minutes,
                coalesce(bool_or(o.start_at = l.start_at AND o.end_at = l.end_at), false) AS begun
            FROM (
                SELECT DISTINCT s.start_at, s.end_at FROM seats s
                WHERE s.tenant_id = p_tenant AND s.subject_id = l.host_id AND s.slot = l.event_type_id
                    AND s.start_at >= l.from_at AND s.start_at < l.to_at AND s.in_force
                    AND (s.expires_at IS NULL OR s.expires_at > p_now) AND s.holder_id <> ALL (p_frees)
            ) o
        ) counted
        WHERE l.choice = p_choice AND NOT counted.begun AND (counted.slots + 1 > l.max_count
            OR counted.minutes + extract(epoch FROM l.end_at - l.start_at) / 60 > l.max_minutes)
    ) THEN
        RETURN 'limit';
    END IF; END IF;
    IF p_cap.at_most IS NOT NULL THEN IF p_cap.at_most <= (
        SELECT count(*) FROM bookings b
        WHERE b.tenant_id = p_tenant AND b.person_id = p_cap.person_id AND b.event_type_id = p_cap.event_type_id
            AND b.status IN ('pending', 'confirmed') AND b.end_at > p_now AND b.start_at > p_now - interval '1 day'
            AND b.id IS DISTINCT FROM p_cap.besides
    ) THEN
        RETURN 'booker';
    END IF; END IF;
    RETURN NULL;
END $$;

-- Takes the places of a choice that `refusal` has let pass under this transaction's locks. A reservation whose holds
-- have all run out is flipped first.
CREATE FUNCTION take_places(p_tenant text, p_now timestamptz, p_choice integer, p_claims claim[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_wanted integer;
    v_made integer;
BEGIN
    FOR attempt IN 1..2 LOOP
        INSERT INTO reservations (tenant_id, subject_id, resource_id, slot, start_at, end_at, during)
        SELECT p_tenant, c.subject_id, c.resource_id, c.slot, c.start_at, c.end_at,
            tstzrange(c.reserved_from, c.reserved_to)
        FROM unnest(p_claims) c WHERE c.choice = p_choice
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_made = ROW_COUNT;
        SELECT count(*) INTO v_wanted FROM unnest(p_claims) c WHERE c.choice = p_choice;
        -- Of a group's places those that join one need no row of their own. (A choice is all groups, or none.)
        EXIT WHEN v_made = v_wanted OR ((p_claims[1]).capacity > 1 AND NOT EXISTS (
            SELECT FROM unnest(p_claims) c WHERE c.choice = p_choice AND NOT EXISTS (
                SELECT FROM reservations r WHERE r.tenant_id = p_tenant AND r.subject_id = c.subject_id
                    AND r.during && tstzrange(c.start_at, c.end_at)
                    AND r.slot = c.slot AND r.start_at = c.start_at AND r.end_at = c.end_at)));
        IF attempt = 2 THEN
            RAISE EXCEPTION 'a reservation was made around its locks' USING ERRCODE = 'KB002';
        END IF;
        -- Only holds that have run out can be in the way: `refusal` saw nothing else there.
        DELETE FROM reservations r USING unnest(p_claims) c
        WHERE c.choice = p_choice AND r.tenant_id = p_tenant AND r.subject_id = c.subject_id
            AND r.during && tstzrange(c.reserved_from, c.reserved_to)
            AND live_seats(p_tenant, r.subject_id, r.slot, r.start_at, r.end_at, p_now, '{}') IS NULL;
        DELETE FROM seats s USING unnest(p_claims) c
        WHERE c.choice = p_choice AND s.tenant_id = p_tenant AND s.subject_id = c.subject_id AND s.in_force
            AND s.expires_at <= p_now AND s.start_at < c.reserved_to + interval '2 days'
            AND s.start_at > c.reserved_from - interval '3 days'
            AND NOT EXISTS (SELECT FROM reservations r WHERE r.tenant_id = p_tenant AND r.subject_id = s.subject_id
                AND r.during && tstzrange(s.start_at, s.end_at) AND r.slot = s.slot AND r.start_at = s.start_at);
    END LOOP;
    INSERT INTO seats (tenant_id, holder_id, subject_id, slot, start_at, end_at, seats, expires_at)
    SELECT p_tenant, c.holder_id, c.subject_id, c.slot, c.start_at, c.end_at, c.seats, c.expires_at
    FROM unnest(p_claims) c WHERE c.choice = p_choice;
END $$;

-- Gives up the places of bookings and holds; a reservation falls with its last seat. Of `p_leaves` a trace stays.
CREATE FUNCTION free_places(p_tenant text, p_frees text[], p_leaves text[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_all text[] := p_frees || p_leaves;
BEGIN
    DELETE FROM reservations r USING seats g
    WHERE g.tenant_id = p_tenant AND g.holder_id = ANY (v_all) AND g.in_force
        AND r.tenant_id = p_tenant AND r.subject_id = g.subject_id AND r.during && tstzrange(g.start_at, g.end_at)
        AND r.slot = g.slot AND r.start_at = g.start_at AND r.end_at = g.end_at
        AND NOT EXISTS (
            SELECT FROM seats s WHERE s.tenant_id = p_tenant AND s.subject_id = g.subject_id
                AND s.start_at = g.start_at AND s.end_at = g.end_at AND s.slot = g.slot AND s.in_force
                AND s.holder_id <> ALL (v_all));
    IF cardinality(p_frees) > 0 THEN
        DELETE FROM seats WHERE tenant_id = p_tenant AND holder_id = ANY (p_frees);
    END IF;
    IF cardinality(p_leaves) > 0 THEN
        UPDATE seats SET in_force = false WHERE tenant_id = p_tenant AND holder_id = ANY (p_leaves) AND in_force;
    END IF;
END $$;

-- Commits one command: everything that it writes, or nothing. `outcome` is
--   done       `choice` was taken, and the events are at (tx, position) at the latest
--   stored     the key has an answer already, in the last five columns
--   in_flight  another request under the key is at work
--   person     the address belongs to `person_id`, or (null) to nobody any more: decide again with that
--   refused    no choice fits; `rule` says why
--   conflict   a stream has another version: load it and decide again
-- Every lock is taken before the first write, sorted; a choice that is
-- lost gives its locks back before the next is tried.
CREATE FUNCTION commit_command(
    p_tenant text, p_now timestamptz, p_actor json, p_correlation_id text, p_causation_id text, p_traceparent text,
    p_idempotency idempotency_entry, p_replies bytea[], p_locks text[], p_frees text[],
    p_leaves text[], p_choices integer, p_claims claim[], p_limits host_limit[], p_cap booker_cap, p_changes change[],
    p_bookings booking_row[], p_holds hold_row[], p_person person_version, p_timer_keys text[],
    p_timer_due timestamptz[], p_timer_kinds text[], p_cancelled_timers text[],
    OUT outcome text, OUT choice integer, OUT tx bigint, OUT "position" bigint, OUT rule text, OUT person_id text,
    OUT request_hash bytea, OUT status smallint, OUT error boolean, OUT headers json, OUT body bytea
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rule text;
    v_part record;
    v_appended record;
BEGIN
    IF p_idempotency.key IS NOT NULL THEN
        SELECT b.outcome, b.request_hash, b.status, b.error, b.headers, b.body
        INTO commit_command.outcome, commit_command.request_hash, commit_command.status, commit_command.error,
            commit_command.headers, commit_command.body
        FROM idempotency_begin(p_tenant, p_idempotency.method, p_idempotency.path, p_idempotency.key) b;
        IF outcome <> 'new' THEN
            RETURN;
        END IF;
    END IF;

    outcome := 'refused';
    p_locks := p_locks || ARRAY(SELECT e.stream_id FROM unnest(p_changes) e);
    FOR n IN 1..p_choices LOOP
        v_rule := NULL;
        IF cardinality(p_claims) > 0 THEN
            -- Without locks first, so that a refusal costs next to nothing and holds up nobody.
            v_rule := refusal(p_tenant, p_now, n, p_claims, p_limits, p_cap, p_frees);
        END IF;
        IF v_rule IS NULL AND n < p_choices THEN
            BEGIN
                PERFORM lock_keys(p_tenant, p_locks || ARRAY(
                    SELECT coalesce(c.resource_id, c.subject_id) FROM unnest(p_claims) c WHERE c.choice = n));
                v_rule := refusal(p_tenant, p_now, n, p_claims, p_limits, p_cap, p_frees);
                IF v_rule IS NOT NULL THEN
                    RAISE EXCEPTION 'choice lost' USING ERRCODE = 'KB001';
                END IF;
            EXCEPTION WHEN SQLSTATE 'KB001' THEN
                NULL;
            END;
        ELSIF v_rule IS NULL THEN
            PERFORM lock_keys(p_tenant, p_locks || ARRAY(
                SELECT coalesce(c.resource_id, c.subject_id) FROM unnest(p_claims) c WHERE c.choice = n));
            IF cardinality(p_claims) > 0 THEN
                v_rule := refusal(p_tenant, p_now, n, p_claims, p_limits, p_cap, p_frees);
            END IF;
        END IF;
        IF v_rule IS NULL THEN
            outcome := 'done';
            choice := n;
            EXIT;
        END IF;
        -- A limit is judged after the slot is known to be free, so it is the refusal that stands (slots.md 10b).
        IF rule IS NULL OR v_rule IN ('limit', 'booker') THEN
            rule := v_rule;
        END IF;
    END LOOP;
    IF outcome = 'refused' THEN
        RETURN;
    END IF;
    rule := NULL;
    IF cardinality(p_changes) > 1 OR (p_changes[1]).version > 1 THEN IF EXISTS (
        SELECT FROM unnest(p_changes) e
        LEFT JOIN streams s ON s.tenant_id = p_tenant AND s.stream_id = e.stream_id
        WHERE e.choice IN (0, commit_command.choice)
        GROUP BY e.stream_id, s.version HAVING min(e.version) - 1 <> coalesce(s.version, 0)
    ) THEN
        outcome := 'conflict';
        RETURN;
    END IF; END IF;

    IF p_person.person_id IS NOT NULL THEN
        -- Shared with all bookings of the person, and held off only by the person's erasure.
        PERFORM pg_advisory_xact_lock_shared(lock_key(p_tenant, p_person.person_id));
        SELECT k.person_id INTO commit_command.person_id FROM person_ids k
        WHERE k.tenant_id = p_tenant AND k.email_hash = p_person.email_hash;
        IF person_id IS DISTINCT FROM p_person.person_id THEN
            IF person_id IS NOT NULL OR p_person.known THEN
                outcome := 'person';
                RETURN;
            END IF;
            INSERT INTO person_ids (tenant_id, email_hash, person_id, created_at)
            VALUES (p_tenant, p_person.email_hash, p_person.person_id, p_now) ON CONFLICT DO NOTHING;
            IF NOT FOUND THEN
                outcome := 'person';
                SELECT k.person_id INTO commit_command.person_id FROM person_ids k
                WHERE k.tenant_id = p_tenant AND k.email_hash = p_person.email_hash;
                RETURN;
            END IF;
        END IF;
        INSERT INTO people (tenant_id, person_id, version, created_at, name, email, phone, timezone, guests, answers)
        VALUES (p_tenant, p_person.person_id, p_person.version, p_now, p_person.name, p_person.email, p_person.phone,
            p_person.timezone, p_person.guests, p_person.answers);
    END IF;

    IF cardinality(p_frees) + cardinality(p_leaves) > 0 THEN
        PERFORM free_places(p_tenant, p_frees, p_leaves);
    END IF;
    IF cardinality(p_claims) > 0 THEN
        PERFORM take_places(p_tenant, p_now, choice, p_claims);
    END IF;

    FOR v_part IN
        SELECT e.stream_id, min(e.version) - 1 AS expected, e.occurred_at, array_agg(e.id ORDER BY e.version) AS ids,
            array_agg(e.type ORDER BY e.version) AS types,
            array_agg(e.schema_version ORDER BY e.version) AS schema_versions,
            array_agg(e.data ORDER BY e.version) AS data, array_agg(e.state ORDER BY e.version) AS states
        FROM unnest(p_changes) e WHERE e.choice IN (0, commit_command.choice)
        GROUP BY e.stream_id, e.occurred_at ORDER BY 2
    LOOP
        SELECT a.tx, a.position INTO v_appended FROM append_events(
            p_tenant, v_part.stream_id, v_part.expected, '{}', v_part.ids, v_part.types, v_part.schema_versions,
            v_part.data, v_part.states, v_part.occurred_at, p_actor, p_correlation_id, p_causation_id,
            p_traceparent) a;
        tx := v_appended.tx;
        position := greatest(commit_command.position, v_appended.position);
    END LOOP;

    IF cardinality(p_bookings) > 0 THEN
        INSERT INTO bookings (tenant_id, id, event_type_id, start_at, end_at, status, series_id, person_id,
            person_version, version, state)
        SELECT p_tenant, b.id, b.event_type_id, b.start_at, b.end_at, b.status, b.series_id, b.person_id,
            b.person_version, b.version, b.state
        FROM unnest(p_bookings) b WHERE b.choice IN (0, commit_command.choice)
        ON CONFLICT (tenant_id, id) DO UPDATE SET event_type_id = excluded.event_type_id,
            start_at = excluded.start_at, end_at = excluded.end_at, status = excluded.status,
            person_version = excluded.person_version, version = excluded.version, state = excluded.state;
    END IF;
    IF cardinality(p_holds) > 0 THEN
        INSERT INTO holds (tenant_id, id, version, state)
        SELECT p_tenant, h.id, h.version, h.state FROM unnest(p_holds) h WHERE h.choice IN (0, commit_command.choice)
        ON CONFLICT (tenant_id, id) DO UPDATE SET version = excluded.version, state = excluded.state;
    END IF;
    IF cardinality(p_timer_keys) > 0 THEN
        PERFORM set_timers(p_tenant, p_timer_keys, p_timer_due, p_timer_kinds,
            array_fill('{}'::json, ARRAY[cardinality(p_timer_keys)]));
    END IF;
    IF cardinality(p_cancelled_timers) > 0 THEN
        PERFORM cancel_timers(p_tenant, p_cancelled_timers);
    END IF;
    IF p_idempotency.key IS NOT NULL THEN
        PERFORM idempotency_put(p_tenant, p_idempotency.method, p_idempotency.path, p_idempotency.key,
            p_idempotency.request_hash, p_idempotency.status, false, p_idempotency.headers, p_replies[choice],
            p_idempotency.person_id);
    END IF;
END $$;
