# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium that opens a page, over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get('CHROMIUM') or shutil.which('chromium') or ''
"""The browser; empty if there is none."""
START_LIMIT_S = 30.0


class Browser:
    """A tab of a browser.

    Args:
        connection: websocket of the tab.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.requested: list[str] = []
        """Addresses that pages have asked for, websockets included."""

    def ask(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        self._connection.send(json.dumps({'id': number, 'method': method, 'params': parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=START_LIMIT_S))
            if answer.get('method') == 'Network.requestWillBeSent':
                self.requested.append(answer['params']['request']['url'])
            elif answer.get('method') == 'Network.webSocketCreated':
                self.requested.append(answer['params']['url'])
            elif answer.get('id') == number:
                assert 'error' not in answer, answer['error']
                return answer['result']

    def open(self, address: str) -> None:
        """Go to a page."""
        self.ask('Page.navigate', url=address)

    def run(self, script: str) -> Any:
        """Return what a script of the page says; a promise is waited for."""
        result = self.ask(
            'Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True
        )
        assert 'exceptionDetails' not in result, result['exceptionDetails']
        return result['result'].get('value')

    def text(self) -> str:
        """Return what a person reads on the page."""
        return str(self.run('document.body ? document.body.innerText : ""'))

    def screenshot(self, path: Path) -> None:
        """Write what a person sees, as PNG."""
        path.write_bytes(base64.b64decode(self.ask('Page.captureScreenshot')['data']))


@contextmanager
def browser(folder: Path, width: int = 1280, height: int = 1100) -> Iterator[Browser]:
    """Start Chromium with an empty profile in a folder."""
    from websockets.sync.client import connect

    command = [CHROMIUM, '--headless', '--disable-gpu', '--remote-debugging-port=0']
    command += ['--no-sandbox', f'--user-data-dir={folder}', f'--window-size={width},{height}']
    # What a browser asks for of its own accord says nothing of the page.
    command += ['--disable-background-networking', '--no-first-run', 'about:blank']
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = _port(folder / 'DevToolsActivePort')
            with urllib.request.urlopen(f'http://127.0.0.1:{port}/json/list') as answer:
                tabs = [tab for tab in json.load(answer) if tab['type'] == 'page']
            with connect(
                tabs[0]['webSocketDebuggerUrl'], max_size=None, ping_interval=None
            ) as connection:
                tab = Browser(connection)
                tab.ask('Page.enable')
                tab.ask('Network.enable')
                yield tab
        finally:
            process.terminate()


def _port(file: Path) -> int:
    deadline = time.monotonic() + START_LIMIT_S
    while not (file.exists() and file.read_text().count('\n')):
        assert time.monotonic() < deadline, f'{CHROMIUM} did not start'
        time.sleep(0.05)
    return int(file.read_text().split()[0])
