"""What every aggregate needs: events, the command runner, the event store port, money, time, errors."""
