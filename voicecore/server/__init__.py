"""HTTP and WebSocket on one port: who may call in, and what becomes of every connection.

port/                           a socket becomes requests and streams, under every limit
serve                           connections, in one nursery; drain
lifecycle, workers              signals, processes
house, routes, webhooks         what requests are answered from, and by whom
carrier_routes, carrier_secret  the same for carriers beside Twilio
admission, ledger               places, signatures, tokens; what all workers count
media, conversing               a stream becomes a call
open_agents                     who answers, with providers that are open
store, call_state               what all workers must find: values, what is known of calls
recordings/                     the recording flow: calls that go on without a stream
control/                        calls are placed, listed, ended, told something, given away
metrics, meters, log            what is measured and written down of calls
status, words                   what carriers tell of calls; what callers are told without an agent
"""
