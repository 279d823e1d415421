-- What lists read of organisations with millions of runs.

CREATE INDEX holds_status_idx ON projections.holds (stream, status, version DESC);

-- Runs of a photo event; those of several are found under the first, and looked through for the others.
CREATE INDEX transactions_event_idx ON projections.transactions
    (stream, (event_ids[1]), occurred_at DESC, reference DESC) WHERE kind = 'usage';
CREATE INDEX transactions_several_events_idx ON projections.transactions
    (stream, occurred_at DESC, reference DESC) WHERE kind = 'usage' AND cardinality(event_ids) > 1;

-- Which papers a payment has and could have: what lacks one is found without looking at all others.
ALTER TABLE projections.payments
    ADD COLUMN invoiced boolean NOT NULL DEFAULT false,
    ADD COLUMN credited_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN billable boolean NOT NULL DEFAULT false;

CREATE TABLE projections.billing (
    stream uuid NOT NULL,         -- of the organisation
    on_file boolean NOT NULL,     -- whether billing details are
    CONSTRAINT billing_pkey PRIMARY KEY (stream)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON projections.billing TO creditledger_service;
GRANT SELECT ON projections.billing TO creditledger_reader;
ALTER TABLE projections.billing ENABLE ROW LEVEL SECURITY;
CREATE POLICY every_row ON projections.billing TO creditledger_service USING (true);
CREATE POLICY own_rows ON projections.billing FOR SELECT TO creditledger_reader
    USING (stream = nullif(current_setting('creditledger.organisation', true), '')::uuid);

-- What the projection, which waits meanwhile, has passed already. Events are arrays of the fields in
-- domain/invoice_facts.py and domain/audit_facts.py.
SELECT FROM projections.positions WHERE projection = 'payments' FOR UPDATE;
CREATE TEMPORARY TABLE passed ON COMMIT DROP AS
    SELECT originator_id, originator_version, topic, convert_from(state, 'UTF8')::jsonb AS fact
    FROM ledger.events
    WHERE topic IN ('invoice_issued.v1', 'credit_note_issued.v1', 'billing_details_changed.v1')
        AND notification_id <= (SELECT "position" FROM projections.positions WHERE projection = 'payments');

UPDATE projections.payments SET invoiced = true
FROM passed WHERE topic = 'invoice_issued.v1' AND payment_id = fact ->> 6;

UPDATE projections.payments SET credited_minor = notes.total_minor
FROM (
    SELECT fact ->> 6 AS payment_id, sum((fact ->> 7)::bigint + (fact ->> 8)::bigint) AS total_minor
    FROM passed WHERE topic = 'credit_note_issued.v1' GROUP BY 1
) AS notes
WHERE payments.payment_id = notes.payment_id;

INSERT INTO projections.billing
SELECT DISTINCT ON (originator_id) originator_id, fact ->> 3 IS NOT NULL FROM passed
WHERE topic = 'billing_details_changed.v1' ORDER BY originator_id, originator_version DESC;

UPDATE projections.payments SET billable = true
FROM projections.billing WHERE billing.stream = payments.stream AND on_file;

CREATE INDEX payments_papers_due_idx ON projections.payments (completed_at)
    WHERE completed_at IS NOT NULL
        AND (invoiced AND refunded_minor > credited_minor OR NOT invoiced AND billable);
CREATE INDEX payments_papers_lacking_idx ON projections.payments (stream, completed_at)
    WHERE completed_at IS NOT NULL AND (NOT invoiced OR refunded_minor > credited_minor);

-- What nobody has paid or given up yet: those given up are many.
CREATE INDEX payments_open_idx ON projections.payments (created_at) WHERE status IN ('created', 'pending');

-- Snapshots repeat what events say: older ones are thinned out.
GRANT DELETE ON ledger.snapshots TO creditledger_service;
