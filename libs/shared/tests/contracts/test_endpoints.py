import re

from kalends_shared.contracts.endpoints import ENDPOINTS


def test_each_endpoint_stands_once():
    keys = [(e.method, e.path) for e in ENDPOINTS]
    assert len(keys) == len(set(keys))
    methods = [(e.service, e.rpc) for e in ENDPOINTS]
    assert len(methods) == len(set(methods))


def test_only_posts_take_idempotency_keys_and_creations_answer_201():
    for e in ENDPOINTS:
        assert e.method == "POST" or e.idempotency == "none", e
        assert not e.rpc.startswith("create_") or e.status == 201, e
        assert not re.search(r"\{(?!id\})", e.path), e
