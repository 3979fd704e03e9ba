"""The stranger's package is data: its tests run where it is installed."""

collect_ignore = ["stranger"]
