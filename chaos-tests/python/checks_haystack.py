"""qdrant-haystack, unmodified: a document store's life and its three retrievers, sync and async, compared with local mode."""

import asyncio
import functools
import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # it is read by the imports below

from haystack import Document
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.components.retrievers.qdrant import (
    QdrantEmbeddingRetriever, QdrantHybridRetriever, QdrantSparseEmbeddingRetriever,
)
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from qdrant_client import models

import embed
from twin import TIMEOUT_SECONDS, Notes, address_of

NAME = "haystack"
QUERIES = ["Who orders writes of the log?", "where do cats sleep at night", "near vectors in a graph"]


def twin(scenario):
    """The check that a scenario sees the same on a server as in local mode. It is told how a store is reached."""

    @functools.wraps(scenario)
    def check(client):
        ours, theirs = Notes(), Notes()
        scenario({"location": ":memory:"}, theirs)
        scenario({"url": address_of(client), "timeout": TIMEOUT_SECONDS}, ours)
        return ours.agree(theirs)

    return check


def store(where, sparse=False, **more):
    return QdrantDocumentStore(
        **where, index=NAME, embedding_dim=embed.DIM, recreate_index=True, use_sparse_embeddings=sparse, return_embedding=True,
        progress_bar=False, write_batch_size=5, **({"shard_number": 3, "replication_factor": 2} | more))


def sparse_of(text):
    indices, values = embed.sparse(text)
    return SparseEmbedding(indices=indices, values=values)


def document(row, text=None, sparse=False):
    text = text or embed.TEXTS[row]
    return Document(
        id=f"document-{row}", content=text, embedding=embed.dense(text), sparse_embedding=sparse_of(text) if sparse else None,
        meta={"row": row, "kind": ["cat", "tech", "other"][row % 3], "price": row * 1.5, "at": f"2024-{row + 1:02}-05T10:00:00",
              "tags": [f"t{row % 3}", f"t{row % 4}"], "even": row % 2 == 0})


def all_documents(sparse=False):
    return [document(row, sparse=sparse) for row in range(len(embed.TEXTS))]


def shown(found):
    return sorted([plain.to_dict(flatten=False) | {"score": None} for plain in found], key=lambda plain: plain["id"])


def hits(found):
    return [plain.to_dict(flatten=False) for plain in (found["documents"] if isinstance(found, dict) else found)]


def comparison(field, operator, value):
    return {"field": f"meta.{field}", "operator": operator, "value": value}


def joined(operator, *conditions):
    return {"operator": operator, "conditions": list(conditions)}


FILTERS = [
    comparison("kind", "==", "cat"), comparison("row", "==", 3), comparison("even", "==", True), comparison("kind", "!=", "cat"),
    comparison("row", ">", 4), comparison("row", ">=", 4), comparison("price", "<", 6.0), comparison("price", "<=", 6),
    comparison("kind", "in", ["cat", "other"]), comparison("row", "not in", [1, 2, 3]), comparison("tags", "==", "t1"),
    comparison("at", ">=", "2024-05-01T00:00:00"), comparison("at", "<", "2024-03-05T10:00:00"),
    joined("AND", comparison("kind", "==", "tech"), comparison("row", "<", 8)),
    joined("OR", comparison("kind", "==", "cat"), comparison("row", "==", 1)), joined("NOT", comparison("kind", "==", "cat")),
    joined("AND", comparison("even", "==", False), joined("OR", comparison("row", "<", 4), comparison("price", ">", 12))),
]


def documents_are_written_and_filtered(where, note):
    found = store(where)
    note("written", found.write_documents(all_documents()))
    note("count", found.count_documents())
    note("all", shown(found.filter_documents()))
    for wanted in FILTERS:
        note(f"{wanted}", shown(found.filter_documents(wanted)))
        note(f"count {wanted}", found.count_documents_by_filter(wanted))
    own = models.Filter(must=[models.FieldCondition(key="meta.row", match=models.MatchAny(any=[1, 5]))])
    note("a filter of the client", shown(found.filter_documents(own)))
    note("by ids", shown(found.get_documents_by_id(["document-1", "document-7", "nobody"])))


def duplicates_are_handled_by_policy(where, note):
    found = store(where)
    found.write_documents(all_documents()[:6])
    note.refused("fail", lambda: found.write_documents([document(1)], policy=DuplicatePolicy.FAIL))
    note("skip", found.write_documents([document(1, "not taken"), document(8)], policy=DuplicatePolicy.SKIP))
    note("after skipping", shown(found.filter_documents()))
    note("overwrite", found.write_documents([document(1, "taken"), document(9)], policy=DuplicatePolicy.OVERWRITE))
    note("after overwriting", shown(found.filter_documents()))
    note("without an embedding", found.write_documents([Document(id="bare", content="bare", meta={"row": 99})]))
    note("it is there", shown(found.filter_documents(comparison("row", "==", 99))))


def documents_are_changed_and_deleted(where, note):
    found = store(where)
    found.write_documents(all_documents())
    found.delete_documents(["document-0", "document-3", "nobody"])
    note("deleted", shown(found.filter_documents()))
    note("changed", found.update_by_filter(comparison("kind", "==", "tech"), {"kind": "changed", "new": [1, 2]}))
    note("after the change", shown(found.filter_documents()))
    note("deleted by filter", found.delete_by_filter(comparison("kind", "==", "changed")))
    note("what is left", shown(found.filter_documents()))
    found.delete_all_documents()
    note("none are left", found.count_documents())


def metadata_is_summed_up(where, note):
    found = store(where)
    found.write_documents(all_documents())
    note("smallest and largest", [found.get_metadata_field_min_max(f"meta.{field}") for field in ("row", "price")])
    note("how many", found.count_unique_metadata_by_filter(comparison("row", "<", 9), ["meta.kind", "meta.even"]))
    note("values", found.get_metadata_field_unique_values("meta.kind"))
    note("some values", found.get_metadata_field_unique_values("meta.row", from_=2, size=3, filters=FILTERS[0]))


def indexed_fields_are_known(client):
    # Local mode has no indexes to show.
    found = store({"url": address_of(client)}, payload_fields_to_index=[
        {"field_name": "meta.kind", "field_schema": "keyword"}, {"field_name": "meta.row", "field_schema": "integer"},
        {"field_name": "meta.price", "field_schema": "float"}])
    found.write_documents(all_documents())
    kinds = {field: info["type"] for field, info in found.get_metadata_fields_info().items()}
    assert {"kind", "row", "price"} <= {field.removeprefix("meta.") for field in kinds}, kinds
    assert set(client.get_collection(NAME).payload_schema) == {"meta.kind", "meta.row", "meta.price"}
    assert len(found.filter_documents(comparison("kind", "==", "cat"))) == 4


def embeddings_are_retrieved(where, note):
    for similarity in ("cosine", "dot_product", "l2"):
        found = store(where, similarity=similarity)
        found.write_documents(all_documents())
        retriever = QdrantEmbeddingRetriever(document_store=found, top_k=5)
        for query in QUERIES:
            vector = embed.dense(query)
            note.hits(f"{similarity} {query}", hits(retriever.run(vector)))
            note.hits(f"{similarity} filtered {query}", hits(retriever.run(vector, filters=FILTERS[0], return_embedding=True)))
            note.hits(f"{similarity} scaled {query}", hits(retriever.run(vector, top_k=3, scale_score=True)))
        note.hits(f"{similarity} threshold", hits(retriever.run(embed.dense(QUERIES[0]), score_threshold=0.3)))
        note(f"{similarity} groups", hits(retriever.run(embed.dense(QUERIES[0]), group_by="meta.kind", group_size=2)))


def sparse_embeddings_are_retrieved(where, note):
    for idf in (False, True):
        found = store(where, sparse=True, sparse_idf=idf)
        found.write_documents(all_documents(sparse=True))
        note(f"{idf} all", shown(found.filter_documents()))
        retriever = QdrantSparseEmbeddingRetriever(document_store=found, top_k=5)
        for query in QUERIES:
            note.hits(f"{idf} {query}", hits(retriever.run(sparse_of(query))))
            note.hits(f"{idf} filtered {query}", hits(retriever.run(sparse_of(query), filters=FILTERS[4], return_embedding=True)))
        note(f"{idf} groups", hits(retriever.run(sparse_of(QUERIES[1]), group_by="meta.kind", group_size=2)))
        dense = QdrantEmbeddingRetriever(document_store=found, top_k=5)
        note.hits(f"{idf} dense", hits(dense.run(embed.dense(QUERIES[0]))))


def hybrid_embeddings_are_retrieved(where, note):
    found = store(where, sparse=True)
    found.write_documents(all_documents(sparse=True))
    for more in ({}, {"rrf_k": 5}, {"rrf_weights": [0.3, 1.7]}):
        retriever = QdrantHybridRetriever(document_store=found, top_k=6, **more)
        for query in QUERIES:
            both = {"query_embedding": embed.dense(query), "query_sparse_embedding": sparse_of(query)}
            note.hits(f"{more} {query}", hits(retriever.run(**both)))
            note.hits(f"{more} filtered {query}", hits(retriever.run(**both, filters=FILTERS[13], score_threshold=0.1)))
    both = {"query_embedding": embed.dense(QUERIES[0]), "query_sparse_embedding": sparse_of(QUERIES[0])}
    retriever = QdrantHybridRetriever(document_store=found, rrf_weights=[0.3, 1.7])
    note("groups", hits(retriever.run(**both, group_by="meta.kind", group_size=1)))


def settings_are_taken(client):
    found = store({"url": address_of(client)}, on_disk=True, on_disk_payload=True, hnsw_config={"m": 24, "ef_construct": 120},
                  optimizers_config={"indexing_threshold": 5_000}, write_consistency_factor=2,
                  quantization_config={"scalar": {"type": "int8", "always_ram": True}})
    found.write_documents(all_documents())
    config = client.get_collection(NAME).config
    assert (config.hnsw_config.m, config.hnsw_config.ef_construct) == (24, 120), config
    assert config.params.vectors.on_disk and config.quantization_config.scalar.type == "int8", config
    found.delete_all_documents(recreate_index=False)
    assert found.count_documents() == 0


def opening_again_checks_the_collection(client):
    where = {"url": address_of(client)}
    store(where).write_documents(all_documents())
    again = QdrantDocumentStore(**where, index=NAME, embedding_dim=embed.DIM, progress_bar=False)
    assert again.count_documents() == len(embed.TEXTS)
    for wrong in ({"embedding_dim": 3}, {"similarity": "dot_product"}, {"use_sparse_embeddings": True}):
        other = QdrantDocumentStore(**where, index=NAME, **({"embedding_dim": embed.DIM} | wrong))
        try:
            other.count_documents()
        except Exception:  # of two kinds, by what is wrong
            continue
        raise AssertionError(f"{wrong} was taken")


def async_stores_live(where, note):
    async def life():
        found = store(where, sparse=True)
        note("written", await found.write_documents_async(all_documents(sparse=True)))
        note("count", await found.count_documents_async())
        note("filtered", shown(await found.filter_documents_async(FILTERS[0])))
        dense, words = embed.dense(QUERIES[0]), sparse_of(QUERIES[0])
        note.hits("dense", hits(await QdrantEmbeddingRetriever(document_store=found).run_async(dense)))
        note.hits("sparse", hits(await QdrantSparseEmbeddingRetriever(document_store=found).run_async(words)))
        note.hits("hybrid", hits(await QdrantHybridRetriever(document_store=found).run_async(dense, words)))
        note("changed", await found.update_by_filter_async(FILTERS[0], {"kind": "changed"}))
        note("deleted", await found.delete_by_filter_async(comparison("kind", "==", "changed")))
        await found.delete_documents_async(["document-1"])
        note("left", shown(await found.filter_documents_async()))
        await found.close_async()

    asyncio.run(life())


CHECKS = [twin(scenario) for scenario in (
    documents_are_written_and_filtered, duplicates_are_handled_by_policy, documents_are_changed_and_deleted,
    metadata_is_summed_up, embeddings_are_retrieved, sparse_embeddings_are_retrieved, hybrid_embeddings_are_retrieved,
    async_stores_live)] + [indexed_fields_are_known, settings_are_taken, opening_again_checks_the_collection]
