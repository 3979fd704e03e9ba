"""What is shown of a value: whole characters, and at most half of them."""

import uuid

import pytest

from kmsbridge.partial import DOMAIN, FIRST_LETTER, LAST4, clusters, first, last


@pytest.mark.parametrize(
    ("partial", "value", "shown"),
    (
        (LAST4, "4111 1111 1111 1234", "1234"),
        (LAST4, "+44 20 7946 0018", "0018"),
        (LAST4, "12-34-56", "456"),
        (LAST4, "12 34 5", "45"),
        (LAST4, "12345678", "5678"),
        (LAST4, "1234567", "567"),
        (LAST4, "12", "2"),
        (LAST4, "1", ""),
        (LAST4, "+1", ""),
        (LAST4, " - ", ""),
        (LAST4, "", ""),
        (LAST4, "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668", "\u0665\u0666\u0667\u0668"),
        (FIRST_LETTER, "Anna", "A"),
        (FIRST_LETTER, "'t Hooft", "t"),
        (FIRST_LETTER, "Jo", "J"),
        (FIRST_LETTER, "J", ""),
        (FIRST_LETTER, "\u00c9mile", "\u00c9"),
        (FIRST_LETTER, "E\u0301mile", "\u00c9"),
        (FIRST_LETTER, "E\u0301", ""),
        (FIRST_LETTER, "\u0e01\u0e34\u0e15\u0e15\u0e34", "\u0e01\u0e34"),
        (FIRST_LETTER, "\U0001f469\U0001f3fd\u200d\U0001f680 Mae", "\U0001f469\U0001f3fd\u200d\U0001f680"),
        (first(3), "Anna", "An"),
        (last(2), "a\u0308b\u0308c\u0308d\u0308", "c\u0308d\u0308"),
        (DOMAIN, "anna@example.com", "example.com"),
        (DOMAIN, " anna@example.com ", "example.com"),
        (DOMAIN, '"a@b"@example.com', "example.com"),
        (DOMAIN, "@example.com", ""),
        (DOMAIN, "anna", ""),
        (DOMAIN, "anna@", ""),
        (DOMAIN, "", ""),
    ),
)
def test_what_is_shown(partial, value, shown):
    assert partial.of(value) == shown


@pytest.mark.parametrize("count", (1, 2, 4, 50))
@pytest.mark.parametrize("of", (first, last))
def test_never_more_than_half(of, count):
    for length in range(30):
        value = "".join(chr(97 + n % 26) for n in range(length))
        assert len(of(count).of(value)) == min(count, length // 2)


@pytest.mark.parametrize("count", (0, -1))
@pytest.mark.parametrize("of", (first, last))
def test_a_partial_shows_something(of, count):
    with pytest.raises(ValueError, match="at least one"):
        of(count)


@pytest.mark.parametrize(
    ("text", "count"),
    (
        ("", 0),
        ("abc", 3),
        ("e\u0301e\u0301", 2),
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", 2),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467x", 2),
        ("\u2764\ufe0fx", 2),
        ("\u1112\u1161\u11ab", 1),
        ("\u1112\u119e\u11ab", 1),
        ("\U0001f3f4\U000e0067\U000e0062\U000e007f!", 2),
        ("\u0301", 1),
    ),
)
def test_characters_are_counted_as_people_count_them(text, count):
    assert len(clusters(text)) == count


def test_a_part_is_bound_to_its_row_and_is_not_the_value():
    row = uuid.UUID(int=7)
    assert LAST4.aad("users.phone", row) == ("users.phone#last4", row)
    assert LAST4.aad("users.phone", "acme", 7) == ("users.phone#last4", "acme", 7)
    assert len({partial.name for partial in (LAST4, DOMAIN, FIRST_LETTER, last(3), first(2))}) == 5


def test_who_may_show_parts_cannot_read_values(service):
    """Two profiles, and two messages."""
    from kmsbridge import EnvelopeCipher, NoMatchingKey

    with EnvelopeCipher.from_uri("fake:app") as values, EnvelopeCipher.from_uri("fake:other") as partials:
        value = values.encrypt_text("+44 20 7946 0018", aad=("users.phone", 7))
        part = partials.encrypt_text(LAST4.of("+44 20 7946 0018"), aad=LAST4.aad("users.phone", 7))
        assert partials.decrypt_text(part, aad=LAST4.aad("users.phone", 7)) == "0018"
        with pytest.raises(NoMatchingKey):
            partials.decrypt_text(value, aad=("users.phone", 7))
