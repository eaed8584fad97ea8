-- What time has done is told by time, also where a command comes before the timer: each change may name its own actor. A
-- caller from before names none, and its call finds this function too.
DROP FUNCTION commit_command(
    text, timestamptz, json, text, text, text, idempotency_entry, bytea[], text[], text[], text[], integer, claim[],
    host_limit[], booker_cap, change[], booking_row[], hold_row[], person_version, text[], timestamptz[], text[], text[]
);
-- Commits one command: everything that it writes, or nothing. `outcome` is
--   done       `choice` was taken, and the events are at (tx, position) at the latest
--   stored     the key has an answer already, in the last five columns
--   in_flight  another request under the key is at work
--   person     the address belongs to `person_id`, or (null) to nobody any more: decide again with that
--   refused    no choice fits; `rule` says why
--   conflict   a stream has another version: load it and decide again
-- `p_actors` are the actors of those changes that are not the caller's own, null for the others.
-- Every lock is taken before the first write, sorted; a choice that is lost gives its locks back before the next is tried.
CREATE FUNCTION commit_command(
    p_tenant text, p_now timestamptz, p_actor json, p_correlation_id text, p_causation_id text, p_traceparent text,
    p_idempotency idempotency_entry, p_replies bytea[], p_locks text[], p_frees text[],
    p_leaves text[], p_choices integer, p_claims claim[], p_limits host_limit[], p_cap booker_cap, p_changes change[],
    p_bookings booking_row[], p_holds hold_row[], p_person person_version, p_timer_keys text[],
    p_timer_due timestamptz[], p_timer_kinds text[], p_cancelled_timers text[], p_actors json[] DEFAULT '{}',
    OUT outcome text, OUT choice integer, OUT tx bigint, OUT "position" bigint, OUT rule text, OUT person_id text,
    OUT request_hash bytea, OUT status smallint, OUT error boolean, OUT headers json, OUT body bytea
) LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
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
            coalesce(p_actors[e.n], p_actor), p_correlation_id, p_causation_id, p_traceparent, e.data, e.state
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
