"""A conversation's pure machines: turns, sentences, what was spoken, what was said.

Nothing here waits, reads a clock or knows a carrier or a vendor.  Time is counted in the caller's
own 20 ms frames or in bytes of mu-law (8,000 a second), and comes in as an argument.
"""
