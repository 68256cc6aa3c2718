# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Nobody commands a robot from a browser without being let in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.dashboard.gate import Gate, check_access

TOKEN = 'a-token-of-20-letters'
PORT = 8080
HERE = {'host': f'localhost:{PORT}'}
COOKIE = {'host': 'robot:8080', 'cookie': f'other=1; residual_rl_{PORT}={TOKEN}'}


def ask(
    token: str, headers: dict[str, str], query: str = '', kind: str = 'http'
) -> tuple[int, dict[bytes, bytes]]:
    """Return status and headers of the answer; 200 is that of what is behind the gate."""
    sent: list[Any] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({'status': 200, 'headers': []})

    async def receive() -> dict[str, Any]:
        return {'type': 'websocket.connect'}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        'type': kind,
        'path': '//elsewhere.example',
        'query_string': query.encode(),
        'headers': [(key.encode(), value.encode('latin-1')) for key, value in headers.items()],
    }
    asyncio.run(Gate(behind, token, PORT)(scope, receive, send))
    return sent[0].get('status', sent[0].get('code')), dict(sent[0].get('headers', []))


@pytest.mark.parametrize('kind', ['http', 'websocket'])
@pytest.mark.parametrize(
    ('token', 'headers', 'passes'),
    [
        ('', HERE, True),
        ('', {'host': '127.0.0.1:9000', 'origin': 'http://127.0.0.1:9000'}, True),
        ('', {'host': '[::1]:8080'}, True),
        # A foreign name that has come to mean 127.0.0.1, and a page of another site.
        ('', {'host': 'evil.example:8080'}, False),
        ('', {**HERE, 'origin': 'http://evil.example'}, False),
        ('', {**HERE, 'origin': 'null'}, False),
        ('', {'host': '[:8080'}, False),
        ('', {}, False),
        (TOKEN, COOKIE, True),
        (TOKEN, HERE, False),
        (TOKEN, {**COOKIE, 'origin': 'http://evil.example'}, False),
        (TOKEN, {**COOKIE, 'cookie': f'residual_rl_{PORT}={TOKEN[:-1]}'}, False),
        (TOKEN, {**COOKIE, 'cookie': f'residual_rl_{PORT}=\xe4'}, False),
        (TOKEN, {**COOKIE, 'cookie': f'residual_rl_1={TOKEN}'}, False),
    ],
)
def test_every_request_and_every_websocket_is_looked_at(
    token: str, headers: dict[str, str], passes: bool, kind: str
) -> None:
    status, _ = ask(token, headers, kind=kind)
    assert status == (200 if passes else 403 if kind == 'http' else 1008)


def test_the_token_in_an_address_becomes_a_cookie_and_leaves_the_address() -> None:
    status, headers = ask(TOKEN, {'host': 'robot:8080'}, f'token={TOKEN}')
    assert status == 303
    assert headers[b'location'] == b'/'
    assert headers[b'set-cookie'].startswith(f'residual_rl_{PORT}={TOKEN}; HttpOnly'.encode())
    assert ask(TOKEN, {'host': 'robot:8080'}, 'token=another')[0] == 403
    assert ask(TOKEN, {'host': 'robot:8080'}, f'token={TOKEN}', 'websocket')[0] == 1008


@pytest.mark.parametrize(
    ('host', 'token', 'message'),
    [
        ('0.0.0.0', '', '--token is missing'),
        ('robot.local', '', '--token is missing'),
        ('127.0.0.1', 'short', '--token has 5 characters'),
        ('0.0.0.0', 'sixteen letters!', '--token has 16 characters, expected'),
    ],
)
def test_an_open_address_needs_a_token_that_cannot_be_guessed(
    host: str, token: str, message: str
) -> None:
    with pytest.raises(ResidualRLError, match=message):
        check_access(host, token)


def test_this_computer_needs_none() -> None:
    for host in ('127.0.0.1', '127.0.0.9', 'localhost', '::1'):
        check_access(host, '')
    check_access('0.0.0.0', TOKEN)
