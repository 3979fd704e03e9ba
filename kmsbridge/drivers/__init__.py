"""The drivers that need no SDK. Like any other driver, they use only the driver interface."""
