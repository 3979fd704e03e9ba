// A reader and a writer of messages, written from docs/reference/format.md and nothing else, for Node 20 and later.
//
// `node reader.mjs` answers each line of JSON with one. A request is a case of the vectors, and its answer is
// {"plaintext": hexadecimal} or {"refused": outcome}; one that says "encrypt": kind is answered with
// {"message": hexadecimal} or {"armored": text}. It makes no effort to be fast or to hide keys.

import crypto from "node:crypto";
import readline from "node:readline";

class Refused extends Error {}

function need(condition, outcome = "malformed-message") {
  if (!condition) throw new Refused(outcome);
}

const utf8 = (text) => Buffer.from(text, "utf8");
const hex = (digits) => Buffer.from(digits, "hex");
const join = (...parts) => Buffer.concat(parts);
const number = (value, length) => hex(BigInt(value).toString(16).padStart(2 * length, "0"));
const toNumber = (bytes) => BigInt("0x" + bytes.toString("hex"));

// --- "Armor"

function dearmor(text) {
  const trimmed = text.replace(/^[ \t-\r]+/, "").replace(/(?<![ \t-\r])[ \t-\r]+$/, "");
  need(/^kmsb1_[A-Za-z0-9_-]*$/.test(trimmed));
  const message = Buffer.from(trimmed.slice(6), "base64url");
  need(armor(message) === trimmed); // refuses a sign too many, and bits that are not zero
  return message;
}

function armor(message) {
  return "kmsb1_" + message.toString("base64url");
}

// --- "Header"

class Fields {
  constructor(bytes) {
    this.left = bytes;
  }

  take(length) {
    need(length <= this.left.length);
    const taken = this.left.subarray(0, length);
    this.left = this.left.subarray(length);
    return taken;
  }

  takeWithLength(size, least, most) {
    const length = this.take(size).readUIntBE(0, size);
    need(length >= least && length <= most);
    return this.take(length);
  }
}

function text(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refused("malformed-message");
  }
}

function parse(message) {
  need(message.length >= 8 && message.subarray(0, 4).equals(utf8("KMSB")));
  const [version, kind, end] = [message[4], message[5], message.readUInt16BE(6)];
  need(version !== 0);
  need(version === 1 && kind <= 4, "unsupported-message");
  need(end > 8 && end <= message.length);
  const [stored, compact] = [kind === 1 || kind === 4, kind === 3 || kind === 4];
  const fields = new Fields(message.subarray(8, end));
  const recipients = stored ? [] : parseRecipients(fields, kind === 2 ? 1 : 16);
  const commitment = stored || compact ? fields.take(32) : undefined; // T, also where it is an id
  need(kind <= 1 ? fields.left.every((byte) => byte === 0) : fields.left.length === 0);
  const body = message.subarray(end);
  const [least, most] = compact ? [40, 65576] : kind === 2 ? [0, 0] : [72, Infinity];
  need(body.length >= least && body.length <= most);
  return { kind, stored, compact, recipients, commitment, body };
}

function parseRecipients(fields, most) {
  const count = fields.take(1)[0];
  need(count >= 1 && count <= most);
  const recipients = Array.from({ length: count }, () => {
    const keyId = text(fields.takeWithLength(2, 1, 1024));
    const keyVersion = text(fields.takeWithLength(1, 0, 255));
    need(/^[^:]+:[^]+$/.test(keyId));
    return { keyId, keyVersion, wrapped: fields.takeWithLength(2, 1, 16384) };
  });
  need(new Set(recipients.map((each) => each.keyId)).size === count);
  return recipients;
}

function header(kind, recipients, commitment) {
  const withLength = (size, bytes) => join(number(bytes.length, size), bytes);
  const entries = recipients.map(({ keyId, keyVersion, wrapped }) =>
    join(withLength(2, utf8(keyId)), withLength(1, utf8(keyVersion)), withLength(2, wrapped)));
  const content = join(number(recipients.length, 1), ...entries, commitment);
  return join(utf8("KMSB"), Buffer.from([1, kind]), number(8 + content.length, 2), content);
}

// --- "Encryption context", "Associated data"

function canonical(pairs) {
  const sorted = pairs.map((pair) => pair.map(utf8)).sort((a, b) => Buffer.compare(a[0], b[0]));
  return join(number(pairs.length, 2), ...sorted.flat().flatMap((part) => [number(part.length, 2), part]));
}

function checked(context, aad) {
  const pairs = Object.entries(context ?? {});
  need(aad.length <= 1048576 && pairs.length <= 64, "limit-exceeded");
  for (const [name, value] of pairs) {
    need(name && value && !name.startsWith("kmsbridge"), "invalid-context");
    need(name.isWellFormed() && value.isWellFormed(), "invalid-context");
  }
  need(pairs.flat().every((part) => utf8(part).length <= 65535), "limit-exceeded");
  need(canonical(pairs).length <= 4096, "limit-exceeded");
  return pairs;
}

// --- "Chunked body"

const hmac = (key, ...parts) => crypto.createHmac("sha512", key).update(join(...parts)).digest();
const bound = (c, aad) => join(utf8("kmsbridge/v1\0"), number(c.length, 4), c, aad);

function gcm(key, nonce, plaintext, aad = utf8("")) {
  const cipher = crypto.createCipheriv("aes-256-gcm", key, nonce).setAAD(aad);
  return join(cipher.update(plaintext), cipher.final(), cipher.getAuthTag());
}

function openGcm(key, nonce, sealed, aad = utf8("")) {
  need(sealed.length >= 16, "authentication-error");
  const cipher = crypto.createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 });
  cipher.setAAD(aad).setAuthTag(sealed.subarray(-16));
  try {
    return join(cipher.update(sealed.subarray(0, -16)), cipher.final());
  } catch {
    throw new Refused("authentication-error");
  }
}

function derive(key, salt, context) {
  const info = join(utf8("c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"), salt, context);
  const first = hmac(key, info, number(1, 1));
  const okm = join(first, hmac(key, first, info, number(2, 1)));
  const base = toNumber(okm.subarray(32, 44));
  const nonce = (chunk) => number(base ^ BigInt(chunk), 12);
  return { aes: okm.subarray(0, 32), nonce, commitment: okm.subarray(44, 76) };
}

function seal(key, context, plaintext) {
  const salt = crypto.randomBytes(24);
  const { aes, nonce, commitment } = derive(key, salt, context);
  const chunks = Array.from({ length: Math.floor(plaintext.length / 16384) + 1 }, (_, chunk) =>
    gcm(aes, nonce(chunk), plaintext.subarray(chunk * 16384, (chunk + 1) * 16384)));
  return join(salt, commitment, ...chunks);
}

function open(key, context, body) {
  const { aes, nonce, commitment } = derive(key, body.subarray(0, 24), context);
  need(crypto.timingSafeEqual(commitment, body.subarray(24, 56)), "authentication-error");
  const chunks = [];
  let end = 56;
  do {
    chunks.push(openGcm(aes, nonce(chunks.length), body.subarray(end, end + 16400)));
    end += 16400;
  } while (chunks.at(-1).length === 16384);
  need(end >= body.length, "authentication-error");
  return join(...chunks);
}

// --- "Compact body"

function deriveCompact(dataKey, c) {
  const okm = hmac(dataKey, utf8("kmsbridge/v1/compact\0"), number(c.length, 4), c, number(1, 1));
  return { key: okm.subarray(0, 32), commitment: okm.subarray(32) };
}

function deriveXaes(key, prefix) {
  const aes = (block) => crypto.createCipheriv("aes-256-ecb", key, null).update(block);
  const l = toNumber(aes(Buffer.alloc(16)));
  const s = BigInt.asUintN(128, l << 1n) ^ (l >> 127n ? 0x87n : 0n);
  const half = (count) => aes(number(s ^ toNumber(join(Buffer.from([0, count, 0x58, 0]), prefix)), 16));
  return join(half(1), half(2));
}

// --- "The local driver"

const keyIdOf = (file, name) => `local:${name}@${file.keys[name].id}`;
const wrapping = (pairs) => join(utf8("kmsbridge-local/v1\0"), canonical(pairs));

function material(file, name, version, p) {
  const bytes = Buffer.from(file.keys[name].versions[version].material, "base64");
  if (!file.protection) return bytes;
  try {
    open(p, utf8("kmsbridge-local/v1 check"), Buffer.from(file.protection.check, "base64"));
  } catch {
    throw new Refused("wrong-passphrase");
  }
  return open(p, utf8(["kmsbridge-local/v1 material", name, file.keys[name].id, version].join("\0")), bytes);
}

function wrap(file, name, payload, pairs, p) {
  const keyVersion = file.keys[name].current;
  const wrapped = seal(material(file, name, keyVersion, p), wrapping(pairs), payload);
  return { keyId: keyIdOf(file, name), keyVersion, wrapped };
}

function unwrap(file, name, { keyVersion, wrapped }, pairs, p) {
  need(file.keys[name].state === "enabled", "key-disabled");
  need(Object.hasOwn(file.keys[name].versions, keyVersion), "key-version-not-found");
  const key = material(file, name, keyVersion, p);
  need(wrapped.length >= 72, "authentication-error");
  return open(key, wrapping(pairs), wrapped);
}

// --- "What is checked first", "What the key service is given"

function reserved(kind, aad, environment) {
  const purpose = [["kmsbridge", kind === 2 ? "direct" : "dek"]];
  if (environment !== undefined) purpose.push(["kmsbridge-environment", environment]);
  if (kind !== 2 || !aad.length) return purpose;
  return [...purpose, ["kmsbridge-aad", crypto.createHash("sha256").update(aad).digest("base64url")]];
}

function openWith(dataKey, { compact, commitment: expected, body }, c, aad) {
  need(dataKey.length === 32, "authentication-error");
  const { key, commitment } = deriveCompact(dataKey, c);
  need(!expected || crypto.timingSafeEqual(commitment, expected), "authentication-error");
  if (!compact) return open(dataKey, bound(c, aad), body);
  return openGcm(deriveXaes(key, body.subarray(0, 12)), body.subarray(12, 24), body.subarray(24), aad);
}

function decrypt(message, { key_file: file, decrypt_with: names, context, store, environment, p }, aad) {
  const parts = parse(message);
  const pairs = checked(context, aad);
  if (parts.stored) {
    const dataKey = store?.[parts.commitment.toString("hex")];
    need(dataKey, "unsupported-message");
    return openWith(hex(dataKey), parts, canonical(pairs), aad);
  }
  const find = (name) => parts.recipients.find((each) => each.keyId === keyIdOf(file, name));
  const results = names.filter(find).map((name) => {
    try {
      const unwrapped = unwrap(file, name, find(name), [...pairs, ...reserved(parts.kind, aad, environment)], p);
      return parts.kind === 2 ? unwrapped : openWith(unwrapped, parts, canonical(pairs), aad);
    } catch (error) {
      return error;
    }
  });
  need(results.length, "no-matching-key");
  const plaintext = results.find((result) => result instanceof Buffer);
  if (plaintext) return plaintext;
  throw results.find((error) => error.message !== "authentication-error") ?? results[0];
}

function encrypt(kind, plaintext, { key_file: file, encrypt_to: names, context, p }, aad) {
  const pairs = checked(context, aad);
  const c = canonical(pairs);
  const payload = kind === 2 ? plaintext : crypto.randomBytes(32);
  const recipients = names.map((name) => wrap(file, name, payload, [...pairs, ...reserved(kind, aad)], p));
  if (kind === 2) return header(kind, recipients, utf8(""));
  if (kind === 0) return join(header(kind, recipients, utf8("")), seal(payload, bound(c, aad), plaintext));
  const { key, commitment } = deriveCompact(payload, c);
  const n = crypto.randomBytes(24);
  const sealed = gcm(deriveXaes(key, n.subarray(0, 12)), n.subarray(12), plaintext, aad);
  return join(header(kind, recipients, commitment), n, sealed);
}

function answer(asked) {
  const aad = hex((asked.aad_hex ?? "").repeat(asked.aad_repeat ?? 1));
  asked.p = hex(asked.passphrase_key_hex ?? ""); // from the case, because Node 20 has no Argon2id
  try {
    if (asked.encrypt !== undefined) {
      const message = encrypt(asked.encrypt, hex(asked.plaintext_hex), asked, aad);
      return asked.armor ? { armored: armor(message) } : { message: message.toString("hex") };
    }
    const given = asked.message_base64 ? Buffer.from(asked.message_base64, "base64") : hex(asked.message_hex ?? "");
    const message = asked.armored === undefined ? given : dearmor(asked.armored);
    return { plaintext: decrypt(message, asked, aad).toString("hex") };
  } catch (error) {
    if (error instanceof Refused) return { refused: error.message };
    throw error;
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(answer(JSON.parse(line))));
}
