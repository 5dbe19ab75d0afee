"""The gateway: a client's channels become NATS subscriptions, what it missed is replayed."""
