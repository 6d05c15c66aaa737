"""Whatever the OpenAPI document allows, and much that it doesn't, is answered without an error of the service."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]


def call_all(client, examples: int, modes: list) -> dict[str, set[int]]:
    """Call every operation with made-up requests; return the statuses that each path gave."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    schema.config.generation.update(modes=modes)
    seen: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        call_one(result.ok(), examples, modes, seen)
    return seen


def call_one(operation, examples: int, modes: list, seen: dict[str, set[int]]) -> None:
    options = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}

    @settings(max_examples=examples, **options)
    @given(data=st.data())
    def check(data):
        case = data.draw(operation.as_strategy(generation_mode=data.draw(st.sampled_from(modes))))
        if isinstance(case.body, dict) and data.draw(st.booleans()):
            for name in ("model", "where"):  # made up, these are refused nearly always
                case.body.pop(name, None)
        answer = case.call_and_validate(checks=CHECKS)
        seen.setdefault(operation.path, set()).add(answer.status_code)

    check()


PATHS = {"/health", "/ready", "/metrics", "/v1/models", "/v1/embeddings", "/v1/regions", "/v1/classify", "/v1/search"}


def test_requests_made_from_the_document(client):
    seen = call_all(client, 3, [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    assert seen.keys() == PATHS


@pytest.mark.slow
def test_many_requests_made_from_the_document(client):
    seen = call_all(client, 150, [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    assert seen.keys() == PATHS
    assert {200, 422} <= seen["/v1/embeddings"]
    assert 200 in seen["/v1/search"]
