-- A host's bookings by status, in order, without a look at each: a place knows the status of its booking, null for a hold's.
-- Rows from before get theirs by 0006.
ALTER TABLE seats ADD COLUMN status text;

DROP FUNCTION take_places(text, timestamptz, integer, claim[]);
-- Takes the places of a choice that `refusal` has let pass under this transaction's locks. A reservation whose holds
-- have all run out is flipped first.
CREATE FUNCTION take_places(
    p_tenant text, p_now timestamptz, p_choice integer, p_claims claim[], p_bookings booking_row[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
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
        EXIT WHEN v_made = cardinality(p_claims);
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
    INSERT INTO seats (tenant_id, holder_id, subject_id, slot, start_at, end_at, seats, expires_at, status)
    SELECT p_tenant, c.holder_id, c.subject_id, c.slot, c.start_at, c.end_at, c.seats, c.expires_at, (
        SELECT b.status FROM unnest(p_bookings) b WHERE b.id = c.holder_id AND b.choice IN (0, p_choice))
    FROM unnest(p_claims) c WHERE c.choice = p_choice;
END $$;

-- Gives up the places of bookings and holds; a reservation falls with its last seat. Those of `p_leaves` stay as a trace,
-- which commit_command marks as such with their booking's new status.
CREATE OR REPLACE FUNCTION free_places(p_tenant text, p_frees text[], p_leaves text[]) RETURNS void
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
END $$;

-- Commits one command: everything that it writes, or nothing. `outcome` is
--   done       `choice` was taken, and the events are at (tx, position) at the latest
--   stored     the key has an answer already, in the last five columns
--   in_flight  another request under the key is at work
--   person     the address belongs to `person_id`, or (null) to nobody any more: decide again with that
--   refused    no choice fits; `rule` says why
--   conflict   a stream has another version: load it and decide again
-- Every lock is taken before the first write, sorted; a choice that is lost gives its locks back before the next is tried.
CREATE OR REPLACE FUNCTION commit_command(
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
    -- Nobody else knows of a stream that begins here.
    p_locks := p_locks || ARRAY(SELECT e.stream_id FROM unnest(p_changes) e WHERE e.version > 1);
    FOR n IN 1..p_choices LOOP
        IF n = p_choices THEN
            v_rule := lock_choice(p_tenant, p_now, n, p_locks, p_claims, p_limits, p_cap, p_frees);
        ELSE
            BEGIN
                v_rule := lock_choice(p_tenant, p_now, n, p_locks, p_claims, p_limits, p_cap, p_frees);
                IF v_rule IS NOT NULL THEN
                    RAISE EXCEPTION 'choice lost' USING ERRCODE = 'KB001';
                END IF;
            EXCEPTION WHEN SQLSTATE 'KB001' THEN
                NULL;
            END;
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
        PERFORM take_places(p_tenant, p_now, choice, p_claims, p_bookings);
    END IF;

    -- All streams are locked and their versions known to be right; what went around the locks meets the primary keys.
    tx := current_tx();
    INSERT INTO streams (tenant_id, stream_id, version)
    SELECT p_tenant, e.stream_id, max(e.version) FROM unnest(p_changes) e WHERE e.choice IN (0, commit_command.choice)
    GROUP BY e.stream_id
    ON CONFLICT (tenant_id, stream_id) DO UPDATE SET version = excluded.version;
    WITH appended AS (
        INSERT INTO events (tenant_id, stream_id, version, tx, id, type, schema_version, occurred_at, actor,
            correlation_id, causation_id, traceparent, data, state)
        SELECT p_tenant, e.stream_id, e.version, commit_command.tx, e.id, e.type, e.schema_version, e.occurred_at,
            p_actor, p_correlation_id, p_causation_id, p_traceparent, e.data, e.state
        FROM unnest(p_changes) WITH ORDINALITY AS e (choice, stream_id, version, occurred_at, id, type, schema_version,
            data, state, n)
        WHERE e.choice IN (0, commit_command.choice) ORDER BY e.n
        RETURNING events.position AS p
    )
    SELECT max(p) INTO commit_command.position FROM appended;

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
    IF cardinality(p_bookings) > 0 AND (cardinality(p_claims) = 0 OR cardinality(p_leaves) > 0) THEN
        UPDATE seats s SET status = b.status, in_force = s.in_force AND s.holder_id <> ALL (p_leaves)
        FROM unnest(p_bookings) b
        WHERE s.tenant_id = p_tenant AND s.holder_id = b.id AND s.status IS DISTINCT FROM b.status;
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
        INSERT INTO idempotency (tenant_id, method, path, key, request_hash, status, error, headers, body, person_id)
        VALUES (p_tenant, p_idempotency.method, p_idempotency.path, p_idempotency.key, p_idempotency.request_hash,
            p_idempotency.status, false, p_idempotency.headers, p_replies[choice], p_idempotency.person_id)
        ON CONFLICT DO NOTHING;
    END IF;
END $$;

-- Gives the places from before the status of their bookings, in transactions so small that they hold up no tail. A place
-- that a command has changed meanwhile has it already.
CREATE PROCEDURE tell_places_their_status() LANGUAGE plpgsql AS $$
DECLARE
    v_after record;
    v_last record;
BEGIN
    SELECT '' AS tenant_id, '' AS holder_id INTO v_after;
    LOOP
        SELECT s.tenant_id, s.holder_id INTO v_last FROM (
            SELECT p.tenant_id, p.holder_id FROM seats p
            WHERE (p.tenant_id, p.holder_id) > (v_after.tenant_id, v_after.holder_id)
            ORDER BY p.tenant_id, p.holder_id LIMIT 2000
        ) s ORDER BY s.tenant_id DESC, s.holder_id DESC LIMIT 1;
        EXIT WHEN NOT FOUND;
        UPDATE seats s SET status = b.status FROM bookings b
        WHERE (s.tenant_id, s.holder_id) > (v_after.tenant_id, v_after.holder_id)
            AND (s.tenant_id, s.holder_id) <= (v_last.tenant_id, v_last.holder_id) AND s.status IS NULL
            AND b.tenant_id = s.tenant_id AND b.id = s.holder_id;
        COMMIT;
        v_after := v_last;
    END LOOP;
END $$;
