-- The time that a seat reserves, its buffers as they were when it was booked; null of seats from before. A group's
-- reservation covers what everybody in it reserves: it grows with who joins, and shrinks with who leaves, as far as is known.
ALTER TABLE seats ADD COLUMN during tstzrange;

-- Takes the places of a choice that `refusal` has let pass under this transaction's locks. A reservation whose holds
-- have all run out is flipped first.
CREATE OR REPLACE FUNCTION take_places(
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
                    AND r.during @> tstzrange(c.reserved_from, c.reserved_to)
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
        UPDATE reservations r SET during = range_merge(r.during, tstzrange(c.reserved_from, c.reserved_to))
        FROM unnest(p_claims) c
        WHERE c.choice = p_choice AND c.capacity > 1 AND r.tenant_id = p_tenant AND r.subject_id = c.subject_id
            AND r.during && tstzrange(c.start_at, c.end_at)
            AND r.slot = c.slot AND r.start_at = c.start_at AND r.end_at = c.end_at;
    END LOOP;
    INSERT INTO seats (tenant_id, holder_id, subject_id, slot, start_at, end_at, seats, expires_at, status, during)
    SELECT p_tenant, c.holder_id, c.subject_id, c.slot, c.start_at, c.end_at, c.seats, c.expires_at, (
        SELECT b.status FROM unnest(p_bookings) b WHERE b.id = c.holder_id AND b.choice IN (0, p_choice)),
        tstzrange(c.reserved_from, c.reserved_to)
    FROM unnest(p_claims) c WHERE c.choice = p_choice;
END $$;

-- Gives up the places of bookings and holds; a reservation falls with its last seat, and shrinks to what those who stay
-- reserve. Those of `p_leaves` stay as a trace, which commit_command marks as such with their booking's new status.
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
    UPDATE reservations r SET during = o.during
    FROM (
        SELECT s.subject_id, s.slot, s.start_at, s.end_at, range_merge(range_agg(s.during)) AS during
        FROM (
            SELECT DISTINCT g.subject_id, g.slot, g.start_at, g.end_at FROM seats g
            WHERE g.tenant_id = p_tenant AND g.holder_id = ANY (v_all) AND g.in_force
        ) g
        JOIN seats s ON s.tenant_id = p_tenant AND s.subject_id = g.subject_id AND s.start_at = g.start_at
            AND s.end_at = g.end_at AND s.slot = g.slot AND s.in_force AND s.holder_id <> ALL (v_all)
        GROUP BY 1, 2, 3, 4 HAVING bool_and(s.during IS NOT NULL)
    ) o
    WHERE r.tenant_id = p_tenant AND r.subject_id = o.subject_id AND r.during && tstzrange(o.start_at, o.end_at)
        AND r.slot = o.slot AND r.start_at = o.start_at AND r.end_at = o.end_at AND r.during <> o.during;
    IF cardinality(p_frees) > 0 THEN
        DELETE FROM seats WHERE tenant_id = p_tenant AND holder_id = ANY (p_frees);
    END IF;
END $$;
