# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""XML: elements and attributes; no document type, and so no entities and nothing from elsewhere."""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from residual_rl_ros.errors import FormatError
from residual_rl_ros.files.limits import DEPTH, TEXT_BYTES, XML_ELEMENTS


def parse_xml(text: str, what: str) -> Element:
    """Return the root of an XML text; the text within its elements is left out.

    Args:
        text: the text.
        what: what it is, for the error.

    Raises:
        FormatError: it is none, declares a document type, or asks for more than the limits.
    """
    if len(text) > TEXT_BYTES:
        raise FormatError(f'{what} has {len(text)} characters, expected at most {TEXT_BYTES}')
    reader = _Reader()
    try:
        return reader.read(text)
    except (expat.ExpatError, ValueError) as error:  # A text may hold half a surrogate pair.
        raise FormatError(f'{what} is not XML: {error}') from error


class _Reader:
    """Counts while it reads."""

    def __init__(self) -> None:
        self._tree = TreeBuilder()
        self._depth = self._elements = 0

    def read(self, text: str) -> Element:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.Parse(text, True)
        return self._tree.close()

    def _refuse(self, *declared: object) -> None:
        raise ValueError(
            'it declares a document type (<!DOCTYPE), by which entities come; remove it'
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > DEPTH:
            raise ValueError(f'more than {DEPTH} elements are within one another')
        if self._elements > XML_ELEMENTS:
            raise ValueError(f'it has more than {XML_ELEMENTS} elements')
        self._tree.start(tag, attributes)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._tree.end(tag)
