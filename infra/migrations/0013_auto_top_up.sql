-- Auto top-up of organisations. Filled by the projection balance; whoever never switched it on has no row.

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

GRANT SELECT, INSERT, UPDATE, DELETE ON projections.auto_top_ups TO creditledger_service;
GRANT SELECT ON projections.auto_top_ups TO creditledger_reader;
ALTER TABLE projections.auto_top_ups ENABLE ROW LEVEL SECURITY;
CREATE POLICY every_row ON projections.auto_top_ups TO creditledger_service USING (true);
CREATE POLICY own_rows ON projections.auto_top_ups FOR SELECT TO creditledger_reader
    USING (stream = nullif(current_setting('creditledger.organisation', true), '')::uuid);
