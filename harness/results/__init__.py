"""Rows and parquet."""
