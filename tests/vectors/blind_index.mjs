// Blind indexes, written from docs/reference/blind-index.md and nothing else, for Node 20 and later.
//
// `node blind_index.mjs` answers each line of JSON, a case of blind-index.json, with {"form": text, "index": hexadecimal}
// or {"refused": true}. It has the normalizers exact and digits; for the others it takes the form from the case.

import crypto from "node:crypto";
import readline from "node:readline";

const utf8 = (text) => Buffer.from(text, "utf8");

function field(text) {
  const bytes = utf8(text);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function digits(value) {
  let form = "";
  for (const character of value.normalize("NFKC")) {
    if (/^\p{Nd}$/u.test(character)) {
      // Every script has its ten digits in a row, the first at the last multiple that begins a row of Nd.
      let code = character.codePointAt(0), first = code;
      while (code - first < 9 && /^\p{Nd}$/u.test(String.fromCodePoint(first - 1))) first -= 1;
      form += (code - first) % 10;
    } else if (!"\t -./()\u2010\u2011\u2012\u2013\u2014\u2015\u2212".includes(character)) return null;
  }
  return form || null;
}

function answer(given) {
  const form = given.normalizer === "digits" ? digits(given.value)
    : given.normalizer === "exact" ? (given.value.isWellFormed() ? given.value : null)
    : given.form ?? null;
  if (form === null) return { refused: true };
  const bound = Buffer.concat([
    utf8("kmsbridge/v1/index\0"), field(given.label), field(given.tenant), field(given.normalizer), utf8(form),
  ]);
  const hash = crypto.createHmac("sha256", Buffer.from(given.key_hex, "hex")).update(bound).digest();
  const index = hash.subarray(0, Math.ceil(given.bits / 8));
  const spare = 8 * index.length - given.bits;
  index[index.length - 1] &= 0xff << spare;
  return { form, index: index.toString("hex") };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(answer(JSON.parse(line))));
}
