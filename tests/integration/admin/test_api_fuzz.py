"""Schemathesis sends what the OpenAPI document allows and what it does not: never a 5xx, never an undocumented answer."""

from __future__ import annotations

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

# For each of some seventy operations. What is allowed comes further in than what is not.
EXAMPLES = {GenerationMode.POSITIVE: 30, GenerationMode.NEGATIVE: 8}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_makes_the_api_fail(plants, mode):
    """To invent a request takes longer than to answer it: each one is sent to both databases."""
    document, other = (httpx.get(f"{plant.url}/openapi.json").json() for plant in plants)
    assert document == other
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=plants[0].url)
    tried, untried = set(), set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not (list(operation.iter_parameters()) or operation.body):
            untried.add((operation.method.upper(), operation.path))  # nothing in it could be wrong
            continue
        strategy = operation.as_strategy(generation_mode=mode)

        @settings(
            max_examples=EXAMPLES[mode],
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def fuzz(case):
            for plant in plants:
                headers = {"Authorization": f"Bearer {plant.keys['admin']}"}
                response = case.call(base_url=plant.url, headers=headers, timeout=20)
                case.validate_response(response, checks=CHECKS)
                assert response.status_code != 401, "without its key nothing behind the door is tried"

        fuzz()
        tried.add((operation.method.upper(), operation.path))
    every = {(method, route) for method, route, _ in plants[0].operations()}
    assert tried | untried == every
    assert untried <= {(method, route) for method, route in every if method == "GET" and "{" not in route}
