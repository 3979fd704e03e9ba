"""A fake key service in memory, and the drivers that call it."""
