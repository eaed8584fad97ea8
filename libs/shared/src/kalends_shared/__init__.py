"""What the services of Kalends share: contracts, event store, messaging, RPC, idempotency, settings, telemetry, test kit."""
