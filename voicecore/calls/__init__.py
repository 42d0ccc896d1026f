"""``python -m voicecore.calls``: what the log of recorded calls says.  See docs/records.md.

This is only the command line; the questions are `records.query`'s.
"""
