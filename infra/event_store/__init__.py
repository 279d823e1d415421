"""The event store on PostgreSQL, built on the extension points of the eventsourcing library."""
