"""Random reads: pages, counts, facets and queries of every kind."""

from qdrant_client import models

from random_work import ALL, DENSE, MULTI, SPARSE, Work


class Reads(Work):
    """All operations, reads among them."""

    def operation(self):
        dice = self.random.random()
        return self.upsert() if dice < 0.15 else self.change() if dice < 0.35 else self.read()

    def read(self):
        r = self.random
        return self.choose([
            (None, lambda: ("retrieve", dict(ids=sorted(set(self.ids()), key=str), with_payload=True, with_vectors=True))),
            (None, lambda: ("scroll", dict(
                scroll_filter=self.maybe_filter(), limit=r.randint(1, 20), with_payload=True,
                with_vectors=r.random() < 0.3, offset=self.id() if r.random() < 0.3 else None))),
            (None, lambda: ("count", dict(count_filter=self.maybe_filter(), exact=True))),
            (None, self.fused),
            (None, self.rescored),
            *[(None, self.nearest)] * 2,
            ("best_score", lambda: self.plain_query(self.recommendation(
                r.choice([models.RecommendStrategy.BEST_SCORE, models.RecommendStrategy.SUM_SCORES])))),
            ("discover", lambda: self.plain_query(lambda name: models.DiscoverQuery(
                discover=models.DiscoverInput(target=self.example(name), context=self.pairs(name, r.randrange(3)))))),
            # Many points have the same score: which of them come first is open, so there is no second page.
            ("context", lambda: self.plain_query(
                lambda name: models.ContextQuery(context=self.pairs(name, r.randint(1, 2))), page=False)),
            ("feedback", lambda: self.plain_query(self.feedback, names=sorted(DENSE))),
            ("mmr", lambda: self.plain_query(lambda name: models.NearestQuery(nearest=self.example(name), mmr=models.Mmr(
                diversity=r.choice([None, 0.0, 0.3, 0.8]), candidates_limit=r.choice([None, 20]))),
                # Not of Manhattan distances in two dimensions: they have ties.
                names=[name for name in self.names if name != "d"])),
            ("order_by", lambda: ("scroll", dict(order_by=self.order(), scroll_filter=self.maybe_filter(),
                                                 limit=r.randint(1, 20), with_payload=r.random() < 0.3))),
            ("no_query", lambda: ("query_points", dict(query_filter=self.maybe_filter(), limit=r.randint(1, 9),
                                                       offset=r.randrange(3)))),
            ("facet", lambda: ("facet", dict(
                key=r.choice("fi"), facet_filter=self.maybe_filter(), limit=r.randint(1, 6), exact=True))),
            ("groups", self.groups),
            ("formula", self.formula),
            ("matrix", lambda: ("search_matrix_pairs", dict(
                using=r.choice(self.names), query_filter=self.maybe_must(), sample=ALL, limit=r.randint(1, 4)))),
            ("query_batch", lambda: ("query_batch_points", dict(requests=[self.request() for _ in range(r.randint(1, 3))]))),
        ])

    # Parts of queries

    def example(self, name):
        return self.vector(name) if self.chance(0.7) else self.id()

    def recommendation(self, strategy):
        def make(name):
            examples = [[self.example(name) for _ in range(self.random.randint(least, 2))] for least in (1, 0)]
            return models.RecommendQuery(recommend=models.RecommendInput(
                positive=examples[0], negative=examples[1], strategy=strategy))

        return make

    def pairs(self, name, count):
        return [models.ContextPair(positive=self.example(name), negative=self.example(name)) for _ in range(count)]

    def feedback(self, name):
        scores = self.random.sample(range(100), 3)
        items = [models.FeedbackItem(example=self.example(name), score=score / 100) for score in scores]
        naive = models.NaiveFeedbackStrategyParams(a=0.6, b=0.8, c=0.5)
        return models.RelevanceFeedbackQuery(relevance_feedback=models.RelevanceFeedbackInput(
            target=self.example(name), feedback=items, strategy=models.NaiveFeedbackStrategy(naive=naive)))

    def query(self, name):
        """A vector, an id, or examples."""
        return self.example(name) if self.chance(0.7) else self.recommendation(None)(name)

    def prefetch(self, depth):
        name = self.random.choice(self.names)
        below = [self.prefetch(depth - 1)] if depth and self.chance(0.4) else None
        return models.Prefetch(query=self.query(name), using=name, prefetch=below, limit=self.random.randint(5, 30),
                               filter=self.maybe_must())

    # Whole queries

    def plain_query(self, make, page=True, names=None):
        name = self.random.choice(names or self.names)
        # Sparse vectors that share nothing with the examples have the same score.
        page = page and name != SPARSE
        return "query_points", dict(query=make(name), using=name, limit=self.random.randint(1, 15),
                                    query_filter=self.maybe_filter(), with_payload=self.chance(0.3),
                                    offset=self.random.choice([None, None, 2]) if page else None)

    def nearest(self):
        call, query = self.plain_query(self.query)
        return call, query | dict(score_threshold=self.random.uniform(-1, 2) if self.chance(0.2) else None)

    def request(self):
        query = self.nearest()[1]
        return models.QueryRequest(filter=query.pop("query_filter"), **query)

    def rescored(self):
        name = self.random.choice(self.names)
        return "query_points", dict(query=self.query(name), using=name, prefetch=self.prefetch(1),
                                    limit=self.random.randint(1, 15), query_filter=self.maybe_must())

    def fused(self):
        r = self.random
        if r.random() < 0.5:
            query = models.FusionQuery(fusion=r.choice(list(models.Fusion)))
        else:
            weights = [r.randrange(4), 1.5] if r.random() < 0.5 else None
            query = models.RrfQuery(rrf=models.Rrf(k=r.choice([None, 1, 60]), weights=weights))
        return "query_points", dict(query=query, prefetch=[self.prefetch(1), self.prefetch(1)], limit=r.randint(1, 15),
                                    query_filter=self.maybe_must(), offset=r.choice([None, 1]), with_payload=r.random() < 0.3)

    def groups(self):
        name = self.random.choice([name for name in self.names if name not in (SPARSE, MULTI)])
        return "query_points_groups", dict(
            query=self.query(name), using=name, group_by=self.random.choice("fi"), limit=self.random.randint(1, 4),
            group_size=self.random.randint(1, 3), query_filter=self.maybe_filter(), with_payload=self.chance(0.3))

    def order(self):
        key = self.random.choice("irw")
        start = {"i": self.random.randrange(9), "r": 3.5, "w": "2024-05-10T00:00:00Z"}[key] if self.chance(0.4) else None
        return models.OrderBy(key=key, direction=self.random.choice([None, *models.Direction]), start_from=start)

    def expression(self, depth=2):
        """A number for each point: of what is missing the defaults of `formula` are taken."""
        def inner():
            return self.expression(depth - 1)

        leaves = [lambda: "$score", lambda: "$score[1]", lambda: "r", lambda: round(self.random.uniform(-3, 3), 2),
                  lambda: self.condition(0)]
        if depth == 0:
            return self.random.choice(leaves)()
        decay = models.DecayParamsExpression(x="r", target=4.0, scale=20.0, midpoint=0.3)
        far = models.GeoDistance(geo_distance=models.GeoDistanceParams(origin=models.GeoPoint(lon=1, lat=45), to="g"))
        return self.random.choice(leaves + [
            lambda: models.SumExpression(sum=[inner(), inner()]),
            lambda: models.MultExpression(mult=[inner(), inner()]),
            lambda: models.NegExpression(neg=inner()),
            lambda: models.SqrtExpression(sqrt=models.AbsExpression(abs=inner())),
            lambda: models.DivExpression(div=models.DivParams(left=inner(), right="r", by_zero_default=0.5)),
            lambda: models.LinDecayExpression(lin_decay=decay), lambda: models.ExpDecayExpression(exp_decay=decay),
            lambda: models.GaussDecayExpression(gauss_decay=decay),
            lambda: models.DivExpression(div=models.DivParams(left=far, right=1_000.0)),
        ])()

    def formula(self):
        query = models.FormulaQuery(formula=self.expression(), defaults={
            "$score": 0.1, "$score[1]": -0.2, "r": 1.5, "g": {"lon": 2.0, "lat": 40.0}})
        return "query_points", dict(query=query, prefetch=[self.prefetch(0), self.prefetch(0)],
                                    limit=self.random.randint(1, 15), with_payload=self.chance(0.3))
