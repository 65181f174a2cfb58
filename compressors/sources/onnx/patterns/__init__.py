"""Patterns that exporters leave behind: one file each."""
