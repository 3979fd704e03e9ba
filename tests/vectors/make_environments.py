"""The cases of readers and messages with an environment."""

from __future__ import annotations

from tests.vectors.casebook import (
    APP,
    BOTH,
    DATA_KEY,
    OTHER,
    TEXT,
    THREE,
    UNAUTHENTIC,
    body,
    commitment,
    compact,
    dek_entry,
    direct,
    direct_pairs,
    inline,
    small,
    start,
    wrap,
)
from tests.vectors.writer import entry, head, listing

PAIR = "kmsbridge-environment"
BOUND = {"context": THREE, "aad": b"users/42/phone"}


def marked(name, key_id=APP, version="2", context=THREE):
    """A recipient whose data key was wrapped in the environment `name`."""
    return dek_entry({**context, PAIR: name}, key_id=key_id, version=version)


def marked_direct(name):
    """A direct message of the environment `name`."""
    pairs = {**direct_pairs(**BOUND), PAIR: name}
    return direct(entries=[entry(APP, "2", wrap(TEXT, pairs))], **BOUND)


def environments(c):
    """The same, another and none, of the reader and of the message."""
    forms = {
        "inline": (inline(**BOUND), lambda name: inline(entries=[marked(name)], **BOUND)),
        "compact": (compact(**BOUND), lambda name: compact(entries=[marked(name)], **BOUND)),
        "direct": (direct(**BOUND), marked_direct),
    }
    for form, (unmarked, made_in) in forms.items():
        prefix = f"environment-{form}"
        c.ok(f"{prefix}-same", "the reader's own", made_in("prod"), environment="prod", **BOUND)
        for name, what, message, environment in (
            ("other", "another than the reader's", made_in("prod"), "staging"),
            ("not-of-the-reader", "the reader has none", made_in("prod"), None),
            ("not-of-the-message", "the message has none", unmarked, "prod"),
            ("other-case", "names are compared byte for byte", made_in("prod"), "Prod"),
        ):
            c.add(f"{prefix}-{name}", what, message, UNAUTHENTIC, environment=environment, **BOUND)
    c.ok("environment-not-ascii", "a name in UTF-8", compact(entries=[marked("prüf")], **BOUND), environment="prüf", **BOUND)  # fmt: skip
    mixed = [marked("staging"), marked("prod", OTHER, "1")]
    c.ok(
        "environment-second-recipient",
        "the first was wrapped in another one",
        compact(entries=mixed, **BOUND),
        keys=BOTH,
        environment="prod",
        **BOUND,
    )
    in_body = {**THREE, PAIR: "prod"}
    c.add(
        "environment-in-the-chunked-body",
        "the body is bound to the caller's pairs alone",
        head(0, listing(marked("prod"))) + body(TEXT, in_body, BOUND["aad"]),
        UNAUTHENTIC,
        environment="prod",
        **BOUND,
    )
    c.add(
        "environment-in-the-compact-body",
        "and so is the commitment",
        start(THREE, entries=[marked("prod")], t=commitment(in_body, DATA_KEY))
        + small(TEXT, in_body, BOUND["aad"]),
        UNAUTHENTIC,
        environment="prod",
        **BOUND,
    )


GROUPS = (environments,)
