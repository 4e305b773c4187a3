"""How alike two vectors are: each file one similarity, a frozen dataclass with a `name` and

    measure(vectors, texts) -> Similarities     one number for each depth and each pair texts.a[i], texts.b[i]
    refuse(texts) -> StatisticsError | None     optional: why it cannot be, known before any weight is read

The pairs may be any, whole matrices of words among them. pairwise.py: how pairs are gone through; vocabulary.py: whose
mean, spread or neighbours a similarity takes.
"""
