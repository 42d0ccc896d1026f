"""Calls under control: placed, listed, ended, told something, given away, from any worker."""
