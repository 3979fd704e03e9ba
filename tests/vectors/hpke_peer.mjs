// Seals or opens one hybrid ciphertext with @hpke/hybridkem-x-wing, for make_hpke.py: one JSON object in, one out.
import { readFileSync } from "node:fs";
import { Aes256Gcm, CipherSuite, HkdfSha256 } from "@hpke/core";
import { XWing } from "@hpke/hybridkem-x-wing";

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const bytes = (text) => new Uint8Array(Buffer.from(text, "hex"));
const asked = JSON.parse(readFileSync(0, "utf8"));
const suite = new CipherSuite({ kem: new XWing(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
const info = bytes(asked.info);

if (asked.wrapped === undefined) {
  const recipientPublicKey = await suite.kem.deserializePublicKey(bytes(asked.public).buffer);
  const { enc, ct } = await suite.seal({ recipientPublicKey, info }, bytes(asked.plaintext));
  console.log(JSON.stringify({ wrapped: hex(enc) + hex(ct) }));
} else {
  const recipientKey = await suite.kem.deserializePrivateKey(bytes(asked.seed).buffer);
  const whole = bytes(asked.wrapped);
  const plaintext = await suite.open({ recipientKey, enc: whole.slice(0, 1120), info }, whole.slice(1120));
  console.log(JSON.stringify({ plaintext: hex(plaintext) }));
}
