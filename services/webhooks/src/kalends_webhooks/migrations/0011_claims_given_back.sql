-- A bound counted what is in flight among all that is due within two minutes, which of an endpoint that fails is most of
-- its queue; and who had died was found by reading all of everybody's. Otherwise as in 0001. Planned anew at each call, as
-- in 0007.
CREATE OR REPLACE FUNCTION bounded_room(p_tenant text, p_webhook text, p_room integer, p_cap integer, p_rate integer)
RETURNS integer LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
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
        WHERE q.tenant_id = p_tenant AND q.webhook_id = p_webhook AND coalesce(q.claim, '') <> ''
            AND q.due_at BETWEEN now() AND now() + interval '2 minutes';
    END IF;
    IF p_rate IS NOT NULL AND v_room > 0 THEN
        SELECT count(*) INTO v_waiting FROM (
            SELECT 1 FROM queue q WHERE q.tenant_id = p_tenant AND q.webhook_id = p_webhook AND q.due_at <= now()
            ORDER BY q.tenant_id, q.webhook_id, q.due_at LIMIT v_room
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

-- Frees whatever these workers hold; returns how much that was.
CREATE FUNCTION free_claims_of(p_workers text[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_freed integer;
BEGIN
    UPDATE queue q SET claim = NULL, due_at = now()
    WHERE coalesce(q.claim, '') <> '' AND split_part(q.claim, '.', 1) = ANY (p_workers);
    GET DIAGNOSTICS v_freed = ROW_COUNT;
    RETURN v_freed;
END $$;

-- As in 0001, by these claims alone.
CREATE OR REPLACE FUNCTION worker_lives(p_name text, p_dead double precision) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_dead text[];
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
            RETURN free_claims_of(v_dead);
        END IF;
    END IF;
    RETURN 0;
END $$;

-- Says that a worker has ended, and frees what it could not end; returns how much that was. Once its name is gone nobody
-- would notice that it is dead, and what it held would wait for the end of its lease.
CREATE FUNCTION worker_leaves(p_name text) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM workers w WHERE w.name = p_name;
    RETURN free_claims_of(ARRAY[p_name]);
END $$;

-- Gives a delivery back that was claimed and not sent, due again after so many seconds; its claim may be another's by now.
CREATE FUNCTION give_back(p_tenant text, p_id text, p_claim text, p_wait double precision) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    UPDATE queue q SET claim = NULL, due_at = clock_timestamp() + make_interval(secs => p_wait)
    WHERE q.tenant_id = p_tenant AND q.id = p_id AND q.claim = p_claim;
END $$;
