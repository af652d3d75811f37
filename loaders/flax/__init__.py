"""Flax's msgpack files: their structure is scanned, their arrays stay where they are."""
