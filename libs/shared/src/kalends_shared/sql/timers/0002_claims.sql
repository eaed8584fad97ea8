-- Claims, of the timers named by three parallel arrays, the first p_limit whose streams no other transaction is busy
-- with; returns those of them that are still there, and the earliest of their streams, in the order of the arrays.
-- The claim is an advisory lock on the stream, not a row lock: a row lock would take a transaction id before the locks
-- of the command that follows, and so let its events sort before those of a command that it waited for. (claim_timer
-- is what the release before this calls.)
CREATE FUNCTION claim_timers(p_tenants text[], p_keys text[], p_due_at timestamptz[], p_limit integer)
RETURNS SETOF timers LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_claimed bigint[];
BEGIN
    v_claimed := ARRAY(
        SELECT c.n FROM unnest(p_tenants, p_keys) WITH ORDINALITY AS c (tenant, key, n)
        WHERE pg_try_advisory_xact_lock(hashtextextended(
            'timers/' || current_schema() || '/' || c.tenant || '/' || timer_group(c.key), 3))
        LIMIT p_limit);
    -- A statement of its own: it sees what the last holder of a lock committed.
    RETURN QUERY SELECT t.* FROM unnest(v_claimed) WITH ORDINALITY AS c (n, place)
    JOIN timers t ON t.tenant_id = p_tenants[c.n] AND t.key = p_keys[c.n] AND t.due_at = p_due_at[c.n]
    WHERE NOT EXISTS (
        SELECT 1 FROM timers e WHERE e.tenant_id = t.tenant_id AND e.key >= timer_group(t.key) || '/'
            AND e.key < timer_group(t.key) || '0' AND (e.due_at, e.key) < (t.due_at, t.key))
    ORDER BY c.place;
END $$;
