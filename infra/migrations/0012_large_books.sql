-- What lists read of organisations with millions of runs.

CREATE INDEX holds_status_idx ON projections.holds (stream, status, version DESC);

-- Runs of a photo event; those of several are found under the first, and looked through for the others.
CREATE INDEX transactions_event_idx ON projections.transactions
    (stream, (event_ids[1]), occurred_at DESC, reference DESC) WHERE kind = 'usage';
CREATE INDEX transactions_several_events_idx ON projections.transactions
    (stream, occurred_at DESC, reference DESC) WHERE kind = 'usage' AND cardinality(event_ids) > 1;
