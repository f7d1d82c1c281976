"""Points through the client: how they are written, changed, read and found by filters. All of it is compared with local mode."""

from datetime import datetime, timezone

import numpy as np
from qdrant_client import models

from sample import DIM, everything, field, filled, fresh, must, point_id, points, value, vector

NAME = "points"


def upserts_of_lists_columns_and_arrays(client, note):
    fresh(client, NAME)
    note("list", client.upsert(NAME, points(range(20))))
    note("columns", client.upsert(NAME, models.Batch(
        ids=[100, 101], vectors=[vector(100), vector(101)], payloads=[{"a": 1}, {}])))
    client.upload_points(NAME, points(range(20, 40)), batch_size=7, wait=True)
    client.upload_collection(NAME, np.array([vector(row) for row in range(200, 230)], dtype=np.float32),
                             payload=[{"row": row} for row in range(200, 230)], ids=list(range(200, 230)),
                             batch_size=8, wait=True)
    everything(client, note, NAME)
    note("a whole point is replaced", client.upsert(NAME, [models.PointStruct(id=1, vector=vector(300), payload={"b": 2})]))
    note("with its payload", client.retrieve(NAME, [1], with_vectors=True))
    note.refused("a wrong size", lambda: client.upsert(NAME, [models.PointStruct(id=1, vector=[1.0])]))
    everything(client, note, NAME, "after a refusal")


def upserts_by_mode_and_by_filter(client, note):
    fresh(client, NAME)
    client.upsert(NAME, points(range(10)))
    for mode in models.UpdateMode:
        note(f"mode {mode}", client.upsert(NAME, [
            models.PointStruct(id=3, vector=vector(f"{mode} 3"), payload={"mode": mode.value}),
            models.PointStruct(id=f"00000000-0000-0000-0000-0000000000{len(mode.value):02}", vector=vector(mode.value))],
            update_mode=mode))
        everything(client, note, NAME, f"after {mode}")
    note("only those with a colour", client.upsert(NAME, [
        models.PointStruct(id=row, vector=vector(500 + row), payload={"changed": True}) for row in (1, 2, 4, 5)],
        update_filter=must(value("colour", "green"))))
    everything(client, note, NAME, "after the filter")


def points_are_retrieved_with_what_is_selected(client, note):
    filled(client, NAME)
    ids = [point_id(row) for row in (5, 7, 8, 14)]
    selections = [True, False, ["colour", "deep.er"], models.PayloadSelectorInclude(include=["parts[].name", "row"]),
                  models.PayloadSelectorExclude(exclude=["parts", "place.lon", "text"])]
    for selected in selections:
        note.set(f"payload {selected}", client.retrieve(NAME, ids, with_payload=selected))
    note.set("vectors", client.retrieve(NAME, ids + [999_999], with_payload=False, with_vectors=True))
    note("none", client.retrieve(NAME, [999_999]))


def payloads_are_set_replaced_deleted_and_cleared(client, note):
    filled(client, NAME, range(30))
    green, some = must(value("colour", "green")), [1, 2, point_id(7)]
    steps = [
        ("set by ids", lambda: client.set_payload(NAME, {"new": [1, {"x": None}], "row": "changed"}, points=some)),
        ("set by filter", lambda: client.set_payload(NAME, {"seen": True}, points=green)),
        ("set by selector", lambda: client.set_payload(NAME, {"f": 1.5}, points=models.FilterSelector(filter=green))),
        ("set at a key", lambda: client.set_payload(NAME, {"er": {"level": 77}}, points=some, key="deep")),
        ("set at an array", lambda: client.set_payload(NAME, {"n": -1}, points=green, key="parts[0]")),
        ("set in all of an array", lambda: client.set_payload(NAME, {"extra": True}, points=green, key="parts[]")),
        ("replace", lambda: client.overwrite_payload(NAME, {"only": "this"}, points=[3, 4])),
        ("replace by filter", lambda: client.overwrite_payload(NAME, {"blue": True}, points=must(value("colour", "blue")))),
        ("delete keys", lambda: client.delete_payload(NAME, ["text", "deep.er.level", "parts[].name"], points=some)),
        ("delete keys by filter", lambda: client.delete_payload(NAME, ["price"], points=green)),
        ("clear", lambda: client.clear_payload(NAME, points_selector=[5, 6])),
        ("clear by filter", lambda: client.clear_payload(NAME, points_selector=models.FilterSelector(
            filter=must(value("even", True))))),
    ]
    for name, step in steps:
        note(name, step())
        everything(client, note, NAME, f"after: {name}")


def vectors_are_updated_and_deleted(client, note):
    named = {"a": models.VectorParams(size=DIM, distance=models.Distance.DOT),
             "b": models.VectorParams(size=3, distance=models.Distance.EUCLID)}
    filled(client, NAME, range(20), lambda row: {"a": vector(row), "b": vector(row, 3)}, vectors_config=named)
    note("update", client.update_vectors(NAME, [
        models.PointVectors(id=1, vector={"a": vector(101)}),
        models.PointVectors(id=point_id(7), vector={"a": vector(107), "b": vector(107, 3)})]))
    everything(client, note, NAME, "after the update")
    note("update by filter", client.update_vectors(
        NAME, [models.PointVectors(id=row, vector={"b": vector(200 + row, 3)}) for row in (1, 2, 3)],
        update_filter=must(value("even", True))))
    everything(client, note, NAME, "after the update by filter")
    note("delete by ids", client.delete_vectors(NAME, ["a"], points=[1, 2]))
    note("delete by filter", client.delete_vectors(NAME, ["b"], points=must(value("colour", "blue"))))
    everything(client, note, NAME, "after the deletes")
    hits = client.query_points(NAME, query=vector("q"), using="a", limit=30).points
    note.hits("those without the vector are no hits", hits)


def points_are_deleted(client, note):
    filled(client, NAME)
    note("by ids", client.delete(NAME, [1, point_id(7), 888]))
    everything(client, note, NAME, "after ids")
    note("by list", client.delete(NAME, models.PointIdsList(points=[2, 3])))
    note("by filter", client.delete(NAME, must(value("colour", "red"))))
    note("by selector", client.delete(NAME, models.FilterSelector(filter=must(field("row", range=models.Range(gte=40))))))
    everything(client, note, NAME, "after filters")
    note("what is left", client.count(NAME))


def batches_keep_their_order(client, note):
    named = {"a": models.VectorParams(size=DIM, distance=models.Distance.COSINE),
             "b": models.VectorParams(size=2, distance=models.Distance.DOT)}
    filled(client, NAME, range(10), lambda row: {"a": vector(row), "b": vector(row, 2)}, vectors_config=named)
    green = must(value("colour", "green"))
    note("all operations", client.batch_update_points(NAME, [
        models.UpsertOperation(upsert=models.PointsList(points=[
            models.PointStruct(id=1, vector={"a": vector(301)}, payload={"v": 1}),
            models.PointStruct(id=50, vector={"b": vector(50, 2)}, payload={"v": 1})])),
        models.SetPayloadOperation(set_payload=models.SetPayload(payload={"v": 2, "w": 2}, points=[1])),
        models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload={"o": 3}, points=[1, 2])),
        models.SetPayloadOperation(set_payload=models.SetPayload(payload={"x": 4}, points=[1], key="deep")),
        models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["text"], filter=green)),
        models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[3])),
        models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(
            points=[models.PointVectors(id=50, vector={"a": vector(350)})])),
        models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(vector=["b"], points=[1, 50])),
        models.DeleteOperation(delete=models.PointIdsList(points=[4])),
        models.UpsertOperation(upsert=models.PointsBatch(batch=models.Batch(
            ids=[4], vectors={"b": [[1.0, 2.0]]}, payloads=[{"back": True}]))),
        models.DeleteOperation(delete=models.FilterSelector(filter=must(value("row", 8)))),
    ], ordering=models.WriteOrdering.STRONG))
    everything(client, note, NAME)


def scrolling_goes_through_all_pages(client, note):
    filled(client, NAME)
    for wanted in (None, must(value("even", True))):
        offset = None
        while True:
            page, offset = client.scroll(NAME, scroll_filter=wanted, limit=11, offset=offset, with_payload=["row"])
            note(f"page with {wanted} up to {offset}", page)
            if offset is None:
                break


def scrolling_follows_a_field(client, note):
    filled(client, NAME)
    for key, kind in (("price", "float"), ("row", "integer"), ("at", "datetime")):
        client.create_payload_index(NAME, key, field_schema=kind, wait=True)
    by = models.OrderBy
    orders = ["price", by(key="price", direction=models.Direction.DESC), by(key="row", direction="desc", start_from=31),
              by(key="price", start_from=40.5), by(key="at"),
              by(key="at", direction="desc", start_from=datetime(2024, 6, 1, tzinfo=timezone.utc))]
    for order in orders:
        page, after = client.scroll(NAME, order_by=order, limit=100, with_payload=["price"])
        note(f"by {order}", [after, [plain.order_value for plain in page], sorted((str(p.id), p.payload) for p in page)])
        # The values have no ties but those of `at`.
        page, _ = client.scroll(NAME, order_by=order, limit=7, scroll_filter=must(value("even", True)))
        note(f"a page by {order}", [plain.order_value for plain in page])


def points_are_counted(client, note):
    filled(client, NAME)
    for wanted in (None, must(value("colour", "red")), must(value("colour", "none of them"))):
        note(f"exact {wanted}", client.count(NAME, count_filter=wanted, exact=True))
    note("about", client.count(NAME, exact=False))


def facets_count_values(client, note):
    filled(client, NAME)
    for key, kind in (("colour", "keyword"), ("tags", "keyword"), ("deep.er.level", "integer"), ("even", "bool"),
                      ("uuid", "uuid")):
        client.create_payload_index(NAME, key, field_schema=kind, wait=True)
        for exact in (True, False):
            note(f"{key} {exact}", client.facet(NAME, key, exact=exact))
        note(f"the first of {key}", client.facet(NAME, key, limit=2, exact=True))
        note(f"{key} with a filter", client.facet(NAME, key, facet_filter=must(
            field("price", range=models.Range(lt=50))), exact=True))


def conditions():
    """A filter for each condition there is."""
    match = models
    near = models.GeoPoint(lon=0.0, lat=45.0)
    corners = [models.GeoPoint(lon=lon, lat=lat) for lon, lat in ((-15, 35), (15, 35), (0, 58), (-15, 35))]
    hole = [models.GeoPoint(lon=lon, lat=lat) for lon, lat in ((-2, 38), (2, 38), (0, 45), (-2, 38))]
    red, even = value("colour", "red"), value("even", True)
    return {
        "match a word": must(red), "match a number": must(value("row", 12)), "match a boolean": must(even),
        "match a key path": must(value("deep.er.level", 3)), "match in an array": must(value("tags", "a")),
        "match a uuid": must(value("uuid", "00000000-0000-0000-0000-000000000003")),
        "any": must(field("colour", match=match.MatchAny(any=["red", "blue"]))),
        "any number": must(field("deep.er.level", match=match.MatchAny(any=[0, 4]))),
        "except": must(field("colour", match=match.MatchExcept(**{"except": ["red"]}))),
        "text": must(field("text", match=match.MatchText(text="shard near"))),
        "text in any case": must(field("text", match=match.MatchText(text="fox"))),
        "any text": must(field("text", match=match.MatchTextAny(text_any="quick leader"))),
        "phrase": must(field("text", match=match.MatchPhrase(phrase="near far"))),
        "prefix": must(field("colour", match=match.MatchPrefix(prefix="light"))),
        "range": must(field("price", range=models.Range(gt=20, lte=60.5))),
        "dates": must(field("at", range=models.DatetimeRange(gte=datetime(2024, 3, 1, tzinfo=timezone.utc),
                                                             lt=datetime(2024, 7, 2, 12, tzinfo=timezone.utc)))),
        "box": must(field("place", geo_bounding_box=models.GeoBoundingBox(
            top_left=models.GeoPoint(lon=-10, lat=55), bottom_right=models.GeoPoint(lon=8, lat=35)))),
        "radius": must(field("place", geo_radius=models.GeoRadius(center=near, radius=900_000))),
        "polygon": must(field("place", geo_polygon=models.GeoPolygon(
            exterior=models.GeoLineString(points=corners), interiors=[models.GeoLineString(points=hole)]))),
        "values count": must(field("tags", values_count=models.ValuesCount(gte=2, lt=4))),
        "is empty": must(models.IsEmptyCondition(is_empty=models.PayloadField(key="maybe"))),
        "empty array": must(models.IsEmptyCondition(is_empty=models.PayloadField(key="tags"))),
        "is null": must(models.IsNullCondition(is_null=models.PayloadField(key="maybe"))),
        "has id": must(models.HasIdCondition(has_id=[1, 5, point_id(7), 777])),
        "has the vector": must(models.HasVectorCondition(has_vector="")),
        "nested": must(models.NestedCondition(nested=models.Nested(key="parts", filter=must(
            value("name", "x"), field("n", range=models.Range(gte=2)))))),
        "key of an array": must(value("parts[].name", "y")),
        "should": models.Filter(should=[red, value("row", 2)]), "must not": models.Filter(must_not=[red, even]),
        "min should": models.Filter(min_should=models.MinShould(conditions=[red, even, value("tags", "b")], min_count=2)),
        "all clauses": models.Filter(must=[even], should=[red, value("tags", "c")], must_not=[value("row", 0)]),
        "filter in a filter": must(models.Filter(should=[models.Filter(must=[red, even]), value("row", 1)])),
        "slice": must(models.SliceCondition(slice=models.Slice(total=3, index=1))),
    }


TEXT = models.TextIndexParams(type="text", tokenizer=models.TokenizerType.WORD, lowercase=True, phrase_matching=True)
INDEXES = {"colour": "keyword", "row": "integer", "price": "float", "even": "bool", "tags": "keyword", "text": TEXT,
           "at": "datetime", "place": "geo", "uuid": "uuid", "deep.er.level": "integer", "maybe": "keyword",
           "parts[].name": "keyword", "parts[].n": "integer"}


def select_with_each_condition(client, note):
    for name, condition in conditions().items():
        note(name, lambda: [client.count(NAME, count_filter=condition, exact=True).count,
                            [point.id for point in client.scroll(NAME, scroll_filter=condition, limit=100)[0]]])
        note.hits(f"search with {name}", lambda: client.query_points(
            NAME, query=vector("q"), query_filter=condition, limit=50, with_payload=False).points)


def filters_select_without_an_index(client, note):
    filled(client, NAME)
    select_with_each_condition(client, note)


def filters_select_with_indexes(client, note):
    fresh(client, NAME)
    for key, kind in INDEXES.items():
        note(f"index of {key}", lambda: client.create_payload_index(NAME, key, field_schema=kind, wait=True))
    client.upsert(NAME, points())
    select_with_each_condition(client, note)
    for key in INDEXES:
        note(f"no index of {key}", client.delete_payload_index(NAME, key))
    note("text without its index", lambda: client.count(NAME, count_filter=conditions()["text"]))


def waits_orderings_timeouts_and_consistencies_are_taken(client, note):
    filled(client, NAME, range(20))
    for ordering in models.WriteOrdering:
        note(f"ordering {ordering}", client.set_payload(NAME, {"by": ordering.value}, points=[1], ordering=ordering, timeout=20))
    client.upsert(NAME, points(range(20, 30)), wait=False)
    for consistency in (1, 2, *models.ReadConsistencyType):
        note(f"consistency {consistency}", [
            client.retrieve(NAME, [1, 25], with_payload=["by"], consistency=consistency, timeout=20),
            client.scroll(NAME, limit=50, with_payload=False, consistency=consistency),
            client.query_points(NAME, query=vector("q"), consistency=consistency, timeout=20)])
    note("count", client.count(NAME, timeout=20))


def many_calls_at_once(client, note):
    filled(client, NAME)
    writes = [("upsert", (NAME, points(range(100 + 10 * part, 110 + 10 * part))), {}) for part in range(8)]
    note("writes", client.gather(writes))
    reads = [("query_points", (NAME,), {"query": vector(f"q{n}"), "limit": 5}) for n in range(16)]
    for n, answer in enumerate(client.gather(reads)):
        note.hits(f"read {n}", answer.points)
    everything(client, note, NAME)


TWINS = [
    upserts_of_lists_columns_and_arrays, upserts_by_mode_and_by_filter, points_are_retrieved_with_what_is_selected,
    payloads_are_set_replaced_deleted_and_cleared, vectors_are_updated_and_deleted, points_are_deleted,
    batches_keep_their_order, scrolling_goes_through_all_pages, scrolling_follows_a_field, points_are_counted,
    facets_count_values, filters_select_without_an_index, filters_select_with_indexes,
    waits_orderings_timeouts_and_consistencies_are_taken, many_calls_at_once,
]
