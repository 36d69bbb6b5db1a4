"""Files, cache, leases."""
