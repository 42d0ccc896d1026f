"""What the other carriers' webhooks say and are answered with.  Twilio has a folder of its own."""
