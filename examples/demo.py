"""Shows on real files what kmsbridge does. Run it by `make demo`.

The demo checks every step, and fails if one does not do what it says. It works in a new folder under DEMO_DIR, TMPDIR
or /tmp, needs about 3 GiB there, and removes the folder at its end.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kmsbridge import AuthenticationError, EnvelopeCipher

PROJECT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
GIB = 2**30
LETTER = """\
Dear Ada, the door code is 4711.
Дорогая Ада, код от двери 4711.
親愛なるエイダ、ドアの暗証番号は4711です。
عزيزتي آدا، رمز الباب هو ٤٧١١.
प्रिय एडा, दरवाज़े का कोड ४७११ है।
"""
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def main() -> None:
    """Run every step in a new folder."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kmsbridge-demo-", dir=os.environ.get("DEMO_DIR")) as name:
        os.chdir(name)
        make_keys()
        protect_text()
        protect_files_of_this_project()
        protect_a_large_file()
        protect_a_table_column()
        rotate_and_rewrap()
        refuse_what_is_wrong()
        check_the_audit_trail()
    say(f"Every step did what it says, in {time.monotonic() - started:.0f} s. Next: README.md and docs/.")


def make_keys() -> None:
    """Make a configuration and a key file."""
    title("1. Make a configuration and a key")
    run("kmsbridge init")
    with open("kmsbridge.toml", "a", encoding="utf-8") as file:
        file.write('audit = { file = "audit.jsonl" }\n')
    run("cat kmsbridge.toml")
    say("The code never names a key. Another key service is another `uri` in this file.")


def protect_text() -> None:
    """Encrypt a small file, look at the message, and decrypt it."""
    title("2. Protect a letter, look at the message, and read it again")
    Path("letter.txt").write_text(LETTER, encoding="utf-8")
    run("cat letter.txt")
    run("kmsbridge encrypt letter.txt -o letter.kmsb --context tenant=acme --aad letters/1")
    check("4711" not in Path("letter.kmsb").read_bytes().decode("latin-1"), "the code is not in the message")
    run("kmsbridge inspect letter.kmsb")
    run("kmsbridge decrypt letter.kmsb --context tenant=acme --aad letters/1")
    back = output("kmsbridge decrypt letter.kmsb --context tenant=acme --aad letters/1")
    check(back == LETTER.encode(), "the letter came back to the byte")


def protect_files_of_this_project() -> None:
    """Encrypt and decrypt the files of this project."""
    title("3. Protect real files: those of this project")
    with EnvelopeCipher.from_config() as cipher:
        files = sources()
        for number, path in enumerate(files):
            cipher.encrypt_file(path, f"{number}.kmsb", aad=path.name.encode())
        same = all(
            decrypted(cipher, Path(f"{number}.kmsb"), path.name) == path.read_bytes()
            for number, path in enumerate(files)
        )
    total = sum(path.stat().st_size for path in files)
    check(same, f"{len(files)} files, {total / 1e6:.1f} MB, came back to the byte; one data key served all")


def protect_a_large_file() -> None:
    """Encrypt and decrypt a file of 1 GiB, and read a few bytes from its middle."""
    title("4. Protect a file of 1 GiB")
    make_large_file(Path("large.bin"))
    before = digest(Path("large.bin"))
    timed("kmsbridge encrypt large.bin -o large.kmsb")
    with EnvelopeCipher.from_config() as cipher, cipher.open("large.kmsb") as reader:
        reader.seek(GIB // 2)
        middle = reader.read(16)
    with open("large.bin", "rb") as file:
        file.seek(GIB // 2)
        check(middle == file.read(16), "16 bytes from its middle were read without decrypting the rest")
    os.unlink("large.bin")
    timed("kmsbridge decrypt large.kmsb -o large.bin")
    check(digest(Path("large.bin")) == before, "the file came back to the byte")
    os.unlink("large.bin")
    os.unlink("large.kmsb")


def protect_a_table_column() -> None:
    """Encrypt a text into a text, for columns, JSON and environment variables."""
    title("5. Protect a phone number in a text column")
    say('    cipher.encrypt_text("+1 555 0100", context={"tenant": "acme"}, aad=b"users/42/phone")')
    with EnvelopeCipher.from_config() as cipher:
        cell = cipher.encrypt_text("+1 555 0100", context={"tenant": "acme"}, aad=b"users/42/phone")
        say(f"    {cell[:76]}...")
        phone = cipher.decrypt_text(cell, context={"tenant": "acme"}, aad=b"users/42/phone")
        check(phone == "+1 555 0100", "it came back")
        try:
            cipher.decrypt_text(cell, context={"tenant": "acme"}, aad=b"users/43/phone")
        except AuthenticationError as error:
            check(True, f"moved to the row of user 43 it is refused: {error.message}")
        else:
            check(False, "moved to another row it is refused")


def rotate_and_rewrap() -> None:
    """Make a new version of the key, and move an old message to it."""
    title("6. Rotate the key, and rewrap the letter without touching its text")
    body = Path("letter.kmsb").read_bytes()[-100:]
    run("kmsbridge rotate dev")
    run("kmsbridge rewrap letter.kmsb --context tenant=acme")
    run("kmsbridge inspect letter.kmsb")
    check(Path("letter.kmsb").read_bytes()[-100:] == body, "the body is what it was: only the header is new")
    back = output("kmsbridge decrypt letter.kmsb --context tenant=acme --aad letters/1")
    check(back == LETTER.encode(), "the letter still opens")
    with EnvelopeCipher.from_config() as cipher:
        readme = sources().index(PROJECT / "README.md")
        again = decrypted(cipher, Path(f"{readme}.kmsb"), "README.md")
    check(again == (PROJECT / "README.md").read_bytes(), "and so do messages that were not rewrapped")


def refuse_what_is_wrong() -> None:
    """Show that a changed message, a wrong context and a message cut short are refused."""
    title("7. Refuse what was changed, moved or cut short")
    message = Path("letter.kmsb").read_bytes()
    changed = bytearray(message)
    changed[-20] ^= 1
    Path("changed.kmsb").write_bytes(changed)
    Path("short.kmsb").write_bytes(message[:-30])
    run("kmsbridge decrypt changed.kmsb -o x --context tenant=acme --aad letters/1", fails=True)
    run("kmsbridge decrypt letter.kmsb -o x --context tenant=other --aad letters/1", fails=True)
    run("kmsbridge decrypt short.kmsb -o x --context tenant=acme --aad letters/1", fails=True)
    check(not Path("x").exists(), "nothing was written")


def check_the_audit_trail() -> None:
    """Show the record of every use of the key, and verify it."""
    title("8. See who used the key, and that no line is missing")
    run("head -c 700 audit.jsonl")
    print()
    run("kmsbridge audit verify audit.jsonl")


def make_large_file(path: Path) -> None:
    """Write 1 GiB of random bytes, which no file system can compress."""
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(GIB // 64))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sources() -> list[Path]:
    """Return the text files of this project."""
    found = (path for path in sorted(PROJECT.rglob("*")) if path.suffix in {".py", ".md", ".toml", ".txt"})
    return [path for path in found if path.is_file() and not is_hidden(path.relative_to(PROJECT))]


def is_hidden(path: Path) -> bool:
    """Return whether a tool made the file: a part of its path is hidden or a cache."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def decrypted(cipher: EnvelopeCipher, path: Path, name: str) -> bytes:
    """Return the plaintext of a message file."""
    return cipher.decrypt(path.read_bytes(), aad=name.encode())


def title(text: str) -> None:
    """Print the title of a step."""
    print(f"\n{BOLD}{text}{PLAIN}", flush=True)


def say(text: str) -> None:
    """Print a text for the reader."""
    print(text, flush=True)


def check(holds: bool, what: str) -> None:
    """Print that `what` is true; end the demo if it is not."""
    if not holds:
        sys.exit(f"FAILED: {what}")
    say(f"  ok: {what}")


def run(command: str, *, fails: bool = False) -> None:
    """Show a command as a reader would type it, run it, and show its output."""
    print(f"{DIM}  $ {command}{PLAIN}", flush=True)
    done = subprocess.run(arguments(command), check=False, capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        print(f"    {line}")
    if fails:
        check(done.returncode != 0, f"refused, exit code {done.returncode}")
    elif done.returncode != 0:
        sys.exit(f"FAILED: {command}: exit code {done.returncode}")


def timed(command: str) -> None:
    """Run a slow command with its progress bar, and print its speed."""
    print(f"{DIM}  $ {command}{PLAIN}", flush=True)
    began = time.monotonic()
    subprocess.run(arguments(command), check=True)
    took = time.monotonic() - began
    check(True, f"{took:.1f} s, {GIB / took / 1e6:.0f} MB/s")


def output(command: str) -> bytes:
    """Return what a command prints."""
    return subprocess.run(arguments(command), check=True, capture_output=True).stdout


def arguments(command: str) -> list[str]:
    """Return the words of a command; kmsbridge is the one installed beside this Python."""
    first, *rest = shlex.split(command)
    return [str(BIN / first) if first == "kmsbridge" else first, *rest]


if __name__ == "__main__":
    main()
