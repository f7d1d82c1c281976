"""langchain-qdrant, unmodified: a vector store's life in each retrieval mode, sync and async, compared with local mode."""

import asyncio
import functools
import uuid

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings
from langchain_qdrant.sparse_embeddings import SparseVector
from qdrant_client import models

import embed
from sample import PLACED, must
from twin import TIMEOUT_SECONDS, Notes, address_of

NAME = "langchain"
TEXTS = embed.TEXTS
IDS = [str(uuid.uuid5(uuid.NAMESPACE_URL, text)) for text in TEXTS]
METADATA = [{"row": row, "kind": "cat" if "at" in text.split()[0] else "tech", "deep": {"n": row % 3}}
            for row, text in enumerate(TEXTS)]
QUERIES = ["Who orders writes of the log?", "where do cats sleep at night", "near vectors in a graph"]


class Dense(Embeddings):
    def embed_documents(self, texts):
        return [embed.dense(text) for text in texts]

    def embed_query(self, text):
        return embed.dense(text)


class Sparse(SparseEmbeddings):
    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text):
        indices, values = embed.sparse(text)
        return SparseVector(indices=indices, values=values)


def settings(where, **more):
    return {"embedding": Dense(), "collection_name": NAME, "collection_create_options": dict(PLACED),
            "force_recreate": True} | where | more


def store(where, mode=RetrievalMode.DENSE, **more):
    sparse = {} if mode == RetrievalMode.DENSE else {"sparse_embedding": Sparse()}
    return QdrantVectorStore.from_texts(
        TEXTS, metadatas=[dict(metadata) for metadata in METADATA], ids=IDS, retrieval_mode=mode,
        **settings(where, **sparse, **more))


def twin(scenario):
    """The check that a scenario of how a store is reached sees the same on a server as in local mode."""

    @functools.wraps(scenario)
    def check(client):
        ours, theirs = Notes(), Notes()
        scenario({"location": ":memory:"}, theirs)
        scenario({"url": address_of(client), "timeout": TIMEOUT_SECONDS}, ours)
        return ours.agree(theirs)

    return check


def documents(found):
    return [{"text": document.page_content, "metadata": document.metadata} for document in found]


def scored(found):
    return [{"id": document.metadata["_id"], "score": score, "text": document.page_content, "metadata": document.metadata}
            for document, score in found]


def field(key, wanted):
    return models.FieldCondition(key=f"metadata.{key}", match=models.MatchValue(value=wanted))


def search_in_all_ways(found, note, label):
    tech = must(field("kind", "tech"), models.FieldCondition(key="metadata.row", range=models.Range(lt=8)))
    for query in QUERIES:
        note.hits(f"{label} {query}", scored(found.similarity_search_with_score(query, k=5)))
        note.hits(f"{label} filtered {query}", scored(found.similarity_search_with_score(query, k=5, filter=tech)))
        note.hits(f"{label} page {query}", scored(found.similarity_search_with_score(query, k=3, offset=1, score_threshold=0.01)))
    note(f"{label} documents", len(found.similarity_search(QUERIES[0], k=4)))


def dense_stores_live(where, note):
    found = store(where)
    search_in_all_ways(found, note, "dense")
    added = found.add_documents([Document(page_content="A dog barks at the leader.", metadata={"kind": "dog"})],
                                ids=["00000000-0000-0000-0000-0000000000aa"])
    note("added", added)
    note("by id", documents(found.get_by_ids(added + IDS[:1])[:1]))
    note.hits("after adding", scored(found.similarity_search_with_score("dog leader", k=3)))
    note("by vector", documents(found.similarity_search_by_vector(embed.dense(QUERIES[1]), k=3)))
    note.hits("by vector, scored", scored(found.similarity_search_with_score_by_vector(embed.dense(QUERIES[1]), k=3)))
    note.hits("relevance", scored(found.similarity_search_with_relevance_scores(QUERIES[0], k=3)))
    note("deleted", found.delete([*added, IDS[0]]))
    note.hits("after deleting", scored(found.similarity_search_with_score(QUERIES[0], k=20)))
    note("count", found.client.count(NAME))


def texts_come_without_ids_and_metadata(where, note):
    found = QdrantVectorStore.from_texts(TEXTS[:3], **settings(where))
    note("how many ids", [len(text_id) for text_id in found.add_texts(TEXTS[3:6], batch_size=2)])
    note("found", [document.page_content for document in found.similarity_search(TEXTS[4], k=3)])
    again = QdrantVectorStore.from_documents([Document(page_content=text) for text in TEXTS], **settings(where))
    note("count", again.client.count(NAME))


def texts_are_replaced(where, note):
    found = store(where)
    found.add_texts(["Something else entirely."], [{"row": -1}], ids=[IDS[2]])
    note("count", found.client.count(NAME))
    note.hits("found", scored(found.similarity_search_with_score("Something else entirely.", k=2)))


def results_are_diverse(where, note):
    found = store(where)
    for query in QUERIES:
        for mult in (0.0, 0.5, 0.9):
            diverse = found.max_marginal_relevance_search(query, k=4, fetch_k=9, lambda_mult=mult)
            note(f"{query} {mult}", documents(diverse))
    vector = embed.dense(QUERIES[2])
    note.hits("by vector", scored(found.max_marginal_relevance_search_with_score_by_vector(vector, k=3, fetch_k=8)))
    note("filtered", documents(found.max_marginal_relevance_search(QUERIES[0], k=3, filter=must(field("deep.n", 1)))))
    retriever = found.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 6})
    note("retriever", documents(retriever.invoke(QUERIES[1])))


def sparse_stores_live(where, note):
    found = store(where, RetrievalMode.SPARSE)
    search_in_all_ways(found, note, "sparse")
    note("deleted", found.delete([IDS[1]]))
    search_in_all_ways(found, note, "sparse after a delete")


def sparse_stores_with_idf_live(where, note):
    found = store(where, RetrievalMode.SPARSE, sparse_vector_params={"modifier": models.Modifier.IDF})
    search_in_all_ways(found, note, "idf")


def hybrid_stores_live(where, note):
    found = store(where, RetrievalMode.HYBRID)
    search_in_all_ways(found, note, "hybrid")
    dbsf = models.FusionQuery(fusion=models.Fusion.DBSF)
    note.hits("dbsf", scored(found.similarity_search_with_score(QUERIES[0], k=6, hybrid_fusion=dbsf)))
    found.add_texts(["The cat leads a raft group."], [{"kind": "cat"}], ids=[IDS[0]])
    search_in_all_ways(found, note, "hybrid after a change")


def vectors_and_keys_have_names(where, note):
    found = store(where, RetrievalMode.HYBRID, vector_name="dense", sparse_vector_name="words",
                  content_payload_key="content", metadata_payload_key="about")
    for query in QUERIES:
        note.hits(query, scored(found.similarity_search_with_score(query, k=5)))
    note("payload", found.client.retrieve(NAME, [IDS[3]], with_vectors=True))


def every_metric_is_taken(where, note):
    for distance in (models.Distance.DOT, models.Distance.EUCLID, models.Distance.COSINE):
        found = store(where, distance=distance)
        note.hits(f"{distance}", scored(found.similarity_search_with_score(QUERIES[0], k=12)))


def stores_are_opened_again(where, note):
    made = store(where, RetrievalMode.HYBRID)
    again = QdrantVectorStore(client=made.client, collection_name=NAME, embedding=Dense(), sparse_embedding=Sparse(),
                              retrieval_mode=RetrievalMode.HYBRID)
    note.hits("opened", scored(again.similarity_search_with_score(QUERIES[1], k=4)))
    again = QdrantVectorStore(client=made.client, collection_name=NAME, embedding=Dense())
    if "url" in where:
        again = QdrantVectorStore.from_existing_collection(NAME, embedding=Dense(), **where)
    note.hits("dense part", scored(again.similarity_search_with_score(QUERIES[1], k=1)))
    note.refused("a wrong metric", lambda: QdrantVectorStore(
        client=made.client, collection_name=NAME, embedding=Dense(), distance=models.Distance.DOT))
    note.refused("a wrong name", lambda: QdrantVectorStore(
        client=made.client, collection_name=NAME, embedding=Dense(), vector_name="other"))
    note.refused("nothing there", lambda: QdrantVectorStore(client=made.client, collection_name="nobody", embedding=Dense()))


def async_stores_live(where, note):
    async def life():
        found = await QdrantVectorStore.afrom_texts(
            TEXTS, metadatas=[dict(metadata) for metadata in METADATA], ids=IDS, retrieval_mode=RetrievalMode.HYBRID,
            **settings(where, sparse_embedding=Sparse()))
        note("added", await found.aadd_texts(["An asynchronous dog."], ids=["00000000-0000-0000-0000-0000000000bb"]))
        answers = [await found.asimilarity_search_with_score(query, k=4) for query in QUERIES]
        if "url" in where:
            answers = await asyncio.gather(*(found.asimilarity_search_with_score(query, k=4) for query in QUERIES))
        for query, answer in zip(QUERIES, answers):
            note.hits(query, scored(answer))
        note("mmr", documents(await found.amax_marginal_relevance_search(QUERIES[0], k=3, fetch_k=6)))
        note("by vector", documents(await found.asimilarity_search_by_vector(embed.dense(QUERIES[2]), k=2)))
        note("by id", documents(await found.aget_by_ids([IDS[5]])))
        note("deleted", await found.adelete(IDS[:4]))
        note("retriever", len(await found.as_retriever(search_kwargs={"k": 3}).ainvoke(QUERIES[0])))
        note("count", found.client.count(NAME))

    asyncio.run(life())


CHECKS = [twin(scenario) for scenario in (
    dense_stores_live, texts_come_without_ids_and_metadata, texts_are_replaced, results_are_diverse, sparse_stores_live,
    sparse_stores_with_idf_live, hybrid_stores_live, vectors_and_keys_have_names, every_metric_is_taken,
    stores_are_opened_again, async_stores_live)]
