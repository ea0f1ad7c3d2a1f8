"""Which requests become a WebSocket, and what the others are answered (RFC 6455 §4.2, §10.2).

Held here, on plain environ dictionaries: each check with its status and a text that names the header; who may connect
from which page; the key's answer; the choice of a subprotocol.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException

from websock_gevent.errors import UpgradeRequired
from websock_gevent.handshake import accept_headers, check, is_upgrade
from websock_gevent.options import Options

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of §1.3: "the sample nonce"
GOOD = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "example.com",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_KEY": KEY,
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


def request(**changes: str | None) -> dict[str, Any]:
    """Return the environ of a good request with some keys changed, or left out where the value is ``None``."""
    return {key: value for key, value in {**GOOD, **changes}.items() if value is not None}


def table(names: str, rows: list[Any]) -> pytest.MarkDecorator:
    """Parametrize with rows of a name and the values."""
    return pytest.mark.parametrize(names.split(", "), [row[1:] for row in rows], ids=[row[0] for row in rows])


# Requests that are good however they are written.


@table(
    "changes",
    [
        ("nothing special", {}),
        ("tokens in capitals", {"HTTP_CONNECTION": "UPGRADE", "HTTP_UPGRADE": "WebSocket"}),
        ("tokens in small letters", {"HTTP_CONNECTION": "upgrade", "HTTP_UPGRADE": "websocket"}),
        ("connection with keep-alive", {"HTTP_CONNECTION": "keep-alive, Upgrade"}),
        ("connection with keep-alive behind", {"HTTP_CONNECTION": "Upgrade,keep-alive"}),
        ("connection with odd spaces", {"HTTP_CONNECTION": " keep-alive ,\tUpgrade , "}),
        ("several protocols to upgrade to", {"HTTP_UPGRADE": "h2c, websocket"}),
        ("a body of 0 bytes", {"CONTENT_LENGTH": "0"}),
        ("an empty content length, as WSGI servers give it", {"CONTENT_LENGTH": ""}),
        ("a port", {"HTTP_HOST": "example.com:8000"}),
        ("an IPv6 host", {"HTTP_HOST": "[::1]:8000"}),
        ("a key of zeros", {"HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(bytes(16)).decode()}),
        ("a key with all the letters", {"HTTP_SEC_WEBSOCKET_KEY": "+/+/+/+/+/+/+/+/+/+/+w=="}),
    ],
)
def test_a_good_request(changes: dict[str, str | None]) -> None:
    check(request(**changes), Options())


# Refusals: what is changed, the status, and what the text names.

REFUSALS: list[Any] = [
    *(
        (f"method {method}", {"REQUEST_METHOD": method}, 400, f"GET request, not {method}")
        for method in ("POST", "HEAD", "CONNECT", "OPTIONS", "get")
    ),
    *(
        (f"protocol {protocol}", {"SERVER_PROTOCOL": protocol}, 400, f"HTTP/1.1, not {protocol}")
        for protocol in ("HTTP/1.0", "HTTP/0.9", "HTTP/2", "HTTP/2.0", "HTTP/1.11")
    ),
    ("no host", {"HTTP_HOST": None}, 400, "Host header"),
    ("no connection", {"HTTP_CONNECTION": None}, 400, "Connection header must contain 'upgrade', got None"),
    ("empty connection", {"HTTP_CONNECTION": ""}, 400, "Connection header must contain 'upgrade', got ''"),
    ("other connection", {"HTTP_CONNECTION": "close"}, 400, "Connection header must contain 'upgrade', got 'close'"),
    ("connection that only contains the word", {"HTTP_CONNECTION": "upgrades, no-upgrade"}, 400, "Connection header"),
    ("connection of two words", {"HTTP_CONNECTION": "keep-alive Upgrade"}, 400, "Connection header"),
    ("no upgrade", {"HTTP_UPGRADE": None}, 400, "Upgrade header must contain 'websocket', got None"),
    ("empty upgrade", {"HTTP_UPGRADE": ""}, 400, "Upgrade header must contain 'websocket', got ''"),
    ("other upgrade", {"HTTP_UPGRADE": "h2c"}, 400, "Upgrade header must contain 'websocket', got 'h2c'"),
    ("upgrade that only contains the word", {"HTTP_UPGRADE": "websockets, xwebsocket"}, 400, "Upgrade header"),
    ("upgrade with a version", {"HTTP_UPGRADE": "websocket/13"}, 400, "Upgrade header"),
    ("no key", {"HTTP_SEC_WEBSOCKET_KEY": None}, 400, "Sec-WebSocket-Key"),
    ("empty key", {"HTTP_SEC_WEBSOCKET_KEY": ""}, 400, "Sec-WebSocket-Key"),
    ("key of 15 bytes", {"HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(bytes(15)).decode()}, 400, "Sec-WebSocket-Key"),
    ("key of 17 bytes", {"HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(bytes(17)).decode()}, 400, "Sec-WebSocket-Key"),
    ("key of 18 bytes", {"HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(bytes(18)).decode()}, 400, "Sec-WebSocket-Key"),
    ("key of 24 bytes", {"HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(bytes(24)).decode()}, 400, "Sec-WebSocket-Key"),
    ("key in hexadecimal", {"HTTP_SEC_WEBSOCKET_KEY": bytes(range(16)).hex()}, 400, "Sec-WebSocket-Key"),
    ("key without padding", {"HTTP_SEC_WEBSOCKET_KEY": KEY[:-2]}, 400, "Sec-WebSocket-Key"),
    ("key with half its padding", {"HTTP_SEC_WEBSOCKET_KEY": KEY[:-1]}, 400, "Sec-WebSocket-Key"),
    ("key with more behind", {"HTTP_SEC_WEBSOCKET_KEY": KEY + "AAAA"}, 400, "Sec-WebSocket-Key"),
    ("key with a space", {"HTTP_SEC_WEBSOCKET_KEY": KEY[:4] + " " + KEY[4:]}, 400, "Sec-WebSocket-Key"),
    ("key with a space behind", {"HTTP_SEC_WEBSOCKET_KEY": KEY + " "}, 400, "Sec-WebSocket-Key"),
    ("key of the URL alphabet", {"HTTP_SEC_WEBSOCKET_KEY": "-_" * 11 + "=="}, 400, "Sec-WebSocket-Key"),
    ("key that is not ASCII", {"HTTP_SEC_WEBSOCKET_KEY": "é" * 22 + "=="}, 400, "Sec-WebSocket-Key"),
    ("two keys", {"HTTP_SEC_WEBSOCKET_KEY": f"{KEY},{KEY}"}, 400, "Sec-WebSocket-Key"),
    ("two keys with a space", {"HTTP_SEC_WEBSOCKET_KEY": f"{KEY}, {KEY}"}, 400, "Sec-WebSocket-Key"),
    ("two keys of 16 bytes together", {"HTTP_SEC_WEBSOCKET_KEY": f"{KEY[:10]},{KEY[10:]}"}, 400, "Sec-WebSocket-Key"),
    *(
        (f"version {version}", {"HTTP_SEC_WEBSOCKET_VERSION": version}, 426, "Sec-WebSocket-Version")
        for version in (None, "", "8", "12", "14", "013", "13.0", "+13", "13, 8", "13,13", "0x13", "thirteen", "１３")
    ),
    *(
        (f"content length {length}", {"CONTENT_LENGTH": length}, 400, "Content-Length")
        for length in ("1", "100", "00", "-1", "x")
    ),
    ("chunked body", {"HTTP_TRANSFER_ENCODING": "chunked"}, 400, "Transfer-Encoding"),
    ("a transfer encoding", {"HTTP_TRANSFER_ENCODING": "identity"}, 400, "Transfer-Encoding"),
    ("other origin", {"HTTP_ORIGIN": "https://evil.example"}, 403, "Origin 'https://evil.example'"),
]  # fmt: skip


@table("changes, status, named", REFUSALS)
def test_a_refusal_has_its_status_and_names_the_header(changes: dict[str, str | None], status: int, named: str) -> None:
    environ = request(**changes)
    with pytest.raises(HTTPException) as caught:
        check(environ, Options())
    assert type(caught.value) is {400: BadRequest, 403: Forbidden, 426: UpgradeRequired}[status]
    assert named in (caught.value.description or "")
    assert caught.value.get_response(environ).status_code == status


@table("changes", [row[:2] for row in REFUSALS if row[2] == 426])
def test_another_version_is_told_which_one_we_speak(changes: dict[str, str | None]) -> None:
    environ = request(**changes)
    with pytest.raises(UpgradeRequired) as caught:
        check(environ, Options())
    headers = caught.value.get_response(environ).headers
    assert headers.getlist("Sec-WebSocket-Version") == ["13"]
    assert (headers["Upgrade"], headers["Connection"]) == ("websocket", "Upgrade")


def test_a_plain_request_is_told_to_upgrade() -> None:
    response = UpgradeRequired().get_response({})
    assert response.status_code == 426
    assert (response.headers["Upgrade"], response.headers["Connection"]) == ("websocket", "Upgrade")
    assert "Sec-WebSocket-Version" not in response.headers


def test_what_the_client_sent_is_not_markup_in_the_answer() -> None:
    environ = request(HTTP_ORIGIN="http://<script>", HTTP_UPGRADE="<script>")
    for sent in (environ, {**environ, "HTTP_UPGRADE": "websocket"}):
        with pytest.raises(HTTPException) as caught:
            check(sent, Options())
        body = caught.value.get_response(sent).get_data(as_text=True)
        assert "&lt;script&gt;" in body and "<script>" not in body


@table(
    "connection, upgrade, expected",
    [
        ("both tokens", "Upgrade", "websocket", True),
        ("in other letters", "UPGRADE", "WebSocket", True),
        ("among others", "keep-alive, Upgrade", "h2c, websocket", True),
        ("no upgrade", "Upgrade", None, False),
        ("empty upgrade", "Upgrade", "", False),
        ("another upgrade", "Upgrade", "h2c", False),
        ("an upgrade that only contains the word", "Upgrade", "websockets", False),
        ("no connection", None, "websocket", False),
        ("another connection", "keep-alive", "websocket", False),
        ("nothing", None, None, False),
    ],
)
def test_which_requests_ask_for_a_websocket(connection: str | None, upgrade: str | None, expected: bool) -> None:
    assert is_upgrade(request(HTTP_CONNECTION=connection, HTTP_UPGRADE=upgrade)) is expected


def test_a_request_may_ask_for_a_websocket_badly() -> None:
    assert is_upgrade({"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"})


# Origins.


def is_allowed(origin: str | None, host: str = "example.com", **options: Any) -> bool:
    try:
        check(request(HTTP_ORIGIN=origin, HTTP_HOST=host), Options(**options))
    except Forbidden as refusal:
        assert "Origin" in (refusal.description or "")
        return False
    return True


OWN = [
    ("not a browser", None, "example.com", True),
    ("http", "http://example.com", "example.com", True),
    ("https, behind a proxy that ends TLS", "https://example.com", "example.com", True),
    ("another port of ours", "http://example.com:8000", "example.com:8000", True),
    ("another port of ours, https", "https://example.com:8443", "example.com:8443", True),
    ("default port in the host", "http://example.com", "example.com:80", True),
    ("default port of https in the host", "https://example.com", "example.com:443", True),
    ("default port in the origin", "http://example.com:80", "example.com", True),
    ("default port of https in the origin", "https://example.com:443", "example.com", True),
    ("host in capitals", "http://example.com", "EXAMPLE.com", True),
    ("origin in capitals", "HTTPS://Example.COM", "example.com", True),
    ("IPv4", "http://127.0.0.1:5000", "127.0.0.1:5000", True),
    ("IPv6", "http://[::1]:5000", "[::1]:5000", True),
    ("IPv6 without port", "https://[2001:db8::1]", "[2001:db8::1]", True),
    ("IPv6 in capitals", "https://[2001:DB8::1]", "[2001:db8::1]", True),
    ("another host", "http://example.org", "example.com", False),
    ("subdomain", "http://www.example.com", "example.com", False),
    ("parent domain", "http://example.com", "www.example.com", False),
    ("host with ours in front", "http://example.com.evil.org", "example.com", False),
    ("host with ours behind", "http://evilexample.com", "example.com", False),
    ("page on another port", "http://example.com:8000", "example.com", False),
    ("page on the default port", "http://example.com", "example.com:8000", False),
    ("https page, port of http", "https://example.com", "example.com:80", False),
    ("http page, port of https", "http://example.com", "example.com:443", False),
    ("https page on port 80", "https://example.com:80", "example.com", False),
    ("another IPv6 host", "http://[::2]", "[::1]", False),
    ("sandboxed page or file", "null", "example.com", False),
    ("host that is called null", "null", "null", False),
    ("empty", "", "example.com", False),
    ("no scheme", "example.com", "example.com", False),
    ("no scheme, with slashes", "//example.com", "example.com", False),
    ("scheme alone", "http://", "example.com", False),
    ("no slashes", "http:example.com", "example.com", False),
    ("userinfo", "http://user@example.com", "example.com", False),
    ("userinfo that is our host", "http://example.com@evil.org", "example.com", False),
    ("empty userinfo", "http://@example.com", "example.com", False),
    ("userinfo with a password", "http://example.com:80@evil.org", "example.com", False),
    ("backslash", "http://evil.org\\@example.com", "example.com", False),
    ("slash behind", "http://example.com/", "example.com", False),
    ("path", "http://example.com/chat", "example.com", False),
    ("query", "http://example.com?x", "example.com", False),
    ("fragment", "http://example.com#x", "example.com", False),
    ("our host in the path", "http://evil.org/example.com", "example.com", False),
    ("our host in the fragment", "http://evil.org#example.com", "example.com", False),
    ("empty query", "http://example.com?", "example.com", False),
    ("empty fragment", "http://example.com#", "example.com", False),
    ("empty port", "http://example.com:", "example.com", False),
    ("port 0", "http://example.com:0", "example.com", False),
    ("tab inside", "http://exam\tple.com", "example.com", False),
    ("space in front", " http://example.com", "example.com", False),
    ("something behind IPv6", "http://[::1]evil.org", "[::1]", False),
    ("something in front of IPv6", "http://evil.org[::1]", "[::1]", False),
    ("fragment in the host", "http://example.com", "example.com#", False),
    ("space in both", "http://exam ple.com", "exam ple.com", False),
    ("question mark in both", "http://example.com?", "example.com?", False),
    ("backslash in both", "http://example.com\\evil.org", "example.com\\evil.org", False),
    ("comma in both", "http://example.com,evil.org", "example.com,evil.org", False),
    ("bracket in both", "http://example[.com", "example[.com", False),
    ("port that is none", "http://example.com:port", "example.com", False),
    ("port above 65535", "http://example.com:65616", "example.com", False),
    ("port of 5000 digits", "http://example.com:" + 5000 * "9", "example.com", False),
    ("negative port", "http://example.com:-80", "example.com", False),
    ("open bracket", "http://[::1", "[::1", False),
    ("two origins", "http://example.com, http://example.com", "example.com", False),
    ("two origins with a space", "http://example.com http://evil.org", "example.com", False),
    ("port that is none in the host", "http://example.com", "example.com:port", False),
    ("empty host", "http://example.com", "", False),
    ("userinfo in the host", "http://example.com", "user@example.com", False),
    ("path in the host", "http://example.com", "example.com/", False),
]


@table("origin, host, allowed", OWN)
def test_a_page_of_our_own_host_may_connect(origin: str | None, host: str, allowed: bool) -> None:
    assert is_allowed(origin, host) is allowed


LISTED = [
    ("as listed", "https://example.com", ["https://example.com"], True),
    ("second of the list", "https://example.org", ["https://example.com", "https://example.org"], True),
    ("listed in capitals", "https://example.com", ["HTTPS://Example.com"], True),
    ("sent in capitals", "HTTPS://EXAMPLE.com", ["https://example.com"], True),
    ("default port sent", "https://example.com:443", ["https://example.com"], True),
    ("default port listed", "http://example.com", ["http://example.com:80"], True),
    ("port", "http://example.com:8000", ["http://example.com:8000"], True),
    ("IPv6", "http://[::1]:8000", ["http://[::1]:8000"], True),
    ("scheme of an app", "app://example.com", ["app://example.com"], True),
    ("not a browser", None, ["https://example.org"], True),
    ("not a browser, nothing listed", None, [], True),
    ("our own host is not in the list", "https://example.com", ["https://example.org"], False),
    ("our own host, nothing listed", "https://example.com", [], False),
    ("other scheme", "http://example.com", ["https://example.com"], False),
    ("other scheme on its port", "http://example.com:443", ["https://example.com"], False),
    ("other port", "https://example.com:8443", ["https://example.com"], False),
    ("port not sent", "https://example.com", ["https://example.com:8443"], False),
    ("subdomain", "https://www.example.com", ["https://example.com"], False),
    ("host with a listed one in front", "https://example.com.evil.org", ["https://example.com"], False),
    ("host with a listed one behind", "https://evilexample.com", ["https://example.com"], False),
    ("null", "null", ["https://example.com"], False),
    ("empty", "", ["https://example.com"], False),
    ("userinfo", "https://example.com@evil.org", ["https://example.com"], False),
    ("path", "https://example.com/", ["https://example.com"], False),
    ("bad port", "https://example.com:99999", ["https://example.com"], False),
    ("wildcard: subdomain", "https://www.example.com", ["https://*.example.com"], True),
    ("wildcard: subdomain of one letter", "https://w.example.com", ["https://*.example.com"], True),
    ("wildcard: subdomain of a subdomain", "https://a.b.example.com", ["https://*.example.com"], True),
    ("wildcard: in capitals", "https://WWW.Example.com", ["https://*.EXAMPLE.com"], True),
    ("wildcard: default port", "https://www.example.com:443", ["https://*.example.com"], True),
    ("wildcard: port", "https://www.example.com:8443", ["https://*.example.com:8443"], True),
    ("wildcard: the domain itself", "https://example.com", ["https://*.example.com"], False),
    (
        "wildcard: the domain listed as well",
        "https://example.com",
        ["https://*.example.com", "https://example.com"],
        True,
    ),
    ("wildcard: host with the domain behind", "https://evilexample.com", ["https://*.example.com"], False),
    ("wildcard: host with the domain in front", "https://www.example.com.evil.org", ["https://*.example.com"], False),
    ("wildcard: a dot for a host", "https://.example.com", ["https://*.example.com"], False),
    ("wildcard: other scheme", "http://www.example.com", ["https://*.example.com"], False),
    ("wildcard: other port", "https://www.example.com:8443", ["https://*.example.com"], False),
    ("wildcard: userinfo", "https://evil.org@www.example.com", ["https://*.example.com"], False),
    ("wildcard: domain in the path", "https://evil.org/.example.com", ["https://*.example.com"], False),
    ("wildcard: domain in the fragment", "https://evil.org#.example.com", ["https://*.example.com"], False),
]


@table("origin, origins, allowed", LISTED)
def test_a_page_of_a_listed_origin_may_connect(origin: str | None, origins: list[str], allowed: bool) -> None:
    assert is_allowed(origin, origins=origins) is allowed


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://[::1", "nonsense", None])
def test_any_origin_may_be_let_in(origin: str | None) -> None:
    assert is_allowed(origin, origins="*")


#: What WSGI servers make of the bytes of a header: latin-1.
headers = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=20)
odd = st.text("ab.:/[]@#?*\\%-09 \té", max_size=12)


@settings(derandomize=True, deadline=None, max_examples=1500)
@given(
    st.sampled_from(["http://", "https://", "HTTP://", "x://", "//", "http:", ""]),
    odd | st.just("") | headers,
    odd | headers | st.sampled_from(["a.b", "a.b:80", "[::1]:9"]),
    odd | st.just("") | st.sampled_from([":80", ":443", "#", "?", "/", ".", ":", ":0", ":080", "\t"]),
    st.sampled_from([None, ["http://*.b.a", "http://a"]]),
)
def test_any_header_gets_an_answer(scheme: str, before: str, host: str, behind: str, origins: list[str] | None) -> None:
    """Whatever the client sends, `check` returns or raises an HTTP error; and only what names our host is let in."""
    origin = scheme + before + host + behind
    if is_allowed(origin, host, origins=origins) and origins is None:
        scheme, _, page = origin.lower().partition("://")
        default = {"http": ":80", "https": ":443"}.get(scheme, ":")
        assert page.removesuffix(default) == host.lower().removesuffix(default)


@table(
    "origin, forwarded, origins, helped",
    [
        ("the page's host", "https://shop.example", "shop.example", None, True),
        ("the page's host and port", "https://shop.example:8443", "shop.example:8443", None, True),
        ("the page's host last", "https://shop.example", "evil.example, shop.example", None, True),
        ("the page's host first", "https://shop.example", "shop.example,evil.example", None, False),
        ("another host", "https://evil.example", "shop.example", None, False),
        ("another port", "https://shop.example:8443", "shop.example", None, False),
        ("nothing", "https://shop.example", "", None, False),
        ("no header", "https://shop.example", None, None, False),
        ("a sandboxed page", "null", "null", None, False),
        ("origins are listed", "https://shop.example", "shop.example", ["https://a.example"], False),
    ],
)
def test_a_forwarded_host_lets_nobody_in_but_tells_what_to_do(
    origin: str, forwarded: str | None, origins: list[str] | None, helped: bool
) -> None:
    with pytest.raises(Forbidden) as caught:
        check(request(HTTP_ORIGIN=origin, HTTP_X_FORWARDED_HOST=forwarded), Options(origins=origins))
    text = caught.value.description or ""
    assert text.startswith(f"Origin {origin!r} is not allowed")
    assert ("proxy in front rewrote Host" in text) is ("ProxyFix(x_host=1)" in text) is helped


# What answers a good request.


def answer(options: Options | None = None, **changes: str | None) -> list[tuple[str, str]]:
    return accept_headers(request(**changes), options or Options())


def test_the_answer_to_the_key_of_the_rfc() -> None:
    """§1.3."""
    assert answer() == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ]


@table(
    "ours, offered, chosen",
    [
        ("the only one", ["chat"], "chat", "chat"),
        ("our first choice", ["v2", "v1"], "v1, v2", "v2"),
        ("our second choice", ["v3", "v1"], "v1, v2", "v1"),
        ("without spaces", ["b"], "a,b,c", "b"),
        ("with many spaces", ["b"], " a ,\tb , c ", "b"),
        ("none in common", ["v3"], "v1, v2", None),
        ("none of ours", [], "v1, v2", None),
        ("none offered", ["v1"], None, None),
        ("an empty offer", ["v1"], "", None),
        ("another case", ["chat"], "Chat", None),
        ("a part of an offer", ["chat"], "superchat, chat2", None),
    ],
)
def test_a_subprotocol_is_chosen(ours: list[str], offered: str | None, chosen: str | None) -> None:
    headers = answer(Options(subprotocols=ours), HTTP_SEC_WEBSOCKET_PROTOCOL=offered)
    expected = [] if chosen is None else [("Sec-WebSocket-Protocol", chosen)]
    assert [header for header in headers if header[0] == "Sec-WebSocket-Protocol"] == expected
    assert headers[:3] == answer()


def test_extensions_are_not_agreed_to() -> None:
    assert answer(HTTP_SEC_WEBSOCKET_EXTENSIONS="permessage-deflate") == answer()
