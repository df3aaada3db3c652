"""Rendered people who speak, with exact truth."""
