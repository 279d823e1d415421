"""A browser without scripts, over HTTP: follows links, sends forms with hidden fields, reads text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from tests.integration.api.ledger_api import HOST, LedgerApi

_HIDDEN_FROM_TEXT = {"script", "style", "title"}


@dataclass
class Form:
    """A form of a page: its action and its current fields."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class Document(HTMLParser):
    """A parsed page: its text, links, forms, and the attributes of its elements by id."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.response = response
        self.status = response.status_code
        self.links: dict[str, str] = {}
        self.forms: list[Form] = []
        self.parts: dict[str, dict[str, str]] = {}
        self.inline: list[str] = []
        self.scripts: list[str] = []
        self._texts: list[str] = []
        self._open: list[str] = []
        self._link: str | None = None
        self._select: str | None = None
        self.feed(response.text)

    @property
    def text(self) -> str:
        """The text of the page, with normalised spaces."""
        return re.sub(r"\s+", " ", " ".join(self._texts)).strip()

    def form(self, action: str) -> Form:
        """Return the only form whose action has this path."""
        (found,) = [form for form in self.forms if form.action.partition("?")[0] == action]
        return found

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self._open.append(tag)
        if "id" in given:
            self.parts[given["id"]] = given
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        match tag:
            case "a":
                self._link = given.get("href")
            case "script":
                self.scripts.append(given.get("src", "inline"))
            case "style":
                self.inline.append("style element")
            case "form":
                self.forms.append(Form(given.get("action", ""), given.get("method", "get")))
            case "input" if self.forms and given.get("name"):
                if given.get("type") not in ("checkbox", "radio") or "checked" in given:
                    self.forms[-1].fields[given["name"]] = given.get("value", "")
            case "select" if self.forms:
                self._select = given["name"]
            case "option" if self._select:
                if self._select not in self.forms[-1].fields or "selected" in given:
                    self.forms[-1].fields[self._select] = given.get("value", "")
            case "textarea" if self.forms:
                self.forms[-1].fields[given["name"]] = ""
            case "button" if self.forms and given.get("name"):
                self.forms[-1].buttons.append((given["name"], given.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._link = None
        if tag == "select":
            self._select = None
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in _HIDDEN_FROM_TEXT:
            return
        self._texts.append(data)
        if self._link and data.strip():
            self.links[data.strip()] = self._link


class Browser:
    """A browser: it keeps cookies and, except in `raw`, follows redirects."""

    def __init__(self, client: Any, api: LedgerApi) -> None:
        self.client = client
        self.api = api

    def sign_in(self, subject: str, **claims: Any) -> Browser:
        """Sign in by a link, as a user with these roles and organisations."""
        ticket = self.api.issuer.ticket(subject, **claims)
        page = self.get("/sign-in", ticket=ticket)
        assert page.status in (200, 404), page.text
        return self

    def get(self, path: str, **query: Any) -> Document:
        """Follow a link."""
        return Document(self.client.get(path, params=query or None, follow_redirects=True))

    def raw(self, path: str, **query: Any) -> Any:
        """Get a page without following redirects."""
        return self.client.get(path, params=query or None, follow_redirects=False)

    def submit(self, form: Form, press: tuple[str, str] | None = None, **fields: Any) -> Document:
        """Fill in a form and send it, as a browser would."""
        data = {**form.fields, **fields, **(dict([press]) if press else {})}
        headers = {"Origin": f"http://{HOST}"}
        if form.method == "get":
            return self.get(form.action, **data)
        return Document(self.client.post(form.action, data=data, headers=headers, follow_redirects=True))

    def post(
        self, path: str, follow: bool = False, headers: dict[str, str] | None = None, **data: Any
    ) -> Any:
        """Send a form that no page contains."""
        sent = {"Origin": f"http://{HOST}", **(headers or {})}
        return self.client.post(path, data=data, headers=sent, follow_redirects=follow)

    @property
    def csrf_token(self) -> str:
        """The token of the session's forms."""
        return self.get("/credits/organisations").form("/sign-out").fields["csrf"]
