-- The whole schema after all migrations, for reading. A test compares it with the result of the migrations.
--
-- ledger.events is the source of truth: rows are only added. The schema projections can be rebuilt from it.
-- infra/migrations/migrate.py creates the cluster roles creditledger_service and creditledger_reader.

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
    dedupe_key uuid,              -- unique in the ledger; NULL if the event needs no dedupe key
    refers_to bigint,             -- for a refund: the version of its charge or purchase
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

-- Digests of the log up to a position: see projections/audit/seals.py.
CREATE TABLE ledger.seals (
    "position" bigint NOT NULL,   -- notification_id of the last covered event
    events bigint NOT NULL,       -- number of covered events, from the first one
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

-- ------------------------------------------------------------- rows that commit together with the events

CREATE TABLE ledger.consumer_positions (
    topic text NOT NULL,
    partition integer NOT NULL,
    topic_id text NOT NULL,       -- a recreated topic has a new id, so the position is invalid for it
    next_offset bigint NOT NULL,
    last_record_digest bytea,     -- digest of the record at next_offset - 1; NULL before the first record
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT consumer_positions_pkey PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- Position up to which each topic has the log, as acknowledged by the broker.
CREATE TABLE ledger.publisher_positions (
    topic text NOT NULL,
    topic_id text NOT NULL,       -- a recreated topic is published again from the first event
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
    record_key bytea,             -- the original Kafka record, for the dead-letter topic
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

-- API keys of organisations. A key is shown once. Only its visible id and its digest are stored.

CREATE TABLE ledger.api_keys (
    key_id text NOT NULL,         -- the visible part of the key
    organisation_id text NOT NULL,
    name text NOT NULL,           -- purpose, as entered by the creator
    digest bytea NOT NULL,        -- SHA-256 of the whole key, which has 256 random bits
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    last_used_at timestamptz,     -- to the minute; NULL before the first use
    revoked_at timestamptz,       -- NULL while the key is active
    revoked_by text,
    CONSTRAINT api_keys_pkey PRIMARY KEY (key_id)
);

CREATE INDEX api_keys_live_idx ON ledger.api_keys (organisation_id) WHERE revoked_at IS NULL;

-- Positions of log readers. A position moves in the same transaction as the rows of its reader.

CREATE TABLE ledger.log_readers (
    reader text NOT NULL,
    "position" bigint NOT NULL,   -- a notification_id of ledger.events
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT log_readers_pkey PRIMARY KEY (reader)
) WITH (fillfactor = 50);

-- Webhook endpoints of organisations. An endpoint receives only events after it was added.

CREATE TABLE ledger.webhook_endpoints (
    endpoint_id text NOT NULL,
    organisation_id text NOT NULL,
    stream uuid NOT NULL,         -- of the organisation
    url text NOT NULL,            -- may contain secrets, so events and logs do not contain it
    secret text NOT NULL,         -- signs deliveries, so it is stored in plain text
    old_secret text,              -- also signs until old_secret_until
    old_secret_until timestamptz,
    added_at timestamptz NOT NULL,
    added_by text NOT NULL,
    since_position bigint NOT NULL,   -- only later events are delivered
    failures integer NOT NULL DEFAULT 0,  -- failed attempts in a row
    failing_since timestamptz,    -- start of these failures; NULL: the last attempt succeeded
    rests_until timestamptz,      -- no delivery before this time, because attempts failed
    disabled_at timestamptz,
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (endpoint_id)
);

CREATE INDEX webhook_endpoints_stream_idx ON ledger.webhook_endpoints (stream);

CREATE TABLE ledger.webhook_deliveries (
    endpoint_id text NOT NULL,
    message_id text NOT NULL,     -- the same for every attempt
    sequence bigserial NOT NULL,  -- order of first attempts
    type text NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    last_attempt_at timestamptz,
    last_status integer,          -- NULL: no response
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

-- Personal data of payments: billing details, which can be erased, and documents, which never change.
CREATE TABLE ledger.billing_details (
    stream uuid NOT NULL,             -- of the organisation
    details jsonb NOT NULL,           -- domain.invoicing.billing_details.BillingDetails
    salt bytea NOT NULL,              -- salt of the digest in the event; erased with the details
    changed_at timestamptz NOT NULL,
    changed_by text,
    CONSTRAINT billing_details_pkey PRIMARY KEY (stream)
);

CREATE TABLE ledger.invoice_documents (
    number text NOT NULL,
    stream uuid NOT NULL,             -- of the organisation
    payment_id text NOT NULL,
    refund_id text NOT NULL,          -- for a credit note; empty for the invoice
    issued_at timestamptz NOT NULL,
    total_minor bigint NOT NULL,      -- amount paid or refunded
    document text NOT NULL,           -- JSON exactly as issued; the event has its SHA-256
    CONSTRAINT invoice_documents_pkey PRIMARY KEY (number),
    CONSTRAINT invoice_documents_once UNIQUE (payment_id, refund_id)
);

CREATE INDEX invoice_documents_list_idx ON ledger.invoice_documents (stream, issued_at DESC, number DESC);

-- Sessions of the pages. Only the digest of a session's id is stored.

CREATE TABLE ledger.sessions (
    digest bytea NOT NULL,        -- SHA-256 of the session's id, which has 256 random bits
    subject text NOT NULL,
    kind text NOT NULL,           -- person | staff | auditor
    memberships jsonb NOT NULL,   -- for a person: role by organisation id
    ticket_id text,               -- id of the sign-in link; a link opens one session
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,         -- NULL until the user signs out
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

-- Names of people. Events contain only their opaque ids. An erased person's row stays without data, so that
-- history stays unchanged and the id is not used again.

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

-- Quotes of purchases. A quote is deleted some days after it has expired.

CREATE TABLE ledger.purchase_quotes (
    quote_id text NOT NULL,
    organisation_id text NOT NULL,
    body bytea NOT NULL,          -- domain.payments.quotes.PurchaseQuote as JSON
    expires_at timestamptz NOT NULL,
    CONSTRAINT purchase_quotes_pkey PRIMARY KEY (quote_id)
);

CREATE INDEX purchase_quotes_expires_at_idx ON ledger.purchase_quotes (expires_at);

-- Free text of users. It is not in events, so that it can be erased.
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
-- stream is the organisation's originator_id in ledger.events. Versions and positions belong to its events.
-- Four projections fill these tables: balance (balances, holds, auto_top_ups), payments (payments, billing),
-- payment_flags, and statement (all others). Each updates all of its tables in one transaction, so that
-- totals, transactions and days always agree.

CREATE TABLE projections.positions (
    projection text NOT NULL,
    "position" bigint NOT NULL,   -- last notification_id that the rows include
    generation bigint NOT NULL,   -- grows with every rebuild, so that runners of older rows stop
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
    on_hold bigint NOT NULL DEFAULT 0,  -- unused credits of open holds
    CONSTRAINT balances_pkey PRIMARY KEY (stream)
) WITH (fillfactor = 70);

-- Staff search organisations by a prefix of the id.
CREATE INDEX balances_organisation_id_idx ON projections.balances (organisation_id text_pattern_ops);

CREATE TABLE projections.holds (
    stream uuid NOT NULL,
    hold_id text NOT NULL,
    run_id text NOT NULL,
    status text NOT NULL,         -- open | settled | released | lapsed
    mode text NOT NULL,           -- all_or_nothing | up_to
    requested bigint NOT NULL,    -- credits requested, held (credits), and charged (used)
    credits bigint NOT NULL,
    used bigint NOT NULL,
    placed_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    closed_at timestamptz,
    version bigint NOT NULL,      -- version of the event that placed it
    CONSTRAINT holds_pkey PRIMARY KEY (stream, hold_id)
) WITH (fillfactor = 70);

CREATE INDEX holds_open_idx ON projections.holds (expires_at) WHERE status = 'open';
CREATE INDEX holds_list_idx ON projections.holds (stream, version DESC);
CREATE INDEX holds_status_idx ON projections.holds (stream, status, version DESC);

-- Auto top-up. An organisation that never switched it on has no row.
CREATE TABLE projections.auto_top_ups (
    stream uuid NOT NULL,         -- of the organisation
    is_on boolean NOT NULL,
    credits bigint,
    threshold bigint,
    per_day integer,
    card_of text,                 -- the payment whose card is charged
    most_minor bigint,            -- largest amount per charge, including tax
    switched_on_at timestamptz,
    off_reason text,              -- asked | payments_failed | price_rose | not_for_sale
    last_payment_id text,         -- payment of the latest top-up
    last_day date,                -- day of that top-up in the organisation's time zone
    last_number integer,          -- number of that top-up on its day, from 1
    held_on date,                 -- day on which no more top-ups start; 0001-01-01: none
    held_reason text,             -- limit_reached | payment_failed | too_small
    CONSTRAINT auto_top_ups_pkey PRIMARY KEY (stream)
);

-- Usage (a row per run) and additions (a row per event). Lists show them by kind, newest first.
CREATE TABLE projections.transactions (
    stream uuid NOT NULL,
    kind text NOT NULL,           -- usage | addition
    reference text NOT NULL,      -- run id of usage, version of an addition
    type text NOT NULL,           -- usage | purchase | free_credits | admin_grant | refund
    credits bigint NOT NULL,      -- signed: usage is negative
    occurred_at timestamptz NOT NULL,  -- for usage: time of its earliest charge
    recorded_at timestamptz NOT NULL,  -- of the first event
    actor text,                   -- of the first event; NULL: System
    month date,                   -- for usage: the month of the run
    photos bigint,
    usage_types text[],           -- usually one, in order of appearance
    event_ids bigint[],           -- usually one, in order of appearance
    event_name text,              -- of the first event id
    first_version bigint NOT NULL,
    last_version bigint NOT NULL, -- all charges of the run are between these two versions
    details bytea,                -- for additions: JSON with details of the type (payment, reason, charge)
    CONSTRAINT transactions_pkey PRIMARY KEY (stream, kind, reference)
) WITH (fillfactor = 80);

CREATE INDEX transactions_list_idx ON projections.transactions (stream, kind, occurred_at DESC, reference DESC);
-- Runs by photo event: the first index finds a run's first photo event, the second finds runs with several.
CREATE INDEX transactions_event_idx ON projections.transactions
    (stream, (event_ids[1]), occurred_at DESC, reference DESC) WHERE kind = 'usage';
CREATE INDEX transactions_several_events_idx ON projections.transactions
    (stream, occurred_at DESC, reference DESC) WHERE kind = 'usage' AND cardinality(event_ids) > 1;

CREATE TABLE projections.usage_months (
    stream uuid NOT NULL,
    month date NOT NULL,          -- first day of the month, in the organisation's time zone
    credits bigint NOT NULL,
    photos bigint NOT NULL,
    runs bigint NOT NULL,
    events bigint NOT NULL,       -- number of distinct photo events
    CONSTRAINT usage_months_pkey PRIMARY KEY (stream, month)
) WITH (fillfactor = 70);

-- The key starts with the day, because a chart reads a range of days.
CREATE TABLE projections.usage_days (
    stream uuid NOT NULL,
    day date NOT NULL,            -- day of the usage
    month date NOT NULL,          -- month of the run: its days add up to usage_months
    credits bigint NOT NULL,
    photos bigint NOT NULL,
    CONSTRAINT usage_days_pkey PRIMARY KEY (stream, day, month)
) WITH (fillfactor = 70);

CREATE INDEX usage_days_month_idx ON projections.usage_days (stream, month, day);

CREATE TABLE projections.event_usage (
    stream uuid NOT NULL,
    month date NOT NULL,
    event_id bigint NOT NULL,
    event_name text NOT NULL,     -- the latest reported name
    credits bigint NOT NULL,
    photos bigint NOT NULL,
    runs bigint NOT NULL,         -- distinct runs of the month with this photo event
    first_occurred_at timestamptz NOT NULL,
    last_occurred_at timestamptz NOT NULL,
    CONSTRAINT event_usage_pkey PRIMARY KEY (stream, month, event_id)
);

CREATE INDEX event_usage_list_idx ON projections.event_usage (stream, month, credits DESC, event_id DESC);

-- event_usage summed over all months, so that lists do not slow down as the history grows.
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
    order_id text,                -- ids of the gateway
    gateway_payment_id text,
    credits bigint NOT NULL,
    unit_price_millionths bigint NOT NULL,
    credits_minor bigint NOT NULL,
    fee_minor bigint NOT NULL,
    amount_minor bigint NOT NULL, -- credits_minor + fee_minor, without tax
    tax_minor bigint NOT NULL,
    currency text NOT NULL,
    price_version text NOT NULL,
    refunded_credits bigint NOT NULL,
    refunded_minor bigint NOT NULL,  -- refunded amount, including tax
    open_refunds integer NOT NULL,   -- requested, but not confirmed by the gateway yet
    reason text,                  -- code: why it failed or was abandoned
    requested_by text,
    created_at timestamptz NOT NULL,
    completed_at timestamptz,
    version bigint NOT NULL,      -- of the payment's latest event
    "position" bigint NOT NULL,
    invoiced boolean NOT NULL DEFAULT false,
    credited_minor bigint NOT NULL DEFAULT 0,  -- amount of its credit notes
    billable boolean NOT NULL DEFAULT false,   -- the organisation has billing details
    CONSTRAINT payments_pkey PRIMARY KEY (stream, payment_id)
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX payments_payment_id_idx ON projections.payments (payment_id);
CREATE INDEX payments_list_idx ON projections.payments (stream, created_at DESC, payment_id DESC);
CREATE INDEX payments_unpaid_idx ON projections.payments (created_at) WHERE completed_at IS NULL;
-- Open payments. A partial index, because most unpaid payments are abandoned.
CREATE INDEX payments_open_idx ON projections.payments (created_at) WHERE status IN ('created', 'pending');
CREATE INDEX payments_refunds_idx ON projections.payments (payment_id) WHERE open_refunds > 0;
-- Payments without a document, and those of them whose document can be issued.
CREATE INDEX payments_papers_lacking_idx ON projections.payments (stream, completed_at)
    WHERE completed_at IS NOT NULL AND (NOT invoiced OR refunded_minor > credited_minor);
CREATE INDEX payments_papers_due_idx ON projections.payments (completed_at)
    WHERE completed_at IS NOT NULL
        AND (invoiced AND refunded_minor > credited_minor OR NOT invoiced AND billable);
CREATE INDEX balances_pro_idx ON projections.balances (plan_expires_at) WHERE plan = 'pro';

-- Filled by the projection payment_flags: one row per flag.
CREATE TABLE projections.payment_flags (
    stream uuid NOT NULL,         -- of the organisation
    payment_id text NOT NULL,
    flag text NOT NULL,           -- reason for the flag
    gateway_payment_id text NOT NULL,  -- the attempt that took the money
    amount_minor bigint NOT NULL, -- amount of the attempt
    currency text NOT NULL,
    flagged_at timestamptz NOT NULL,
    settled_at timestamptz,       -- NULL: the flag is open
    settled_by text,              -- also NULL if a refund settled the flag
    refund_id text,               -- the refund that settled the flag
    "position" bigint NOT NULL,   -- of the latest event that set the flag
    CONSTRAINT payment_flags_pkey PRIMARY KEY (stream, payment_id, flag, gateway_payment_id, amount_minor)
);

CREATE INDEX payment_flags_open_idx ON projections.payment_flags ("position" DESC) WHERE settled_at IS NULL;
CREATE INDEX payment_flags_settled_idx ON projections.payment_flags ("position" DESC)
    WHERE settled_at IS NOT NULL;

CREATE TABLE projections.billing (
    stream uuid NOT NULL,         -- of the organisation
    on_file boolean NOT NULL,     -- whether the organisation has billing details
    CONSTRAINT billing_pkey PRIMARY KEY (stream)
);

-- ------------------------------------------------------------------------------------------- privileges
-- Every part of the service uses the role creditledger_service. It can add events but not change them.

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

-- ---------------------------------------------------------------------------------- row level security
-- For a member of an organisation, the API switches to the role creditledger_reader for one transaction. This
-- role sees only the rows of the stream in the setting creditledger.organisation, and no rows if the setting
-- is empty. Other roles see all rows.

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

-- ledger.events has no policies, because PostgreSQL refuses COPY into a table with policies.
CREATE VIEW ledger.events_in_sight WITH (security_barrier) AS
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE current_user <> 'creditledger_reader'
        OR originator_id = nullif(current_setting('creditledger.organisation', true), '')::uuid;

GRANT USAGE ON SCHEMA ledger, projections TO creditledger_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA projections TO creditledger_reader;
GRANT SELECT (notification_id) ON ledger.events TO creditledger_reader;
GRANT SELECT ON ledger.events_in_sight TO creditledger_reader, creditledger_service;

-- The same protection for personal data of payments.
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
