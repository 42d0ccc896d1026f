"""What is Twilio's own besides its wire: signatures, stream tokens, TwiML, REST, recordings."""
