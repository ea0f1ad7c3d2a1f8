"""What may be set, and what is refused: by an error of the right kind that names the option.

Held here: the defaults of the contract; good and bad values of each option; copies with changes; that every pattern of
an origin that is taken can be used. What the options do is held where it is done.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any, get_type_hints

import pytest
from apps.defaults import IDLE
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import Forbidden

from websock_gevent.handshake import check
from websock_gevent.options import Options, Overrides

DEFAULTS: dict[str, Any] = {
    "timeout": 60.0,
    "ping_interval": 30.0,
    "send_timeout": 30.0,
    "close_timeout": 5.0,
    "max_frame_size": 10_000_000,
    "max_message_size": 10_000_000,
    "max_mailbox": 10_000,
    "validate_utf8": True,
    "compress": False,
    "subprotocols": (),
    "origins": None,
    "early_validate_upgrade": True,
    "idle": IDLE,
    "max_connections": 10_000,
}


def test_the_defaults() -> None:
    options = Options()
    assert {field.name: getattr(options, field.name) for field in fields(options)} == DEFAULTS


def test_what_type_checkers_see_are_the_same_options() -> None:
    assert get_type_hints(Overrides) == get_type_hints(Options)


SECONDS = ("timeout", "ping_interval", "send_timeout", "close_timeout")
COUNTS = ("max_frame_size", "max_message_size", "max_mailbox", "max_connections")
SWITCHES = ("validate_utf8", "early_validate_upgrade")

GOOD = [
    *((name, value) for name in SECONDS for value in (1, 0.001, 1e9)),
    *((name, None) for name in ("timeout", "ping_interval")),
    *((name, value) for name in COUNTS for value in (1, 125, 1 << 62)),
    *((name, value) for name in SWITCHES for value in (True, False)),
    ("compress", False),
    ("idle", "greenlet"),
    ("idle", "parked"),
    ("subprotocols", ()),
    ("subprotocols", ("chat", "v2.chat+json", "!#$%&'*+-.^_`|~09azAZ")),
    ("origins", None),
    ("origins", "*"),
    ("origins", ()),
    (
        "origins",
        ("https://example.com", "http://localhost:5000", "https://*.example.com", "https://*.example.com:8443"),
    ),
    ("origins", ("http://[::1]:8000", "http://127.0.0.1", "http://[2001:db8::1]", "app+x-1.y://host_name")),
    ("origins", ("http://example.com:1", "http://example.com:65535")),
]


@pytest.mark.parametrize(("name", "value"), GOOD, ids=[f"{name}={value!r}" for name, value in GOOD])
def test_a_good_value(name: str, value: Any) -> None:
    assert getattr(Options(**{name: value}), name) == value
    assert getattr(Options().updated({name: value}), name) == value


BAD: list[Any] = [
    *((name, value, TypeError) for name in SECONDS for value in ("60", True, False, [1], b"1", 1j)),
    *((name, value, ValueError) for name in SECONDS for value in (0, 0.0, -1, -0.5, float("inf"), float("nan"))),
    *((name, None, TypeError) for name in ("send_timeout", "close_timeout")),
    *((name, value, TypeError) for name in COUNTS for value in (None, "1", 1.0, True, 1e6)),
    *((name, value, ValueError) for name in COUNTS for value in (0, -1)),
    *((name, value, TypeError) for name in (*SWITCHES, "compress") for value in (None, 0, 1, "yes", "", [True])),
    *(
        ("subprotocols", value, TypeError)
        for value in (None, "chat", b"chat", 7, {"chat"}, [b"chat"], ["chat", None], [1])
    ),
    *(("subprotocols", [value], ValueError) for value in ("", "a b", "a,b", "chat\n", "ché", '"chat"', "a/b", "(x)")),
    *(
        ("origins", value, TypeError)
        for value in ("https://example.com", "", "**", b"*", 7, True, [None], ["https://a.b", 7])
    ),
    *(
        ("origins", [value], ValueError)
        for value in (
            "",
            "*",
            "null",
            "example.com",
            "example.com:443",
            "//example.com",
            "://example.com",
            "https://",
            "https:example.com",
            "https:///",
            "https://example.com/",
            "https://example.com/path",
            "https://example.com?x",
            "https://example.com#x",
            "https://user@example.com",
            "https://exa mple.com",
            "https://example.com\n",
            "https://example.com,https://example.org",
            "https://*",
            "https://*example.com",
            "https://a.*.example.com",
            "https://*.*.example.com",
            "https://*.",
            "https://example.*",
            "*://example.com",
            "https://example.com:",
            "https://example.com:*",
            "https://example.com:port",
            "https://example.com:-1",
            "https://example.com:65536",
            "https://example.com:99999",
            "https://example.com:123456",
            "https://example.com:0",
            "https://example.com:٣",
            "https://example.com:8٣",
            "https://[::1",
            "https://::1",
            "https://[]",
            "https://[:::]",
            "https://[1.2.3]",
            "https://[fe80::zone]",
            "https://[example]",
        )
    ),
    ("origins", ["https://example.com", "oops"], ValueError),
]


@pytest.mark.parametrize(("name", "value", "error"), BAD, ids=[f"{name}={value!a}" for name, value, _ in BAD])
def test_a_bad_value_is_refused_by_name(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^option {name}\b") as caught:
        Options(**{name: value})
    assert caught.type is error
    with pytest.raises(error, match=rf"^option {name}\b"):
        Options().updated({name: value})


@pytest.mark.parametrize(("name", "value"), [("max_mailbox", -7), ("timeout", "soon"), ("validate_utf8", "maybe")])
def test_an_error_shows_the_value(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=repr(value)):
        Options(**{name: value})


def test_the_bad_one_of_a_list_is_shown() -> None:
    with pytest.raises(ValueError, match="'a b'"):
        Options(subprotocols=["chat", "a b"])
    with pytest.raises(ValueError, match="'oops'"):
        Options(origins=["https://example.com", "oops"])


PATTERNS = st.text("abc.*:/[]@019-_%é٣\u2100 ", max_size=12) | st.from_regex(r"\[[0-9a-f:.]{1,8}\]", fullmatch=True)


@settings(derandomize=True, deadline=None, max_examples=500)
@given(PATTERNS, st.sampled_from(["", ":0", ":1", ":80", ":65535", ":65536", ":99999", ":٣"]))
def test_a_pattern_that_is_taken_can_be_used(host: str, port: str) -> None:
    try:
        options = Options(origins=[f"http://{host}{port}"])
    except ValueError as error:
        assert str(error).startswith("option origins")
        return
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "example.com",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_ORIGIN": "http://some.example.org",
    }
    with pytest.raises(Forbidden):
        check(environ, options)


# Copies.


def test_lists_are_taken_as_they_are_now() -> None:
    subprotocols, origins = ["chat"], ["https://example.com"]
    options = Options(subprotocols=subprotocols, origins=origins)
    subprotocols.append("more")
    origins.append("https://example.org")
    assert options.subprotocols == ("chat",)
    assert options.origins == ("https://example.com",)


def test_options_cannot_be_changed() -> None:
    options = Options()
    with pytest.raises(FrozenInstanceError):
        options.timeout = 1.0  # type: ignore[misc]


def test_options_can_be_compared_and_hashed() -> None:
    assert Options(timeout=1, subprotocols=["a"]) == Options(timeout=1.0, subprotocols=("a",))
    assert (
        len(
            {Options(subprotocols=["a"], origins=["http://a.b"]), Options(subprotocols=("a",), origins=("http://a.b",))}
        )
        == 1
    )


def test_updated_changes_a_copy() -> None:
    options = Options(timeout=1.0, subprotocols=["a"])
    changed = options.updated({"timeout": None, "origins": "*"})
    assert changed == Options(timeout=None, subprotocols=["a"], origins="*")
    assert options == Options(timeout=1.0, subprotocols=["a"])
    assert options.updated({}) == options


@pytest.mark.parametrize("name", ["time_out", "Timeout", "", "updated", "__class__"])
def test_an_unknown_option_is_named_with_the_known_ones(name: str) -> None:
    with pytest.raises(TypeError) as caught:
        Options().updated({"timeout": 1.0, name: 1})
    text = str(caught.value)
    assert caught.value.__context__ is None  # one traceback, not two
    assert text.startswith(f"unknown option {name!r}")
    assert all(known in text for known in DEFAULTS)
