"""docs/openapi.json against the code: every route, every member of every answer, both ways."""

from __future__ import annotations

import functools
import json
import re
from base64 import b64decode
from typing import Any

from p2pdist.test.test_docs import document
from p2pdist.test.webworld import KEY, WebCase, events
from p2pdist.web.api import EVENTS, METRICS, ROUTES
from p2pdist.web.guard import REASONS

TYPES = {"string": str, "integer": int, "number": int | float, "boolean": bool, "null": type(None)}
EVENT_KINDS = {
    "state": "StateEvent",
    "pieces": "PiecesEvent",
    "rates": "RatesEvent",
    "log": "LogEvent",
}


@functools.cache
def openapi() -> Any:
    """Return the document."""
    return json.loads(document("docs/openapi.json"))


def resolve(schema: Any) -> Any:
    """Return what a reference names."""
    while "$ref" in schema:
        value = openapi()
        for part in schema["$ref"].removeprefix("#/").split("/"):
            value = value[part]
        schema = value
    return schema


def complaints(value: Any, schema: Any, where: str) -> list[str]:
    """Return what differs between a value and its schema, missing members on either side too."""
    schema = resolve(schema)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if isinstance(value, dict) and "object" in kinds:
        return of_object(value, schema, where)
    if isinstance(value, list | tuple) and "array" in kinds:
        return [x for item in value for x in complaints(item, schema["items"], f"{where}[]")]
    if not any(kind in TYPES and type_fits(value, kind) for kind in kinds):
        return [f"{where}: {value!r} is none of {kinds}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is none of {schema['enum']}"]
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return [f"{where}: {value!r} does not look like {schema['pattern']}"]
    if schema.get("contentEncoding") == "base64":
        b64decode(value, validate=True)
    return []


def type_fits(value: Any, kind: str) -> bool:
    """Tell whether a value is of a kind; truth is no number."""
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def of_object(value: Any, schema: Any, where: str) -> list[str]:
    """Return what differs in an object."""
    if "properties" not in schema:
        return []
    known = schema["properties"]
    found = [f"{where}.{name}: not in the document" for name in value.keys() - known.keys()]
    found += [f"{where}.{name}: not in the answer" for name in known.keys() - value.keys()]
    for name in value.keys() & known.keys():
        found += complaints(value[name], known[name], f"{where}.{name}")
    return found


class DocumentTests(WebCase):
    """The document."""

    def check(self, value: Any, name: str) -> None:
        """Fail if a value is not as the schema of that name says."""
        schema = {"$ref": f"#/components/schemas/{name}"}
        self.assertEqual([], complaints(value, schema, name))

    def answer_of(self, method: str, path: str) -> Any:
        """Return the schema of what a route answers."""
        answer = openapi()["paths"][path][method.lower()]["responses"]["200"]
        return answer["content"]["application/json"]["schema"]

    def test_routes(self):
        """Every route is in the document, and the document names no other."""
        told = {
            (method.upper(), path)
            for path, methods in openapi()["paths"].items()
            for method in methods
            if method != "parameters"
        }
        known = {(route.method, route.path) for route in ROUTES}
        self.assertEqual(known | {("GET", EVENTS), ("GET", METRICS)}, told)

    def test_bodies(self):
        """What a body may name is what the document says; each route with a body has one."""
        for route in ROUTES:
            operation = openapi()["paths"][route.path][route.method.lower()]
            if route.method == "GET":
                self.assertNotIn("requestBody", operation)
                continue
            schema = resolve(operation["requestBody"]["content"]["application/json"]["schema"])
            self.assertEqual(set(route.body), set(schema["properties"]), route.path)

    def test_answers(self):
        """What is asked is answered as the document says, while downloading and when done."""
        asked = [route for route in ROUTES if route.method == "GET"]
        seen = 0
        for _ in range(4):
            for route in asked:
                answer = self.get(route.path.replace("{content}", self.key))
                found = complaints(answer, self.answer_of("GET", route.path), route.path)
                self.assertEqual([], found)
                seen += 1
            self.world.run(2)
        self.assertEqual(4 * len(asked), seen)
        self.assertEqual(2, len(self.get(f"/api/v1/contents/{self.key}/fleet")["hosts"]))
        self.assertEqual(1, len(self.get(f"/api/v1/contents/{self.key}/peers")["peers"]))

    def test_told(self):
        """What is told is answered as the document says; paused contents are part of the status."""
        bodies = {"limit": {"upload": "1MB"}, "contents": {"link": "p2pdist:b3:" + "1" * 64}}
        told = [route for route in ROUTES if route.method == "POST"]
        for route in told:
            path = route.path.replace("{content}", self.key)
            answer = self.post(path, **bodies.get(path.rpartition("/")[2], {}))
            self.assertEqual(200, answer.status, answer.body)
            found = complaints(answer.json, self.answer_of("POST", route.path), route.path)
            self.assertEqual([], found)
            if path.endswith("/pause"):
                self.check(self.get("/api/v1/status"), "Status")

    def test_events(self):
        """The stream's events are as the document says, from the first to the last second."""
        stream = self.start("GET", "/api/v1/events", KEY)
        for _ in range(5):
            self.world.run(1)
            self.reactor.advance(1)
        told = events(stream.answer().body)
        self.assertEqual(set(EVENT_KINDS), {name for name, _ in told})
        for name, value in told:
            self.check(value, EVENT_KINDS[name])
        schemas = set(openapi()["components"]["schemas"])
        self.assertEqual(set(EVENT_KINDS.values()), {x for x in schemas if x.endswith("Event")})

    def test_refusals(self):
        """A refusal is as the document says, and the document names every one."""
        self.check(self.ask("GET", "/api/v1/status").json, "Error")
        self.check(self.ask("GET", "/", {"Host": "evil.example"}).json, "Error")
        said = openapi()["components"]["responses"]["Refused"]["description"]
        told = {int(number) for number in re.findall(r"\d{3}", said)}
        self.assertEqual(set(REASONS) - {500}, told)

    def test_every_schema_is_used(self):
        """Nothing in the document is there for nothing."""
        text = json.dumps(openapi())
        for kind in ("schemas", "parameters", "responses"):
            for name in openapi()["components"][kind]:
                used = f"#/components/{kind}/{name}" in text or name.endswith("Event")
                self.assertTrue(used, name)
