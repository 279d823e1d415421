-- The whole schema, as all of infra/migrations build it: for reading, and held to them by a test.
--
-- ledger.events is the truth: rows are only ever added. Everything in projections can be dropped and
-- built again from it. The cluster roles creditledger_service and creditledger_reader are made by
-- infra/migrations/migrate.py.

CREATE TABLE public.ledger_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    digest text NOT NULL,         -- SHA-256 of the migration's text, in hex
    applied_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ledger_migrations_pkey PRIMARY KEY (version)
);

CREATE SCHEMA ledger;
CREATE SCHEMA projections;

-- ------------------------------------------------------------------------------------- the event store

CREATE TABLE ledger.events (
    originator_id uuid NOT NULL,
    originator_version bigint NOT NULL,
    notification_id bigserial NOT NULL,
    dedupe_key uuid,              -- 16 bytes of the message identity; NULL where nothing can repeat
    refers_to bigint,             -- of a refund: the version of its charge
    topic text NOT NULL,
    state bytea NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (originator_id, originator_version)
) WITH (
    autovacuum_vacuum_insert_threshold = 1000000,
    autovacuum_vacuum_insert_scale_factor = 0.2,
    autovacuum_analyze_threshold = 10000,
    autovacuum_analyze_scale_factor = 0.05
);

CREATE UNIQUE INDEX events_notification_id_idx ON ledger.events (notification_id);
CREATE UNIQUE INDEX events_dedupe_key_idx ON ledger.events (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX events_refers_to_idx ON ledger.events (originator_id, refers_to) WHERE refers_to IS NOT NULL;

CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are facts: % of %.% is refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER events_are_facts BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.events ENABLE ALWAYS TRIGGER events_are_facts;

-- Links of the log's chain that were written down: see projections/audit/seals.py.
CREATE TABLE ledger.seals (
    "position" bigint NOT NULL,   -- the notification_id of the last event it covers
    events bigint NOT NULL,       -- how many events it covers: all from the first
    digest bytea NOT NULL,        -- SHA-256
    sealed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT seals_pkey PRIMARY KEY ("position")
);

CREATE TRIGGER seals_are_facts BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.seals
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.seals ENABLE ALWAYS TRIGGER seals_are_facts;

CREATE TABLE ledger.snapshots (
    originator_id uuid NOT NULL,
    originator_version bigint NOT NULL,
    topic text NOT NULL,
    state bytea NOT NULL,
    CONSTRAINT snapshots_pkey PRIMARY KEY (originator_id, originator_version)
);

-- ------------------------------------------------------------------------- what commits beside the events

CREATE TABLE ledger.consumer_positions (
    topic text NOT NULL,
    partition integer NOT NULL,
    topic_id text NOT NULL,       -- a position belongs to a log, not to a topic name
    next_offset bigint NOT NULL,
    last_record_digest bytea,     -- of the record at next_offset - 1; NULL before the first
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT consumer_positions_pkey PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- How far the log was published on each topic, as the broker has acknowledged it.
CREATE TABLE ledger.publisher_positions (
    topic text NOT NULL,
    topic_id text NOT NULL,       -- a topic made anew is published again from the beginning
    "position" bigint NOT NULL,   -- a notification_id of ledger.events
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT publisher_positions_pkey PRIMARY KEY (topic)
) WITH (fillfactor = 50);

CREATE TABLE ledger.idempotency_keys (
    scope text NOT NULL,
    key text NOT NULL,
    request_digest bytea NOT NULL,
    answer bytea NOT NULL,
    "position" bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (scope, key)
);

CREATE TABLE ledger.parked_messages (
    dedupe_key uuid NOT NULL,
    stream uuid NOT NULL,
    organisation_id text NOT NULL,
    report bytea NOT NULL,        -- the decoded message, as JSON
    record_key bytea,             -- the Kafka record as it came, for the dead-letter topic
    record_value bytea,
    record_headers bytea NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    record_offset bigint NOT NULL,
    parked_at timestamptz NOT NULL,
    CONSTRAINT parked_messages_pkey PRIMARY KEY (dedupe_key)
);

CREATE INDEX parked_messages_stream_idx ON ledger.parked_messages (stream);
CREATE INDEX parked_messages_parked_at_idx ON ledger.parked_messages (parked_at);

-- API keys of organisations. A key is shown once; what stays is its visible id and a digest.

CREATE TABLE ledger.api_keys (
    key_id text NOT NULL,         -- the visible part of the key
    organisation_id text NOT NULL,
    name text NOT NULL,           -- what it is for, in words of whoever asked for it
    digest bytea NOT NULL,        -- SHA-256 of the whole key, which holds 256 random bits
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    last_used_at timestamptz,     -- to the minute; NULL before the first use
    revoked_at timestamptz,       -- NULL while it is live
    revoked_by text,
    CONSTRAINT api_keys_pkey PRIMARY KEY (key_id)
);

CREATE INDEX api_keys_live_idx ON ledger.api_keys (organisation_id) WHERE revoked_at IS NULL;

-- How far those have read the log that keep rows beside it, with which their position moves.

CREATE TABLE ledger.log_readers (
    reader text NOT NULL,
    "position" bigint NOT NULL,   -- a notification_id of ledger.events
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT log_readers_pkey PRIMARY KEY (reader)
) WITH (fillfactor = 50);

-- Where organisations hear of their credits. What was recorded before there were endpoints is told to nobody.

CREATE TABLE ledger.webhook_endpoints (
    endpoint_id text NOT NULL,
    organisation_id text NOT NULL,
    stream uuid NOT NULL,         -- of the organisation
    url text NOT NULL,            -- may hold secrets: it is in no event and no log
    secret text NOT NULL,         -- signs deliveries, so it is kept as it is
    old_secret text,              -- signs as well until then
    old_secret_until timestamptz,
    added_at timestamptz NOT NULL,
    added_by text NOT NULL,
    since_position bigint NOT NULL,   -- events after it are told
    failures integer NOT NULL DEFAULT 0,  -- attempts in a row
    failing_since timestamptz,    -- NULL: the last attempt succeeded
    rests_until timestamptz,      -- nothing is sent before, because attempts failed
    disabled_at timestamptz,
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (endpoint_id)
);

CREATE INDEX webhook_endpoints_stream_idx ON ledger.webhook_endpoints (stream);

CREATE TABLE ledger.webhook_deliveries (
    endpoint_id text NOT NULL,
    message_id text NOT NULL,     -- the same however often it is sent
    sequence bigserial NOT NULL,  -- first attempts go in this order
    type text NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    last_attempt_at timestamptz,
    last_status integer,          -- NULL: there was no answer
    last_error text,              -- NULL: delivered
    next_attempt_at timestamptz,  -- NULL: delivered or given up
    delivered_at timestamptz,
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (endpoint_id, message_id),
    CONSTRAINT webhook_deliveries_endpoint_fkey FOREIGN KEY (endpoint_id)
        REFERENCES ledger.webhook_endpoints (endpoint_id) ON DELETE CASCADE
);

CREATE INDEX webhook_deliveries_pending_idx ON ledger.webhook_deliveries (endpoint_id, sequence)
    WHERE next_attempt_at IS NOT NULL;
CREATE INDEX webhook_deliveries_list_idx ON ledger.webhook_deliveries (endpoint_id, sequence DESC);
CREATE INDEX webhook_deliveries_created_at_idx ON ledger.webhook_deliveries (created_at);

INSERT INTO ledger.log_readers (reader, "position")
SELECT 'webhooks', coalesce(max(notification_id), 0) FROM ledger.events;

-- What names people around payments: billing details, which can be erased, and documents, which are frozen.
CREATE TABLE ledger.billing_details (
    stream uuid NOT NULL,             -- the organisation's
    details jsonb NOT NULL,           -- domain.invoicing.billing_details.BillingDetails
    salt bytea NOT NULL,              -- of the digest in the event; erased with the details
    changed_at timestamptz NOT NULL,
    changed_by text,
    CONSTRAINT billing_details_pkey PRIMARY KEY (stream)
);

CREATE TABLE ledger.invoice_documents (
    number text NOT NULL,
    stream uuid NOT NULL,             -- the organisation's
    payment_id text NOT NULL,
    refund_id text NOT NULL,          -- of a credit note; empty for the invoice of the payment
    issued_at timestamptz NOT NULL,
    total_minor bigint NOT NULL,      -- what the payer paid, or got back
    document text NOT NULL,           -- JSON as it was issued, byte for byte: the event has its SHA-256
    CONSTRAINT invoice_documents_pkey PRIMARY KEY (number),
    CONSTRAINT invoice_documents_once UNIQUE (payment_id, refund_id)
);

CREATE INDEX invoice_documents_list_idx ON ledger.invoice_documents (stream, issued_at DESC, number DESC);

-- What the pages keep of the people who use them. Only a digest of a session's id is here.

CREATE TABLE ledger.sessions (
    digest bytea NOT NULL,        -- SHA-256 of the session's id, which holds 256 random bits
    subject text NOT NULL,
    kind text NOT NULL,           -- person | staff | auditor
    memberships jsonb NOT NULL,   -- of a person: the role in each organisation, by its id
    ticket_id text,               -- of the link it was opened with: a link opens one session
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,         -- NULL until somebody signs out
    CONSTRAINT sessions_pkey PRIMARY KEY (digest),
    CONSTRAINT sessions_ticket_id_key UNIQUE (ticket_id)
);

CREATE INDEX sessions_expires_at_idx ON ledger.sessions (expires_at);

CREATE TABLE ledger.page_preferences (
    subject text NOT NULL,
    shows_price boolean NOT NULL DEFAULT false,
    scheme text NOT NULL DEFAULT 'system',  -- system | light | dark
    CONSTRAINT page_preferences_pkey PRIMARY KEY (subject)
);

-- Names of people, whom events know by opaque ids. Erasing somebody empties the row and leaves it, so that their
-- history stays as it is and nobody takes their place.

CREATE TABLE ledger.people (
    user_id text NOT NULL,
    name text,
    email text,
    updated_at timestamptz NOT NULL,
    erased_at timestamptz,
    CONSTRAINT people_pkey PRIMARY KEY (user_id),
    CONSTRAINT people_erased_check CHECK (
        CASE WHEN erased_at IS NULL THEN name IS NOT NULL ELSE name IS NULL AND email IS NULL END
    )
);

-- What lies beside payments. A quote is kept a while after it has expired.

CREATE TABLE ledger.purchase_quotes (
    quote_id text NOT NULL,
    organisation_id text NOT NULL,
    body bytea NOT NULL,          -- JSON of what is to be paid
    expires_at timestamptz NOT NULL,
    CONSTRAINT purchase_quotes_pkey PRIMARY KEY (quote_id)
);

CREATE INDEX purchase_quotes_expires_at_idx ON ledger.purchase_quotes (expires_at);

-- People wrote these, so they can be erased.
CREATE TABLE ledger.payment_remarks (
    payment_id text NOT NULL,
    organisation_id text NOT NULL,
    remark text NOT NULL,
    CONSTRAINT payment_remarks_pkey PRIMARY KEY (payment_id)
);

CREATE TABLE ledger.payment_flag_notes (
    payment_id text NOT NULL,
    flag text NOT NULL,
    gateway_payment_id text NOT NULL,
    amount_minor bigint NOT NULL,
    organisation_id text NOT NULL,
    note text NOT NULL,
    CONSTRAINT payment_flag_notes_pkey PRIMARY KEY (payment_id, flag, gateway_payment_id, amount_minor)
);

-- ------------------------------------------------------------------------------------------ projections
-- stream is the organisation's originator_id in ledger.events; versions and positions are those of its events.
-- Four projections fill these tables: balance (balances, holds, auto_top_ups), payments (payments, billing),
-- payment_flags, and statement (all others), each moving all of its tables in one transaction, so that cards, rows,
-- attribution and days always agree.

CREATE TABLE projections.positions (
    projection text NOT NULL,
    "position" bigint NOT NULL,   -- the last notification_id the rows contain
    generation bigint NOT NULL,   -- grows with every rebuild: fences runners of the older rows
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT positions_pkey PRIMARY KEY (projection)
) WITH (fillfactor = 50);

CREATE TABLE projections.balances (
    stream uuid NOT NULL,
    organisation_id text NOT NULL,
    balance bigint NOT NULL,      -- granted + purchased + refunded - charged
    granted bigint NOT NULL,      -- credits ever added or charged, by kind
    purchased bigint NOT NULL,
    refunded bigint NOT NULL,
    charged bigint NOT NULL,
    currency text NOT NULL,
    price_millionths bigint NOT NULL,
    plan text NOT NULL,
    plan_expires_at timestamptz,
    time_zone text NOT NULL,
    opened_at timestamptz NOT NULL,
    version bigint NOT NULL,
    "position" bigint NOT NULL,   -- of the organisation's latest event
    on_hold bigint NOT NULL DEFAULT 0,  -- what open holds have not used
    CONSTRAINT balances_pkey PRIMARY KEY (stream)
) WITH (fillfactor = 70);

-- Staff look organisations up by the beginning of their id.
CREATE INDEX balances_organisation_id_idx ON projections.balances (organisation_id text_pattern_ops);

CREATE TABLE projections.holds (
    stream uuid NOT NULL,
    hold_id text NOT NULL,
    run_id text NOT NULL,
    status text NOT NULL,         -- open | settled | released | lapsed
    mode text NOT NULL,           -- all_or_nothing | up_to
    requested bigint NOT NULL,    -- credits asked for, held, and charged from the hold
    credits bigint NOT NULL,
    used bigint NOT NULL,
    placed_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    closed_at timestamptz,
    version bigint NOT NULL,      -- of the event that placed it
    CONSTRAINT holds_pkey PRIMARY KEY (stream, hold_id)
) WITH (fillfactor = 70);

CREATE INDEX holds_open_idx ON projections.holds (expires_at) WHERE status = 'open';
CREATE INDEX holds_list_idx ON projections.holds (stream, version DESC);
CREATE INDEX holds_status_idx ON projections.holds (stream, status, version DESC);

-- Auto top-up; whoever never switched it on has no row.
CREATE TABLE projections.auto_top_ups (
    stream uuid NOT NULL,         -- of the organisation
    is_on boolean NOT NULL,
    credits bigint,
    threshold bigint,
    per_day integer,
    card_of text,                 -- the payment whose card is charged
    most_minor bigint,            -- what it may be charged each time, tax included
    switched_on_at timestamptz,
    off_reason text,              -- asked | payments_failed | price_rose | not_for_sale
    last_payment_id text,         -- of the top-up begun last
    last_day date,                -- its day in the organisation's zone,
    last_number integer,          -- and which of that day it was
    held_on date,                 -- the day on which no more are begun; 0001-01-01: none
    held_reason text,             -- limit_reached | payment_failed | too_small
    CONSTRAINT auto_top_ups_pkey PRIMARY KEY (stream)
);

-- One list of usage (a row per run) and additions (a row per event), read newest first by kind.
CREATE TABLE projections.transactions (
    stream uuid NOT NULL,
    kind text NOT NULL,           -- usage | addition
    reference text NOT NULL,      -- run id of usage, version of an addition
    type text NOT NULL,           -- usage | purchase | free_credits | admin_grant | refund
    credits bigint NOT NULL,      -- signed: usage is negative
    occurred_at timestamptz NOT NULL,  -- of usage: the earliest of its charges
    recorded_at timestamptz NOT NULL,  -- of the first event
    actor text,                   -- of the first event; NULL: System
    month date,                   -- usage: the month the run counts in
    photos bigint,
    usage_types text[],           -- usually one, in order of appearance
    event_ids bigint[],           -- usually one, in order of appearance
    event_name text,              -- of the first event id
    first_version bigint NOT NULL,
    last_version bigint NOT NULL, -- the run's charges are among these versions of the stream
    details bytea,                -- additions: JSON of what the type knows (payment, reason, charge)
    CONSTRAINT transactions_pkey PRIMARY KEY (stream, kind, reference)
) WITH (fillfactor = 80);

CREATE INDEX transactions_list_idx ON projections.transactions (stream, kind, occurred_at DESC, reference DESC);
-- Runs of a photo event; those of several are found under the first, and looked through for the others.
CREATE INDEX transactions_event_idx ON projections.transactions
    (stream, (event_ids[1]), occurred_at DESC, reference DESC) WHERE kind = 'usage';
CREATE INDEX transactions_several_events_idx ON projections.transactions
    (stream, occurred_at DESC, reference DESC) WHERE kind = 'usage' AND cardinality(event_ids) > 1;

CREATE TABLE projections.usage_months (
    stream uuid NOT NULL,
    month date NOT NULL,          -- its first day, in the organisation's zone
    credits bigint NOT NULL,
    photos bigint NOT NULL,
    runs bigint NOT NULL,
    events bigint NOT NULL,       -- distinct event ids
    CONSTRAINT usage_months_pkey PRIMARY KEY (stream, month)
) WITH (fillfactor = 70);

-- Keyed by day first: a chart reads a range of days, and the days of a month lie in one.
CREATE TABLE projections.usage_days (
    stream uuid NOT NULL,
    day date NOT NULL,            -- the day the charge's usage happened
    month date NOT NULL,          -- the month the run counts in: days of a month sum to its card
    credits bigint NOT NULL,
    photos bigint NOT NULL,
    CONSTRAINT usage_days_pkey PRIMARY KEY (stream, day, month)
) WITH (fillfactor = 70);

CREATE INDEX usage_days_month_idx ON projections.usage_days (stream, month, day);

CREATE TABLE projections.event_usage (
    stream uuid NOT NULL,
    month date NOT NULL,
    event_id bigint NOT NULL,
    event_name text NOT NULL,     -- the latest reported
    credits bigint NOT NULL,
    photos bigint NOT NULL,
    runs bigint NOT NULL,         -- distinct runs of the month that name the event
    first_occurred_at timestamptz NOT NULL,
    last_occurred_at timestamptz NOT NULL,
    CONSTRAINT event_usage_pkey PRIMARY KEY (stream, month, event_id)
);

CREATE INDEX event_usage_list_idx ON projections.event_usage (stream, month, credits DESC, event_id DESC);

-- event_usage over all months, for a list that costs the same whatever the history.
CREATE TABLE projections.event_totals (
    stream uuid NOT NULL,
    event_id bigint NOT NULL,
    event_name text NOT NULL,
    credits bigint NOT NULL,
    photos bigint NOT NULL,
    runs bigint NOT NULL,
    first_occurred_at timestamptz NOT NULL,
    last_occurred_at timestamptz NOT NULL,
    CONSTRAINT event_totals_pkey PRIMARY KEY (stream, event_id)
);

CREATE INDEX event_totals_list_idx ON projections.event_totals (stream, credits DESC, event_id DESC);

-- Filled by the projection payments.
CREATE TABLE projections.payments (
    stream uuid NOT NULL,         -- of the organisation
    payment_id text NOT NULL,
    kind text NOT NULL,           -- credits | pro | custom
    status text NOT NULL,         -- created | pending | completed | failed | abandoned | refunded
    gateway text NOT NULL,
    order_id text,                -- the gateway's own ids
    gateway_payment_id text,
    credits bigint NOT NULL,
    unit_price_millionths bigint NOT NULL,
    credits_minor bigint NOT NULL,
    fee_minor bigint NOT NULL,
    amount_minor bigint NOT NULL, -- credits_minor + fee_minor; tax comes on top
    tax_minor bigint NOT NULL,
    currency text NOT NULL,
    price_version text NOT NULL,
    refunded_credits bigint NOT NULL,
    refunded_minor bigint NOT NULL,  -- what went back to the payer, tax included
    open_refunds integer NOT NULL,   -- asked for, and not answered by the gateway yet
    reason text,                  -- why it failed or was abandoned, in a code
    requested_by text,
    created_at timestamptz NOT NULL,
    completed_at timestamptz,
    version bigint NOT NULL,      -- of the payment's latest event
    "position" bigint NOT NULL,
    invoiced boolean NOT NULL DEFAULT false,
    credited_minor bigint NOT NULL DEFAULT 0,  -- what credit notes say went back
    billable boolean NOT NULL DEFAULT false,   -- billing details are on file
    CONSTRAINT payments_pkey PRIMARY KEY (stream, payment_id)
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX payments_payment_id_idx ON projections.payments (payment_id);
CREATE INDEX payments_list_idx ON projections.payments (stream, created_at DESC, payment_id DESC);
CREATE INDEX payments_unpaid_idx ON projections.payments (created_at) WHERE completed_at IS NULL;
-- What nobody has paid or given up yet: those given up are many.
CREATE INDEX payments_open_idx ON projections.payments (created_at) WHERE status IN ('created', 'pending');
CREATE INDEX payments_refunds_idx ON projections.payments (payment_id) WHERE open_refunds > 0;
-- What lacks a document, and what lacks one and can have it.
CREATE INDEX payments_papers_lacking_idx ON projections.payments (stream, completed_at)
    WHERE completed_at IS NOT NULL AND (NOT invoiced OR refunded_minor > credited_minor);
CREATE INDEX payments_papers_due_idx ON projections.payments (completed_at)
    WHERE completed_at IS NOT NULL
        AND (invoiced AND refunded_minor > credited_minor OR NOT invoiced AND billable);
CREATE INDEX balances_pro_idx ON projections.balances (plan_expires_at) WHERE plan = 'pro';

-- Filled by the projection payment_flags: one row per thing that was flagged.
CREATE TABLE projections.payment_flags (
    stream uuid NOT NULL,         -- of the organisation
    payment_id text NOT NULL,
    flag text NOT NULL,           -- why somebody has to look, or had to
    gateway_payment_id text NOT NULL,  -- the attempt that moved the money
    amount_minor bigint NOT NULL, -- what it moved
    currency text NOT NULL,
    flagged_at timestamptz NOT NULL,
    settled_at timestamptz,       -- NULL: it is open
    settled_by text,              -- NULL as well where the money went back by itself
    refund_id text,               -- by which the money went back
    "position" bigint NOT NULL,   -- of the event that flagged it last
    CONSTRAINT payment_flags_pkey PRIMARY KEY (stream, payment_id, flag, gateway_payment_id, amount_minor)
);

CREATE INDEX payment_flags_open_idx ON projections.payment_flags ("position" DESC) WHERE settled_at IS NULL;
CREATE INDEX payment_flags_settled_idx ON projections.payment_flags ("position" DESC)
    WHERE settled_at IS NOT NULL;

CREATE TABLE projections.billing (
    stream uuid NOT NULL,         -- of the organisation
    on_file boolean NOT NULL,     -- whether billing details are
    CONSTRAINT billing_pkey PRIMARY KEY (stream)
);

-- ------------------------------------------------------------------------------------------- privileges
-- creditledger_service is what every part of the service runs as. It can add events, never change them.

GRANT USAGE ON SCHEMA ledger, projections TO creditledger_service;
GRANT SELECT, INSERT ON ledger.events, ledger.seals TO creditledger_service;
GRANT SELECT, INSERT, DELETE ON ledger.snapshots TO creditledger_service;
GRANT USAGE, SELECT ON SEQUENCE ledger.events_notification_id_seq TO creditledger_service;
GRANT SELECT, INSERT, UPDATE ON ledger.consumer_positions, ledger.publisher_positions TO creditledger_service;
GRANT SELECT, INSERT, DELETE ON ledger.idempotency_keys, ledger.parked_messages TO creditledger_service;
GRANT SELECT, INSERT, DELETE ON ledger.purchase_quotes, ledger.payment_remarks TO creditledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.payment_flag_notes TO creditledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA projections TO creditledger_service;
GRANT SELECT, INSERT, UPDATE ON ledger.api_keys TO creditledger_service;
GRANT SELECT, INSERT, UPDATE ON ledger.people TO creditledger_service;
GRANT SELECT, UPDATE ON ledger.log_readers TO creditledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.webhook_endpoints, ledger.webhook_deliveries
    TO creditledger_service;
GRANT USAGE, SELECT ON SEQUENCE ledger.webhook_deliveries_sequence_seq TO creditledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.billing_details TO creditledger_service;
GRANT SELECT, INSERT ON ledger.invoice_documents TO creditledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.sessions TO creditledger_service;
GRANT SELECT, INSERT, UPDATE ON ledger.page_preferences TO creditledger_service;

-- ---------------------------------------------------------------------------------------- a second wall
-- creditledger_reader is what the API becomes, for one transaction, to read for somebody who is of
-- organisations: it sees the rows of the one that creditledger.organisation names (its stream), and none
-- where that names none. Everybody else sees every row, as before.

DO $$
DECLARE
    projected text;
BEGIN
    FOR projected IN
        SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'projections'::regnamespace AND relkind = 'r' AND attname = 'stream'
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', projected);
        EXECUTE format('CREATE POLICY every_row ON %s TO creditledger_service USING (true)', projected);
        EXECUTE format(
            'CREATE POLICY own_rows ON %s FOR SELECT TO creditledger_reader USING'
            ' (stream = nullif(current_setting(''creditledger.organisation'', true), '''')::uuid)',
            projected
        );
    END LOOP;
END $$;

-- Events themselves have no policies: PostgreSQL refuses COPY into a table that has any.
CREATE VIEW ledger.events_in_sight WITH (security_barrier) AS
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE current_user <> 'creditledger_reader'
        OR originator_id = nullif(current_setting('creditledger.organisation', true), '')::uuid;

GRANT USAGE ON SCHEMA ledger, projections TO creditledger_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA projections TO creditledger_reader;
GRANT SELECT (notification_id) ON ledger.events TO creditledger_reader;
GRANT SELECT ON ledger.events_in_sight TO creditledger_reader, creditledger_service;

-- What names people around payments has the same wall.
GRANT SELECT (stream, details, changed_at, changed_by) ON ledger.billing_details TO creditledger_reader;
GRANT SELECT ON ledger.invoice_documents TO creditledger_reader;

ALTER TABLE ledger.billing_details ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.invoice_documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY every_row ON ledger.billing_details TO creditledger_service USING (true);
CREATE POLICY every_row ON ledger.invoice_documents TO creditledger_service USING (true);
CREATE POLICY own_rows ON ledger.billing_details FOR SELECT TO creditledger_reader
    USING (stream = nullif(current_setting('creditledger.organisation', true), '')::uuid);
CREATE POLICY own_rows ON ledger.invoice_documents FOR SELECT TO creditledger_reader
    USING (stream = nullif(current_setting('creditledger.organisation', true), '')::uuid);
