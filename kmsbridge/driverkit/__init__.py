"""Building blocks for authors of drivers, beside the interface in `kmsbridge.driver`.

The library limits, retries and counts whole calls of a driver. These modules help with the work inside a call
and between calls. Import each by itself, so that a driver loads only what it uses:

- `deadline`: one deadline for everything that a call waits for.
- `bounded`: a timeout for work that has none of its own, such as calls of a C library or a login.
- `background`: a thread that renews something before it expires.
- `forks`: makes a fork wait for the calls in progress.
- `http`: sockets that keep the deadline, for any HTTP client.
- `addresses`: checks the URL of a service, and whether a host is this machine.
- `publickey`: wraps with an RSA public key.
"""
