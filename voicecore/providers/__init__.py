"""Adapters to those who listen, think and speak: one file a vendor.

A provider is a value that keeps one of the three promises of `contracts`: STT, LLM, TTS.  The rules
that hold here:

* Cancel-safe at every await: a turn that is left leaves no request and no work behind.
* Every wait has a deadline, every body a bound; failure is `ProviderError` and nothing else.
* One quick retry where no byte was used yet, and none after.
* Only what the settings name is imported; `table` maps names to vendors.
"""
