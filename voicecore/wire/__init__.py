"""A carrier's WebSocket dialect, without I/O: text in, event out; command in, text out.

One file a carrier; the events and commands are the same for all (`wire.events`).
"""
