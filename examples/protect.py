"""Encrypts its input and prints the message, with whichever key service the configuration names."""

import sys

from kmsbridge import EnvelopeCipher

with EnvelopeCipher.from_config() as cipher:
    phone = sys.stdin.read()
    message = cipher.encrypt_text(phone, context={"tenant": "acme"}, aad=b"users/42/phone")
    assert cipher.decrypt_text(message, context={"tenant": "acme"}, aad=b"users/42/phone") == phone
print(message)
