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

GRANT SELECT, UPDATE ON ledger.log_readers TO creditledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.webhook_endpoints, ledger.webhook_deliveries
    TO creditledger_service;
GRANT USAGE, SELECT ON SEQUENCE ledger.webhook_deliveries_sequence_seq TO creditledger_service;
