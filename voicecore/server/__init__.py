"""HTTP and WebSocket on one port: who may call in, and what becomes of every connection.

listening, lifecycle, workers   sockets, signals, processes
serve                           connections, in one nursery; drain
http, upgrade, routes, urls     requests and what answers them
frames, transport, media        a media stream under its limits
admission, ledger               places, signatures, tokens
observers, metrics, meters      who is told what happens in calls
status                          what carriers tell about calls afterwards
boundary, log, limits           where errors end, what is written down, every number
"""
