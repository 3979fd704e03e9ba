"""Makes hpke-peers.json: what other implementations of HPKE sealed for keys of ours, once they opened ours as well.

It needs pyhpke, in another environment, and @hpke/core with @hpke/hybridkem-x-wing from npm, which no test needs:

    python tests/vectors/make_hpke.py PYTHON_WITH_PYHPKE FOLDER_WITH_NODE_MODULES

The peers seal with HPKE alone: the seed, the `info` and the plaintext are given to them, and nothing of ours.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from kmsbridge.context import EncryptionContext
from kmsbridge.driver import Secret
from kmsbridge.drivers.hpke.publickey import PublicKey
from kmsbridge.drivers.hpke.suites import HYBRID, X25519

HERE = Path(__file__).parent
CASES = 8
PYHPKE = """
import json, sys
from pyhpke import AEADId, CipherSuite, KDFId, KEMId
asked = {name: bytes.fromhex(value) for name, value in json.load(sys.stdin).items()}
suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
if "wrapped" in asked:
    key = suite.kem.deserialize_private_key(asked["seed"])
    context = suite.create_recipient_context(asked["wrapped"][:32], key, info=asked["info"])
    print(json.dumps({"plaintext": context.open(asked["wrapped"][32:]).hex()}))
else:
    key = suite.kem.deserialize_public_key(asked["public"])
    enc, context = suite.create_sender_context(key, info=asked["info"])
    print(json.dumps({"wrapped": (enc + context.seal(asked["plaintext"])).hex()}))
"""


def main(python, modules):
    peer = shutil.copy(HERE / "hpke_peer.mjs", modules)
    commands = {
        X25519: ("pyhpke", [python, "-c", PYHPKE]),
        HYBRID: ("@hpke/hybridkem-x-wing", ["node", peer]),
    }
    cases = [
        case(suite, name, command, number)
        for suite, (name, command) in commands.items()
        for number in range(CASES)
    ]
    (HERE / "hpke-peers.json").write_text(json.dumps(cases, indent=1) + "\n")
    print(f"made {len(cases)} cases")


def case(suite, peer, command, number):
    seed, plaintext = os.urandom(32), os.urandom(32)
    _, data = suite.load_private(Secret(seed))
    key = PublicKey.of(f"peer-{number}@{os.urandom(8).hex()}", suite, data)
    pairs = {f"name {n}": "value" * n for n in range(1, number + 1)}
    context = EncryptionContext.of(pairs).with_reserved(kmsbridge="dek")
    known = {"seed": seed.hex(), "public": data.hex(), "info": key.info(context).hex()}
    theirs = ask(command, {**known, "plaintext": plaintext.hex()})["wrapped"]
    ours = key.wrap(plaintext, context)
    assert ask(command, {**known, "wrapped": ours.hex()}) == {"plaintext": plaintext.hex()}
    return {
        "peer": peer,
        "suite": suite.name,
        "public_key": key.line(),
        "seed": seed.hex(),
        "context": dict(context),
        "plaintext": plaintext.hex(),
        "wrapped": theirs,
    }


def ask(command, question):
    done = subprocess.run(command, input=json.dumps(question), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
