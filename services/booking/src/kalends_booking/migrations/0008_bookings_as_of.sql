-- The hosts that a change of a booking took from it, and those that stayed; none where hosts did not change.
CREATE FUNCTION former_hosts(p_data json) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(array_agg(h), '{}') FROM json_array_elements_text(p_data->'previous'->'host_ids') AS h
$$;

-- The bookings that at a moment had one of `p_statuses` and a start in [p_from, p_to), in order, from behind
-- (p_after_start, p_after_id) on, at most `p_take`. `p_upcoming` as of then; nulls ask for nothing. It goes day by day, and
-- so reads what was booked by then on the days that it needs, and looks once at each day that it passes.
CREATE FUNCTION bookings_as_of(
    p_tenant text, p_as_of timestamptz, p_statuses text[], p_from timestamptz, p_to timestamptz, p_upcoming boolean,
    p_descending boolean, p_after_start timestamptz, p_after_id text, p_take bigint
) RETURNS TABLE (id text, start_at timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_first text := to_char(greatest(p_from, CASE WHEN NOT p_descending THEN p_after_start END) AT TIME ZONE 'UTC',
        'YYYY-MM-DD');
    v_last text := to_char(least(p_to, CASE WHEN p_descending THEN p_after_start END) AT TIME ZONE 'UTC', 'YYYY-MM-DD');
    v_day text;
    v_found bigint;
BEGIN
    WHILE p_take IS NULL OR p_take > 0 LOOP
        -- The next day on which anything was ever to be.
        IF p_descending THEN
            SELECT left(e.state->>'start_at', 10) INTO v_day FROM events e
            WHERE e.tenant_id = p_tenant AND left(e.state->>'start_at', 10) <= coalesce(v_last, '9999-12-31')
                AND e.type IN ('booking.created', 'booking.approved', 'booking.declined', 'booking.cancelled',
                    'booking.rescheduled', 'booking.reassigned', 'booking.completed', 'booking.no_show',
                    'booking.no_show_undone', 'payment.updated')
            ORDER BY left(e.state->>'start_at', 10) DESC LIMIT 1;
            EXIT WHEN NOT FOUND OR v_day < v_first;
            v_last := to_char(v_day::date - 1, 'YYYY-MM-DD');
        ELSE
            SELECT left(e.state->>'start_at', 10) INTO v_day FROM events e
            WHERE e.tenant_id = p_tenant AND left(e.state->>'start_at', 10) >= coalesce(v_first, '0001-01-01')
                AND e.type IN ('booking.created', 'booking.approved', 'booking.declined', 'booking.cancelled',
                    'booking.rescheduled', 'booking.reassigned', 'booking.completed', 'booking.no_show',
                    'booking.no_show_undone', 'payment.updated')
            ORDER BY left(e.state->>'start_at', 10) LIMIT 1;
            EXIT WHEN NOT FOUND OR v_day > v_last;
            v_first := to_char(v_day::date + 1, 'YYYY-MM-DD');
        END IF;
        RETURN QUERY
        SELECT e.stream_id, s.starts
        FROM events e
        CROSS JOIN LATERAL (SELECT (e.state->>'start_at')::timestamptz AS starts) s
        WHERE e.tenant_id = p_tenant AND left(e.state->>'start_at', 10) = v_day
            AND e.state->>'status' = ANY (p_statuses) AND e.occurred_at <= p_as_of
            AND e.type IN ('booking.created', 'booking.approved', 'booking.declined', 'booking.cancelled',
                'booking.rescheduled', 'booking.reassigned', 'booking.completed', 'booking.no_show',
                'booking.no_show_undone', 'payment.updated')
            AND NOT EXISTS (
                SELECT FROM events n
                WHERE n.tenant_id = e.tenant_id AND n.stream_id = e.stream_id AND n.version > e.version
                    AND n.occurred_at <= p_as_of AND n.type IN ('booking.created', 'booking.approved',
                        'booking.declined', 'booking.cancelled', 'booking.rescheduled', 'booking.reassigned',
                        'booking.completed', 'booking.no_show', 'booking.no_show_undone', 'payment.updated'))
            AND (p_from IS NULL OR s.starts >= p_from) AND (p_to IS NULL OR s.starts < p_to)
            AND (p_after_start IS NULL OR CASE WHEN p_descending THEN (s.starts, e.stream_id) < (p_after_start, p_after_id)
                ELSE (s.starts, e.stream_id) > (p_after_start, p_after_id) END)
            AND (p_upcoming IS NULL OR p_upcoming = (
                (e.state->>'end_at')::timestamptz > p_as_of AND e.state->>'status' IN ('pending', 'confirmed')))
        ORDER BY CASE WHEN p_descending THEN s.starts END DESC, CASE WHEN p_descending THEN e.stream_id END DESC,
            s.starts, e.stream_id
        LIMIT p_take;
        GET DIAGNOSTICS v_found = ROW_COUNT;
        p_take := p_take - v_found;
    END LOOP;
END $$;
