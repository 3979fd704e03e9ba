"""The contract suite for drivers of kmsbridge. `kmsbridge.testing` has its public names."""
