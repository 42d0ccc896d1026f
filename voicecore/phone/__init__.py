"""The carrier in a box: places calls as Twilio would, to any voice server, and takes its calls.

`buffer` and `stream` are the carrier's side of a media stream without I/O, `twiml`, `verbs` and
`capture` that of its documents, `account` and `rest` that of its REST API; the rest puts them on
real sockets and draws what happened.  Imports nothing of the server or the call: it must not know
how the other end works.
"""
