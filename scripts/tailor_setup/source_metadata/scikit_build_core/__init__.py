"""Stands in for the build tool of a source distribution while pip downloads it: see download.py."""
