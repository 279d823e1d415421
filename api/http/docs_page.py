"""The reference page: an OpenAPI document as HTML, with examples of every operation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from api.http.schema_text import example_of, resolve, type_of

_CONTINUED: Final = " \\\n"

Document = Mapping[str, Any]


def render(document: Document, base_url: str) -> str:
    """Return the page of a document. Its examples call the server at `base_url`."""
    info = document["info"]
    operations = list(_operations(document))
    tags = document["tags"]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])} API</title>",
            '<link rel="stylesheet" href="/docs/reference.css"></head><body>',
            _navigation(info, tags, operations),
            f"<main><header><h1>{escape(info['title'])} <small>API {escape(info['version'])}</small></h1>",
            _text(info["description"]),
            '<p><a href="/openapi.json">OpenAPI document</a></p></header>',
            *(_group(document, base_url, tag, operations) for tag in tags),
            _schemas(document),
            "</main></body></html>",
        ]
    )


Operation = tuple[str, str, Mapping[str, Any]]
"""Method, path, and the operation object of the document."""


def _operations(document: Document) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _navigation(info: Mapping[str, Any], tags: Iterable[Any], operations: Iterable[Operation]) -> str:
    parts = [f'<nav><a class="home" href="#">{escape(info["title"])}</a>']
    for tag in tags:
        links = "".join(
            f'<li><a href="#{each["operationId"]}">{_method(method)} {escape(each["summary"])}</a></li>'
            for method, _, each in operations
            if tag["name"] in each["tags"]
        )
        parts.append(f"<h2>{escape(tag['name'])}</h2><ul>{links}</ul>")
    parts.append('<h2><a href="#schemas">Schemas</a></h2></nav>')
    return "".join(parts)


def _group(document: Document, base_url: str, tag: Mapping[str, Any], operations: Iterable[Operation]) -> str:
    name = tag["name"]
    articles = [_operation(document, base_url, each) for each in operations if name in each[2]["tags"]]
    return f"<section><h2>{escape(name)}</h2>{_text(tag['description'])}{''.join(articles)}</section>"


def _operation(document: Document, base_url: str, operation: Operation) -> str:
    method, path, about = operation
    return (
        f'<article id="{about["operationId"]}"><h3>{escape(about["summary"])}</h3>'
        f'<p class="address">{_method(method)} <code>{escape(path)}</code></p>{_text(about["description"])}'
        f"{_parameters(about)}{_request_body(document, about)}{_curl(document, base_url, operation)}"
        f"<h4>Responses</h4>{_responses(document, about)}</article>"
    )


def _parameters(operation: Mapping[str, Any]) -> str:
    rows = [
        (
            each["name"],
            f"{type_of(each['schema'])}, {each['in']}{', required' if each.get('required') else ''}",
            each.get("description", ""),
        )
        for each in operation.get("parameters", ())
    ]
    return f"<h4>Parameters</h4>{_table(rows)}" if rows else ""


def _request_body(document: Document, operation: Mapping[str, Any]) -> str:
    if "requestBody" not in operation:
        return ""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    model = resolve(document, schema)
    return f"<h4>Body</h4>{_text(model.get('description', ''))}{_fields(model)}"


def _curl(document: Document, base_url: str, operation: Operation) -> str:
    method, path, about = operation
    query = []
    for each in about.get("parameters", ()):
        example = str(example_of(document, each["schema"]))
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", quote(example, safe=""))
        elif each["in"] == "query" and each.get("required"):
            query.append(f"{each['name']}={quote(example, safe='')}")
    address = f"{base_url}{path}{'?' + '&'.join(query) if query else ''}"
    lines = [f"curl '{address}'"] if method == "GET" else [f"curl -X {method} '{address}'"]
    if about["security"]:
        lines.append('  -H "Authorization: Bearer $TOKEN"')
    if "requestBody" in about:
        body = example_of(document, about["requestBody"]["content"]["application/json"]["schema"])
        lines += [
            "  -H 'Content-Type: application/json'",
            "  -H 'Idempotency-Key: 0198f0c2-6b7e-7c3a-9f51-2f0d1c9f8a11'",
            f"  -d '{json.dumps(body, ensure_ascii=False)}'",
        ]
    return f"<h4>Example</h4><pre>{escape(_CONTINUED.join(lines))}</pre>"


def _responses(document: Document, operation: Mapping[str, Any]) -> str:
    parts = []
    for status, response in operation["responses"].items():
        reason = HTTPStatus(int(status)).phrase
        kind = "good" if status < "400" else "bad"
        examples = "".join(_examples(document, response))
        parts.append(
            f'<details><summary><b class="{kind}">{status}</b> {escape(reason)}'
            f" <span>{escape(response['description'])}</span></summary>{examples}</details>"
        )
    return "".join(parts)


def _examples(document: Document, response: Mapping[str, Any]) -> Iterator[str]:
    headers = [
        (name, type_of(each["schema"]), each["description"])
        for name, each in response.get("headers", {}).items()
    ]
    if headers:
        yield _table(headers)
    for content in response.get("content", {}).values():
        yield f"<p>Schema: {_linked(type_of(content['schema']))}</p>"
        if "examples" in content:
            for example in content["examples"].values():
                yield _text(example["description"]) + _json(example["value"])
        elif "$ref" in content["schema"]:
            yield _json(example_of(document, content["schema"]))


def _schemas(document: Document) -> str:
    articles = [
        f'<article id="schema-{escape(name)}"><h3>{escape(name)}</h3>'
        f"{_text(model.get('description', ''))}{_fields(model)}</article>"
        for name, model in sorted(document["components"]["schemas"].items())
    ]
    return f'<section id="schemas"><h2>Schemas</h2>{"".join(articles)}</section>'


def _fields(model: Mapping[str, Any]) -> str:
    if "enum" in model:
        return f"<p>One of {', '.join(f'<code>{escape(str(each))}</code>' for each in model['enum'])}.</p>"
    required = model.get("required", ())
    return _table(
        (name, f"{type_of(schema)}{', required' if name in required else ''}", schema.get("description", ""))
        for name, schema in model.get("properties", {}).items()
    )


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = "".join(
        f"<tr><th><code>{escape(name)}</code></th><td>{_linked(kind)}</td><td>{_inline(about)}</td></tr>"
        for name, kind, about in rows
    )
    return f"<table>{lines}</table>"


def _method(method: str) -> str:
    return f'<b class="method {method.lower()}">{method}</b>'


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _linked(kind: str) -> str:
    """Return the text of a type, with links for its schemas (capitalised words)."""
    return re.sub(r"\b[A-Z][a-z]\w+", lambda name: f'<a href="#schema-{name[0]}">{name[0]}</a>', escape(kind))


def _text(text: str) -> str:
    """Return paragraphs and lists as HTML, from the Markdown subset of the docstrings."""
    parts = []
    for block in text.strip().split("\n\n"):
        items = re.split(r"^\* ", block, flags=re.MULTILINE)
        if items[0].strip():
            parts.append(f"<p>{_inline(items[0])}</p>")
        if items[1:]:
            parts.append(f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items[1:])}</ul>")
    return "".join(parts)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip()))
