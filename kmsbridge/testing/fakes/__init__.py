"""The fake key service and the drivers that call it, in memory."""
