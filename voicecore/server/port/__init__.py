"""What is between a socket and a request: HTTP, upgrades, frames, and every limit on strangers."""
