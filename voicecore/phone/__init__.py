"""The carrier in a box: places calls as Twilio would, to any Media Streams server.

`buffer` and `stream` are the carrier's side of the wire without I/O; the rest puts them on real
sockets and draws what happened.  Imports nothing of the server or the call: it must not know how
the other end works.
"""
