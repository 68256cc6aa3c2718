# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Lets in who may command a robot from a browser; it looks at every request and websocket."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from residual_rl_ros.errors import ResidualRLError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = re.compile(r'[A-Za-z0-9_-]{16,256}')
"""What a token looks like: it stands in addresses and cookies, and cannot be guessed."""
THIS_MACHINE = ('localhost', '127.0.0.1', '::1')
"""Names under which a browser of this computer asks."""


def is_local(host: str) -> bool:
    """Return whether only this computer reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def check_access(host: str, token: str) -> None:
    """Refuse an address that others reach without a token that cannot be guessed.

    Raises:
        ResidualRLError: there is none, or it is too short or has other characters.
    """
    if not token and not is_local(host):
        raise ResidualRLError(
            f'--host {host} lets others reach the robot and --token is missing; give one, such as '
            '$(openssl rand -hex 16), or leave --host away'
        )
    if token and not TOKEN.fullmatch(token):
        raise ResidualRLError(
            f'--token has {len(token)} characters, expected 16 to 256 of A-Z, a-z, 0-9, _ and -'
        )


class Gate:
    """Refuses requests without the token, and those that another site has a browser make.

    The address with `?token=…` leaves a cookie that pages of other sites can neither read nor send.
    Without a token only names of this computer are answered, so that a foreign name which comes to
    mean 127.0.0.1 opens nothing.

    Args:
        app: what is behind it (ASGI).
        token: empty where only this computer reaches the port.
        port: of the page; cookies know no ports, so it is in the name.
    """

    def __init__(self, app: App, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._cookie = f'residual_rl_{port}'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope['type'] == 'lifespan':
            await self._app(scope, receive, send)
            return
        reason = self._refusal(scope)
        if reason:
            await _refuse(scope, receive, send, reason)
        elif self._token and _asked_token(scope):
            cookie = f'{self._cookie}={self._token.decode()}; HttpOnly; SameSite=Lax; Path=/'
            headers = [(b'location', b'/'), (b'set-cookie', cookie.encode())]
            await _answer(send, 303, [*headers, (b'referrer-policy', b'no-referrer')], '')
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str:
        """Return why a request is refused, empty if it is not."""
        headers = list(scope['headers'])
        host, origin = _header(headers, b'host'), _header(headers, b'origin')
        if not self._token and _host_name(f'//{host}') not in THIS_MACHINE:
            return f'host {host:.80} is not this computer'
        if origin and _net_location(origin) != host.lower():
            return f'origin {origin:.80} is another site'
        if not self._token:
            return ''
        given = _asked_token(scope) if scope['type'] == 'http' else ''
        given = given or _cookie(headers, self._cookie)
        if hmac.compare_digest(given.encode(), self._token):
            return ''
        return 'the token is missing or wrong; open the address that ends in ?token=…'


def _net_location(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ''


def _host_name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ''
    except ValueError:
        return ''


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode('latin-1') for key, value in headers if key.lower() == name), '')


def _asked_token(scope: Scope) -> str:
    """Return the token in the address, empty without one."""
    query = parse_qs(scope.get('query_string', b'').decode('latin-1'))
    return query.get('token', [''])[0]


def _cookie(headers: Iterable[tuple[bytes, bytes]], name: str) -> str:
    try:
        cookies = SimpleCookie(_header(headers, b'cookie'))
    except CookieError:
        return ''
    return cookies[name].value if name in cookies else ''


async def _refuse(scope: Scope, receive: Receive, send: Send, reason: str) -> None:
    if scope['type'] == 'websocket':
        await receive()
        await send({'type': 'websocket.close', 'code': 1008})
        return
    await _answer(send, 403, [], f'refused: {reason}\n')


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], text: str) -> None:
    headers = [*headers, (b'content-type', b'text/plain; charset=utf-8')]
    await send({'type': 'http.response.start', 'status': status, 'headers': headers})
    await send({'type': 'http.response.body', 'body': text.encode()})
