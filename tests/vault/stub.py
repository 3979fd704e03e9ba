"""A server that answers every request in the same way."""

from localstack.vault_front import Answer, VaultFront


class Stub(VaultFront):
    """A server that answers every request with one status and body."""

    def __init__(self, status, body, *, location=""):
        super().__init__("")
        self._always = Answer(status, body, location)

    def answer(self, request):
        """Return the one answer."""
        return self._always
