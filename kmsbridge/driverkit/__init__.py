"""For authors of drivers: what more than one driver needs beside the interface in `kmsbridge.driver`.

The library bounds, retries and counts whole calls of a driver. These modules are for what happens inside one,
and beside them; each is imported by itself, so that a driver pays for what it uses:

- `deadline`: one deadline for all that a call of the driver waits for.
- `bounded`: pieces of work that know no timeout, such as calls of a C library or a login.
- `background`: a thread that renews something ahead of its end.
- `forks`: forks that wait for the calls under way.
- `http`: sockets whose every wait ends at the deadline, for whichever HTTP client a driver uses.
- `addresses`: the URL of a service as an option gives it, and whether a host is this machine.
- `publickey`: wrapping with a pinned RSA key.
"""
