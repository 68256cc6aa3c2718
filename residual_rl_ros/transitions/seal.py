# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keyed digests: whoever has no key can neither make nor change what robot and learner accept.

A checksum says that a message arrived whole. HMAC-SHA256 (RFC 2104) also says that its author has
the key. It does not hide anything, and a recorded message can be sent again; that a weight message
must be newer than the one before is checked elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

from residual_rl_ros.errors import ConfigError, SealError

MIN_BYTES, MAX_BYTES = 32, 4096
"""Sizes of a key [bytes]."""
MARK = b'\n# hmac-sha256: '
"""Stands between what is sealed and its digest; a comment in YAML."""
SEAL = '.seal'
"""Ends the name of the file that holds the digest of another."""
WEIGHTS, LAYOUT = 'weights', 'layout'
"""What is sealed; the seal of one thing opens no other."""
DIGITS = 64
"""Hexadecimal digits of a digest."""


class Key:
    """Seals what this process sends and opens what it receives.

    Args:
        secret: at least `MIN_BYTES` bytes; empty: nothing is sealed, and anything is opened.
    """

    def __init__(self, secret: bytes = b'') -> None:
        self._secret = secret

    @classmethod
    def read(cls, path: str) -> Key:
        """Read a key file; an empty path is no key.

        Args:
            path: a regular file that only its owner can read, such as
                `openssl rand -out key 32 && chmod 600 key` makes.

        Raises:
            ConfigError: it cannot be read, others can read or change it, or its size is wrong.
        """
        if not path:
            return cls()
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle, 'rb') as file:
                state = os.fstat(file.fileno())
                if not stat.S_ISREG(state.st_mode):
                    raise OSError('it is no regular file')
                secret = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f'cannot read key_file {path!r}: {error}') from error
        if state.st_uid != os.geteuid() or state.st_mode & 0o077:
            raise ConfigError(
                f'key_file {path!r} has mode {stat.S_IMODE(state.st_mode):o} and owner '
                f'{state.st_uid}, expected 600 and {os.geteuid()}: chmod 600 it'
            )
        if not MIN_BYTES <= len(secret) <= MAX_BYTES:
            raise ConfigError(
                f'key_file {path!r} has {len(secret)} bytes, expected {MIN_BYTES} to {MAX_BYTES}: '
                'openssl rand -out FILE 32 makes one'
            )
        return cls(secret)

    def __bool__(self) -> bool:
        """Return whether there is a key."""
        return bool(self._secret)

    def seal(self, purpose: str, content: bytes) -> bytes:
        """Return the content with its digest behind it; as it is without a key.

        Args:
            purpose: what it is; the seal of one thing opens no other.
            content: what is sent.
        """
        if not self._secret:
            return content
        return content + MARK + self._digest(purpose, content)

    def open(self, purpose: str, sealed: bytes) -> bytes:
        """Return the content of what was sealed; as it is without a key.

        Args:
            purpose: what it has to be.
            sealed: what was received.

        Raises:
            SealError: it has no digest, or one of another key.
        """
        if not self._secret:
            return sealed
        end = len(sealed) - DIGITS
        content = sealed[: max(end - len(MARK), 0)]
        if end < len(MARK) or sealed[end - len(MARK) : end] != MARK:
            raise SealError(f'{purpose} is not sealed; give its sender the same key_file')
        if not hmac.compare_digest(sealed[end:], self._digest(purpose, content)):
            raise SealError(f'{purpose} is sealed with another key, or was changed')
        return content

    def seal_file(self, path: Path) -> None:
        """Write the digest of a file beside it; nothing without a key.

        Raises:
            OSError: it cannot be written.
        """
        if self._secret:
            digest = self._digest(path.name, path.read_bytes())
            path.with_name(path.name + SEAL).write_bytes(digest)

    def check_file(self, path: Path) -> None:
        """Check the digest beside a file; nothing without a key.

        Raises:
            SealError: there is none, or one of another key.
            OSError: the file cannot be read.
        """
        if not self._secret:
            return
        seal = path.with_name(path.name + SEAL)
        if not seal.is_file():
            raise SealError(f'{str(path)!r} is not sealed; {seal.name} is missing beside it')
        with seal.open('rb') as file:
            digest = file.read(DIGITS + 1)
        if not hmac.compare_digest(digest, self._digest(path.name, path.read_bytes())):
            raise SealError(f'{str(path)!r} is sealed with another key, or was changed')

    def _digest(self, purpose: str, content: bytes) -> bytes:
        message = purpose.encode() + b'\0' + content
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest().encode()
