"""What a running part consists of: composition, API server, process, telemetry."""
