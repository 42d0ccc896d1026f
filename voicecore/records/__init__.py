"""Records of calls: what was heard and said, what happened when, and a log of all calls.

    records        what a server opens once: begins records, takes status callbacks, sweeps
    call_record    one call's, as the event loop sees it: never waits, never raises
    caller_clock   where the caller's sound lies in the recording
    story          milestones into transcript lines and turns
    files          one call's directory
    database       the log of all calls, in SQLite
    store          brings what calls have told to the disk; blocks, so it lives in a thread
    retention      what is deleted, and when
    owners         which processes are alive
    query          questions to the log, for the command line

Rules that hold here:

* A disk is never waited for on the event loop, and what waits for it is bounded.
* A disk that fails costs the record, and one warning; never the call.
* Several processes write one directory: whatever two of them do, the log's transactions order.
* With VOICECORE_RECORD_TEXT off nothing that was said, and nobody's number, gets here at all.
"""
