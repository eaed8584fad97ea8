-- Connections of hosts to their calendars. `version` counts the changes that were asked for, and is the ETag;
-- `stream_version` is the event stream's, which every reading moves.
CREATE TABLE calendars (
    tenant_id text NOT NULL,
    id text NOT NULL,
    host_id text NOT NULL,
    provider text NOT NULL,
    url text,
    username text,
    -- The password, sealed for `<tenant>|<id>|<credentials>`; null where there is none.
    sealed bytea,
    credentials integer NOT NULL DEFAULT 1,
    reads_busy boolean NOT NULL,
    writes_bookings boolean NOT NULL,
    status text NOT NULL CHECK (status IN ('connected', 'error')),
    last_synced_at timestamptz,
    stale_since timestamptz,
    metadata json NOT NULL,
    -- The host's zone: the calendar's, where its server names none.
    host_zone text NOT NULL,
    version integer NOT NULL,
    stream_version integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX calendars_host ON calendars (tenant_id, host_id);
CREATE INDEX calendars_newest ON calendars (tenant_id, created_at DESC, id DESC);

-- How far each calendar has been read, and who reads it now: a worker holds a lease, and `fence` tells it from the
-- worker that held one before, whose late results are refused.
CREATE TABLE cursors (
    tenant_id text NOT NULL,
    calendar_id text NOT NULL,
    wake_at timestamptz NOT NULL,
    lease_until timestamptz,
    fence bigint NOT NULL DEFAULT 0,
    -- Where the calendar was found: {url, owners, timezone}.
    location json,
    token text,
    whole_at timestamptz,
    told_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    error text,
    -- Somebody asked for this reading, and so also confirms that what is gone is gone.
    asked boolean NOT NULL DEFAULT false,
    -- Every item is read again: what its times mean has changed.
    refresh boolean NOT NULL DEFAULT false,
    -- The host was deleted: the calendar is to be disconnected.
    orphaned boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, calendar_id)
) WITH (fillfactor = 70);
CREATE INDEX cursors_wake ON cursors (wake_at);

-- Every series that a calendar holds, by the object it is in. `hash` is of what has a meaning for us. `source` is kept
-- of series that go on beyond `expanded_until`, so that they can be expanded further. `problem` says why an object
-- could not be understood; what was known of it before stays.
CREATE TABLE items (
    tenant_id text NOT NULL,
    calendar_id text NOT NULL,
    ref text NOT NULL,
    uid text NOT NULL,
    etag text NOT NULL,
    hash bytea,
    event_id text,
    own boolean NOT NULL DEFAULT false,
    source text,
    expanded_until timestamptz,
    problem text,
    PRIMARY KEY (tenant_id, calendar_id, ref, uid)
);
CREATE INDEX items_expanded ON items (tenant_id, calendar_id, expanded_until) WHERE expanded_until IS NOT NULL;

-- Calendar events as the API shows them: external ones, own blocks (no calendar), and those that bookings have made.
CREATE TABLE calendar_events (
    tenant_id text NOT NULL,
    id text NOT NULL,
    calendar_id text,
    host_id text NOT NULL,
    source text NOT NULL CHECK (source IN ('provider', 'booking', 'api')),
    status text NOT NULL,
    title text,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    all_day boolean NOT NULL,
    busy boolean NOT NULL,
    booking_id text,
    metadata json NOT NULL,
    version integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX calendar_events_start ON calendar_events (tenant_id, start_at, id);
CREATE INDEX calendar_events_calendar ON calendar_events (tenant_id, calendar_id) WHERE calendar_id IS NOT NULL;
CREATE INDEX calendar_events_host ON calendar_events (tenant_id, host_id, start_at, id);

-- What calendars are to show of bookings. `shape_rev` counts how often that has changed.
CREATE TABLE bookings (
    tenant_id text NOT NULL,
    id text NOT NULL,
    version integer NOT NULL,
    present boolean NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    host_ids text[] NOT NULL,
    person_id text NOT NULL,
    shape_rev integer NOT NULL,
    shape json NOT NULL,
    summary text NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX bookings_host ON bookings USING gin (host_ids) WHERE present;
CREATE INDEX bookings_person ON bookings (tenant_id, person_id);
CREATE INDEX bookings_end ON bookings (end_at);

-- One row a booking and calendar that it is written into: the desired state, and what was done about it. `wake_at` is
-- null while there is nothing to do. `unsure`: a write may have been done of which no answer came, or the calendar was
-- edited, so the calendar is asked before it is written to.
CREATE TABLE mirrors (
    tenant_id text NOT NULL,
    booking_id text NOT NULL,
    calendar_id text NOT NULL,
    uid text NOT NULL,
    ref text,
    etag text,
    desired_rev integer NOT NULL,
    desired boolean NOT NULL,
    applied_rev integer NOT NULL DEFAULT 0,
    written_hash bytea,
    unsure boolean NOT NULL DEFAULT false,
    corrections integer NOT NULL DEFAULT 0,
    wake_at timestamptz,
    lease_until timestamptz,
    fence bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    dead boolean NOT NULL DEFAULT false,
    error text,
    PRIMARY KEY (tenant_id, booking_id, calendar_id)
) WITH (fillfactor = 70);
CREATE INDEX mirrors_wake ON mirrors (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX mirrors_calendar ON mirrors (tenant_id, calendar_id);
CREATE INDEX mirrors_uid ON mirrors (tenant_id, uid);
