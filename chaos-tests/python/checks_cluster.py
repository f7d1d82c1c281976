"""What holds of a cluster only: every coordinator is as good as the others."""

import time

import httpx
from qdrant_client import QdrantClient, models

from sample import filled, must, point_id, points, value, vector
from twin import TIMEOUT_SECONDS, address_of, plain, same

NAME = "cluster"
# A collection is known where it was created; the other coordinators hear of it a moment later.
HEARD_SECONDS = 10


def coordinators(client):
    answer = httpx.get(f"{address_of(client)}/cluster", timeout=TIMEOUT_SECONDS).json()
    return [QdrantClient(url=coordinator["uri"], timeout=TIMEOUT_SECONDS) for coordinator in answer["result"]["coordinators"]]


def until_heard(call):
    until = time.monotonic() + HEARD_SECONDS
    while not call():
        assert time.monotonic() < until, "a coordinator has not heard of a change"
        time.sleep(0.05)


def what_one_coordinator_wrote_all_others_find(client):
    everyone = coordinators(client)
    assert len(everyone) == 3
    strict = models.ReadConsistencyType.ALL
    for writer in everyone:
        filled(writer, NAME, range(30), shard_number=3, replication_factor=3)
        writer.set_payload(NAME, {"seen": True}, points=must(value("colour", "green")))
        writer.delete(NAME, [1, point_id(7)])
        answers = []
        for reader in everyone:
            until_heard(lambda: reader.collection_exists(NAME))
            answers.append(plain([
                reader.scroll(NAME, limit=100, with_vectors=True, consistency=strict),
                reader.query_points(NAME, query=vector("q"), limit=100, consistency=strict),
                reader.get_collection(NAME).config]))
        assert len(answers[0][0][0]) == 28 and all(same(answer, answers[0]) for answer in answers)
        assert writer.delete_collection(NAME)
        for reader in everyone:
            until_heard(lambda: not reader.collection_exists(NAME))


def an_alias_is_switched_for_all(client):
    one, two, three = coordinators(client)
    filled(one, "cluster-one", range(3))
    filled(two, "cluster-two", range(5))
    create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="cluster-one", alias_name="current"))
    assert one.update_collection_aliases([create])
    until_heard(lambda: three.collection_exists("current") and three.count("current").count == 3)
    swap = [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="current")),
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="cluster-two", alias_name="current"))]
    assert two.update_collection_aliases(swap)
    for reader in (one, three):
        until_heard(lambda: reader.count("current").count == 5)
    for name in ("cluster-one", "cluster-two"):
        assert one.delete_collection(name)


def clients_write_to_all_coordinators_at_once(client):
    everyone = coordinators(client)
    filled(everyone[0], NAME, range(1, 3), shard_number=3, replication_factor=2)
    for reader in everyone:
        until_heard(lambda: reader.collection_exists(NAME))
    for part in range(30):
        everyone[part % 3].upsert(NAME, points(range(100 + 7 * part, 107 + 7 * part)), wait=part % 2 == 0)
    strict = models.ReadConsistencyType.ALL
    found = [reader.scroll(NAME, limit=1_000, with_payload=False, consistency=strict)[0] for reader in everyone]
    assert [len(points) for points in found] == [2 + 30 * 7] * 3


CHECKS = [what_one_coordinator_wrote_all_others_find, an_alias_is_switched_for_all, clients_write_to_all_coordinators_at_once]
