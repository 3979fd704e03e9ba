"""The fake key service and its drivers: in memory, behind HTTP, and with a key pair; and their harnesses."""
