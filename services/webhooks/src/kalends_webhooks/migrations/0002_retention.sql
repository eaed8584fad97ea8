-- The log's partitions, one a day. The service owns no table, so these functions are the owner's; and they are small, as
-- their locks hold up whoever writes the log.

-- The lowest id that may be made at a moment: ten digits of base 32, the milliseconds since 1970.
CREATE FUNCTION delivery_floor(p_at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'dlv_' || string_agg(
        substr('0123456789abcdefghjkmnpqrstvwxyz', ((floor(extract(epoch FROM p_at) * 1000)::bigint >> (5 * n)) & 31)::integer + 1, 1),
        '' ORDER BY n DESC
    ) FROM generate_series(0, 9) AS n
$$;

-- Makes one partition that is missing among today's and the coming days', or drops one all of whose rows were made more
-- than `p_days` days ago; returns its name, or null where there is nothing to do. A day whose first rows were written
-- before it had a partition stays in the default one.
CREATE FUNCTION keep_deliveries(p_days integer, p_ahead integer) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_day date;
    v_name text;
    v_low text;
    v_high text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('keep_deliveries/' || current_schema(), 5)) THEN
        RETURN NULL;
    END IF;
    FOR v_day IN SELECT d FROM generate_series(current_date, current_date + p_ahead, interval '1 day') AS d LOOP
        v_name := 'deliveries_' || to_char(v_day, 'YYYYMMDD');
        v_low := delivery_floor(v_day::timestamp AT TIME ZONE 'UTC');
        v_high := delivery_floor((v_day + 1)::timestamp AT TIME ZONE 'UTC');
        IF to_regclass(v_name) IS NULL
            AND NOT EXISTS (SELECT 1 FROM deliveries_default d WHERE d.id >= v_low AND d.id < v_high)
        THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF deliveries FOR VALUES FROM (%L) TO (%L)', v_name, v_low, v_high);
            RETURN v_name;
        END IF;
    END LOOP;
    SELECT c.relname INTO v_name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'deliveries'::regclass AND c.relname ~ '^deliveries_[0-9]{8}$'
        AND c.relname < 'deliveries_' || to_char(current_date - p_days, 'YYYYMMDD')
    ORDER BY c.relname LIMIT 1;
    IF FOUND THEN
        EXECUTE format('DROP TABLE %I', v_name);
        RETURN v_name;
    END IF;
    RETURN NULL;
END $$;

-- Forgets what retention does not drop with a partition: rows of the default one, and samples; returns how many.
CREATE FUNCTION forget_old(p_days integer, p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rows integer;
    v_samples integer;
BEGIN
    DELETE FROM deliveries_default d WHERE d.ctid = ANY (ARRAY(
        SELECT o.ctid FROM deliveries_default o WHERE o.ended_at < now() - make_interval(days => p_days) LIMIT p_limit
    ));
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    DELETE FROM public_events p WHERE p.seq < 0 AND p.ctid = ANY (ARRAY(
        SELECT o.ctid FROM public_events o
        WHERE o.seq < 0 AND o.recorded_at < now() - make_interval(days => p_days) LIMIT p_limit
    ));
    GET DIAGNOSTICS v_samples = ROW_COUNT;
    RETURN v_rows + v_samples;
END $$;
CREATE INDEX public_events_samples ON public_events (recorded_at) WHERE seq < 0;

SELECT keep_deliveries(30, 7) FROM generate_series(0, 7);
