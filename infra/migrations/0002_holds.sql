-- Holds: what an organisation has on hold, and every hold it ever had.

ALTER TABLE projections.balances ADD COLUMN on_hold bigint NOT NULL DEFAULT 0;  -- open holds, unused

-- Filled by the projection balance.
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

-- The part of a month up to a day: a run of the month may have begun before it.
CREATE INDEX usage_days_month_idx ON projections.usage_days (stream, month, day);

GRANT SELECT, INSERT, UPDATE, DELETE ON projections.holds TO creditledger_service;
