"""Automated checks, a small function each: when a figure may not be believed, and what to do about it."""
