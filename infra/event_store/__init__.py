"""The event store on PostgreSQL, through the eventsourcing library's own extension points."""
