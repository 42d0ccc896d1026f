"""What the carriers' webhooks are answered with, apart from Twilio's, which has a folder."""
