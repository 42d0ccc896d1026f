"""The recording flow: a call by webhooks, as it goes on without a stream."""
