"""What the tests of all pages ask of a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """The tags of a page with their attributes, and its visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._hidden = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in {"script", "style"}

    def handle_endtag(self, tag):
        self._hidden &= tag not in {"script", "style"}

    def handle_data(self, data):
        self.text += "" if self._hidden else data.replace("\N{NO-BREAK SPACE}", " ")

    def named(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def levels(self):
        """Of the headings."""
        return [int(tag[1]) for tag, _ in self.tags if re.fullmatch(r"h[1-6]", tag)]
