"""`index new` makes keys that the configuration takes, and changes nothing."""

import json
import tomllib

from kmsbridge import SecretValue
from kmsbridge.blindindex import BlindIndex, index_keys


def configured(home, text):
    path = home.path / "indexed.toml"
    path.write_text((home.path / "kmsbridge.toml").read_text() + text)
    return path


def test_the_table_works_as_printed(home):
    before = home.files()
    done = home.run("index", "new", "phone")
    assert done.code == 0, done.err
    assert home.files() == before
    assert "back it up" in done.err
    (key,) = index_keys("phone", configured(home, done.text))
    assert key.use(len) == 32


def test_each_key_is_another(home):
    keys = [index_keys("phone", configured(home, home.ok("index", "new", "phone").decode())) for _ in "ab"]
    assert keys[0] != keys[1]


def test_a_new_key_comes_behind_those_that_there_are(home):
    """What is stored stays what it was until the order is changed."""
    path = configured(home, home.ok("index", "new", "phone").decode())
    before = tomllib.loads(path.read_text())["indexes"]["phone"]
    done = home.run("index", "new", "phone", "--config", str(path))
    assert "put the new key first" in done.err
    after = tomllib.loads(done.text)["indexes"]["phone"]
    assert after["profile"] == before["profile"]
    assert after["keys"][:-1] == before["keys"]
    old = BlindIndex("x", keys=index_keys("phone", path))
    both = BlindIndex("x", keys=index_keys("phone", configured(home, done.text)))
    assert both.of("v", tenant="") == old.of("v", tenant="") == both.queries("v", tenant="")[0]
    assert len(both.queries("v", tenant="")) == 2


def test_a_key_that_the_index_s_profile_could_not_decrypt_is_not_made(home):
    table = home.ok("index", "new", "phone").decode()
    path = configured(home, f'{table}\n[profiles.other]\nencrypt_to = ["dev"]\n')
    done = home.run("index", "new", "phone", "--config", str(path), "--profile", "other")
    assert done.code == 3
    assert "--profile dev" in done.err
    assert not done.out


def test_no_more_keys_are_made_than_an_index_can_have(home):
    table = tomllib.loads(home.ok("index", "new", "phone").decode())["indexes"]["phone"]
    keys = json.dumps(table["keys"] * 8)
    path = configured(home, f'[indexes.phone]\nprofile = "dev"\nkeys = {keys}\n')
    done = home.run("index", "new", "phone", "--config", str(path))
    assert done.code == 3
    assert "has 8 keys" in done.err


def test_a_configuration_of_one_key_has_no_index(home):
    done = home.run("index", "new", "phone", env={"KMSBRIDGE_KEY": "local:dev-keys.json#app"})
    assert done.code == 3
    assert "KMSBRIDGE_KEY" in done.err


def test_json_has_the_message_by_itself(home):
    answer = json.loads(home.ok("index", "new", "phone", "--json", "-q"))
    assert answer["keys"] == [answer["message"]]
    assert (answer["name"], answer["profile"]) == ("phone", "dev")


def test_the_key_itself_is_nowhere(home, monkeypatch):
    from kmsbridge.blindindex import keys

    made = []
    random = keys.os.urandom

    class Watching:
        @staticmethod
        def urandom(length):
            made.append(random(length))
            return made[-1]

    monkeypatch.setattr(keys, "os", Watching)
    done = home.run("index", "new", "phone")
    (key,) = made
    assert index_keys("phone", configured(home, done.text)) == [SecretValue(key)]
    for data in (done.out, done.err.encode(), *home.files().values()):
        assert key not in data
        assert key.hex().encode() not in data


def test_what_cannot_be_named_so_is_refused(home, one_line):
    for name in ("", "a b", 'a"]', "é", "a" * 129, "a.b"):
        done = home.run("index", "new", name)
        assert done.code == 2
        assert "use letters" in one_line(done.err)
        assert not done.out


def test_a_profile_that_does_not_encrypt_makes_none(home, one_line):
    path = configured(home, '[profiles.reader]\ndecrypt_with = ["dev"]\n')
    done = home.run("index", "new", "phone", "--config", str(path), "--profile", "reader")
    assert done.code == 6
    assert "encrypt_to" in one_line(done.err)
