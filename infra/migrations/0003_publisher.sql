-- How far the log was published on each topic, as the broker has acknowledged it.

CREATE TABLE ledger.publisher_positions (
    topic text NOT NULL,
    topic_id text NOT NULL,       -- a topic made anew is published again from the beginning
    "position" bigint NOT NULL,   -- a notification_id of ledger.events
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT publisher_positions_pkey PRIMARY KEY (topic)
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE ON ledger.publisher_positions TO creditledger_service;
