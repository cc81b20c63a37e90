"""The drawn dataset, for machines without the real one."""
