"""llama-index-vector-stores-qdrant, unmodified: a store's life, dense and hybrid, sync and async, against local mode."""

import asyncio
import functools
import uuid

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition, FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery, VectorStoreQueryMode,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, QdrantClient, models

import embed
from twin import TIMEOUT_SECONDS, Notes, address_of

NAME = "llama-index"
QUERIES = ["Who orders writes of the log?", "where do cats sleep at night", "near vectors in a graph"]
IDS = [str(uuid.uuid5(uuid.NAMESPACE_URL, text)) for text in embed.TEXTS]


def twin(scenario):
    """The check that a scenario sees the same on a server as in local mode. It is told how a client is made."""

    @functools.wraps(scenario)
    def check(client):
        ours, theirs = Notes(), Notes()
        scenario({"location": ":memory:"}, theirs)
        client.delete_collection(NAME)
        scenario({"url": address_of(client), "timeout": TIMEOUT_SECONDS}, ours)
        return ours.agree(theirs)

    return check


def node(row, text=None):
    text = text or embed.TEXTS[row]
    return TextNode(
        id_=IDS[row], text=text, embedding=embed.dense(text),
        metadata={"row": row, "price": row * 1.5, "kind": ["cat", "tech", "other"][row % 3], "title": text.split(" ", 3)[-1],
                  "labels": [f"l{row % 4}", f"l{row % 5}"]} | ({"maybe": "here"} if row % 4 == 0 else {}),
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"document-{row % 4}")})


def nodes():
    return [node(row) for row in range(len(embed.TEXTS))]


def encode(texts):
    pairs = [embed.sparse(text) for text in texts]
    return [indices for indices, _ in pairs], [values for _, values in pairs]


def opened(client, **more):
    return QdrantVectorStore(NAME, client=client, batch_size=5, **({"shard_number": 3, "replication_factor": 2} | more))


def hybrid(client=None, **more):
    return QdrantVectorStore(NAME, client=client, enable_hybrid=True, sparse_doc_fn=encode, sparse_query_fn=encode,
                             shard_number=3, replication_factor=2, **more)


def hits(result):
    return [{"id": node_id, "score": score, "text": found.get_content(), "metadata": found.metadata, "source": found.ref_doc_id}
            for node_id, score, found in zip(result.ids, result.similarities, result.nodes)]


def by_id(found):
    return sorted([{"id": node.node_id, "text": node.get_content(), "metadata": node.metadata, "embedding": node.embedding}
                   for node in found], key=lambda node: node["id"])


def ask(text, mode=VectorStoreQueryMode.DEFAULT, k=4, **more):
    return VectorStoreQuery(query_embedding=embed.dense(text), query_str=text, similarity_top_k=k, mode=mode, **more)


def one(key, value, operator=FilterOperator.EQ):
    return MetadataFilter(key=key, value=value, operator=operator)


def filters():
    op = FilterOperator
    single = [one("kind", "cat"), one("row", 3), one("price", 4.5), one("kind", "cat", op.NE), one("row", 4, op.GT),
              one("row", 4, op.GTE), one("price", 6.0, op.LT), one("price", 6.0, op.LTE), one("kind", ["cat", "other"], op.IN),
              one("kind", ["cat", "other"], op.NIN), one("labels", ["l1", "l2"], op.IN), one("title", "leader", op.TEXT_MATCH),
              one("maybe", None, op.IS_EMPTY)]
    made = {f"{item.key} {item.operator.value} {item.value}": MetadataFilters(filters=[item]) for item in single}
    both = [one("kind", "tech"), one("row", 7, op.LT)]
    made |= {f"{condition.value}": MetadataFilters(filters=both, condition=condition) for condition in FilterCondition}
    made["nested"] = MetadataFilters(filters=[one("price", 1.0, op.GT), MetadataFilters(
        filters=[one("kind", "cat"), one("row", 10)], condition=FilterCondition.OR)])
    return made


def nodes_are_added_found_and_deleted(where, note):
    store = opened(QdrantClient(**where))
    note("added", store.add(nodes()))
    for query in QUERIES:
        note.hits(query, hits(store.query(ask(query))))
        note.hits(f"some {query}", hits(store.query(ask(query, node_ids=IDS[:5]))))
        note.hits(f"of documents {query}", hits(store.query(ask(query, doc_ids=["document-1", "document-2"]))))
    store.add([node(3, "Something new is written here.")])
    note.hits("replaced", hits(store.query(ask("Something new", k=2))))
    store.delete("document-1")
    note("after deleting a document", by_id(store.get_nodes()))
    store.delete_nodes(node_ids=IDS[2:5])
    note("after deleting nodes", by_id(store.get_nodes()))
    store.delete_nodes(filters=MetadataFilters(filters=[one("kind", "other")]))
    note("after deleting by filter", by_id(store.get_nodes()))
    store.clear()
    note("cleared", store.client.collection_exists(NAME))
    store.add(nodes()[:2])
    note("added again", by_id(store.get_nodes()))


def every_filter_selects(where, note):
    store = opened(QdrantClient(**where), payload_indexes=[
        {"field_name": "kind", "field_schema": models.PayloadSchemaType.KEYWORD},
        {"field_name": "row", "field_schema": models.PayloadSchemaType.INTEGER}])
    store.add(nodes())
    for name, wanted in filters().items():
        note.hits(f"query {name}", hits(store.query(ask(QUERIES[0], k=12, filters=wanted))))
        note(f"nodes {name}", by_id(store.get_nodes(filters=wanted)))
    note("nodes of ids", by_id(store.get_nodes(node_ids=IDS[:3])))
    note("a few", len(store.get_nodes(limit=5)))
    own = models.Filter(must_not=[models.FieldCondition(key="row", range=models.Range(gte=4))])
    note.hits("a filter of the client", hits(store.query(ask(QUERIES[1], k=12), qdrant_filters=own)))


def hybrid_stores_live(where, note):
    store = hybrid(QdrantClient(**where))
    note("added", store.add(nodes()))
    for query in QUERIES:
        for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.HYBRID):
            note.hits(f"{mode.value} {query}", hits(store.query(ask(query, mode, sparse_top_k=6))))
        note.hits(f"weighted {query}", hits(store.query(ask(query, VectorStoreQueryMode.HYBRID, alpha=0.2, hybrid_top_k=3))))
        wanted = MetadataFilters(filters=[one("kind", "tech")])
        note.hits(f"filtered {query}", hits(store.query(ask(query, VectorStoreQueryMode.HYBRID, filters=wanted))))
    store.delete("document-2")
    note.hits("after a delete", hits(store.query(ask(QUERIES[0], VectorStoreQueryMode.HYBRID, k=12))))
    note("nodes", by_id(store.get_nodes()))


def hybrid_stores_with_idf_live(where, note):
    store = hybrid(QdrantClient(**where), sparse_config=models.SparseVectorParams(modifier=models.Modifier.IDF))
    store.add(nodes())
    for query in QUERIES:
        note.hits(query, hits(store.query(ask(query, VectorStoreQueryMode.SPARSE, k=12))))


def stores_are_opened_again(where, note):
    client = QdrantClient(**where)
    hybrid(client).add(nodes())
    again = hybrid(client)
    note.hits("hybrid", hits(again.query(ask(QUERIES[2], VectorStoreQueryMode.HYBRID))))
    again.add([node(0, "A changed text.")])
    note("count", client.count(NAME))


def quantized_stores_live(where, note):
    scalar = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type="int8", always_ram=True))
    store = opened(QdrantClient(**where), quantization_config=scalar)
    store.add(nodes())
    exact = {"exact": True}
    note.hits("exact", hits(store.query(ask(QUERIES[0], k=12), search_params=exact)))


def async_stores_live(where, note):
    async def life():
        aclient = AsyncQdrantClient(**where)
        store = hybrid(None, aclient=aclient)
        note("added", await store.async_add(nodes()))
        for query in QUERIES:
            for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.HYBRID):
                note.hits(f"{mode.value} {query}", hits(await store.aquery(ask(query, mode))))
        wanted = MetadataFilters(filters=[one("kind", ["cat", "tech"], FilterOperator.IN), one("row", 2, FilterOperator.GT)])
        note("nodes", by_id(await store.aget_nodes(filters=wanted)))
        await store.adelete("document-3")
        await store.adelete_nodes(node_ids=IDS[:2])
        note("left", by_id(await store.aget_nodes()))
        await store.aclear()
        note("cleared", await aclient.collection_exists(NAME))
        await aclient.close()

    asyncio.run(life())


CHECKS = [twin(scenario) for scenario in (
    nodes_are_added_found_and_deleted, every_filter_selects, hybrid_stores_live, hybrid_stores_with_idf_live,
    stores_are_opened_again, quantized_stores_live, async_stores_live)]
