"""Files, digests, hardware: what the operating system gives."""
