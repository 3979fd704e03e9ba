"""A network that misbehaves: a proxy that breaks connections, and certificates that are wrong."""
