"""One call: a nursery of four tasks, receive, vad, pipeline and playback.

A turn is a task with one cancel scope and at most one history entry.  A barge-in and a lost
speculation are the same line: ``scope.cancel()``.  The only clock is ``trio.current_time()``.
"""
