"""Formats, one a module: each adds its record to `FORMATS` (see `export.format`)."""
