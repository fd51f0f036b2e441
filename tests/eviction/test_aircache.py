"""AirCache: the worked examples, its options, and a reference in plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from lightkv.catalogue import compressor, method
from lightkv.contract.attention_sources import GivenAttention
from lightkv.contract.layout import TokenKind
from lightkv.contract.view import LayerView
from lightkv.errors import InvalidValueError
from lightkv.eviction.methods.aircache import EliteText, StrengthSkewness
from tests.closeness import SINGLE, assert_close
from tests.eviction.prompts import FACTS, Rows, layer_of


def decide(budget, strengths, nominal, lengths):
    """Entries of one prompt; one nominal number and one length for all layers, or one each."""
    layers = len(strengths)
    nominal = torch.as_tensor(nominal, dtype=torch.float64).expand(layers)[None]
    lengths = torch.as_tensor(lengths).expand(layers)[None]
    floors = torch.zeros_like(lengths)
    return budget.decide([s[None] for s in strengths], nominal, lengths, floors, True)


def two_heads() -> LayerView:
    """One image token and three text tokens; the last rows of two heads are of the example."""
    rows = torch.eye(4).repeat(2, 1, 1)
    rows[0, 3] = torch.tensor([0.90, 0.08, 0.01, 0.01])
    rows[1, 3] = torch.tensor([0.10, 0.10, 0.70, 0.10])
    return layer_of("vttt", rows)


def marked(mask):
    return mask.nonzero()[:, 0].tolist()


def test_heads_choose_the_elite_among_text_tokens_alone():
    # Shares among text: (.8, .1, .1) and (.111, .778, .111); mean .456, .439, .106.
    assert marked(EliteText(0.9).elite(two_heads())[0, 0]) == [1, 2]
    # A head that looks at text more than the other would decide alone without the softmax.
    assert marked(EliteText(0.97).elite(two_heads())[0, 0]) == [1]


def test_every_head_may_have_an_elite_of_its_own():
    elite = EliteText(0.9, elite_per_head=True).elite(two_heads())
    assert [marked(head) for head in elite[0]] == [[1], [2]]


def test_elite_text_example():
    # Text 0..3 of which 1 and 2 are the elite; their rows over vision are renormalised.
    view_rows = torch.zeros(8, 8)
    scale = 2.0  # whatever else the rows attend to must cancel
    for query, row in ((5, [0.30, 0.10, 0.20, 0.05]), (6, [0.20, 0.10, 0.40, 0.05])):
        view_rows[query, :4] = torch.tensor(row) / scale
        view_rows[query, 5] = (1 - sum(row)) / scale
        view_rows[query, 4] = 1 - 1 / scale
    view_rows[7, 4:8] = torch.tensor([0.05, 0.40, 0.38, 0.17])
    view = layer_of("vvvvtttt", view_rows)
    ranking = EliteText(0.9)
    assert ranking.elite(view)[0, 0].nonzero()[:, 0].tolist() == [5, 6]
    score = ranking.score(view)[0]
    assert_close(score[:4], torch.tensor([0.25, 0.10, 0.30, 0.05]))
    assert (score[4:] == 0).all()


def aircache_views():
    scores = [[0.25, 0.10, 0.31, 0.04], [0.03, 0.02, 0.01, 0.24]]
    view = layer_of("vvvvt", torch.eye(5))
    return view, [torch.tensor([[*score, 9.0]]) for score in scores]


def test_aircache_example():
    view, scores = aircache_views()
    budget = StrengthSkewness()
    claims = [budget.strength(view, score)[0] for score in scores]
    assert_close(claims[0], torch.tensor([0.70, 0.0]), 1e-3)
    assert_close(claims[1], torch.tensor([0.30, 1.967]), 1e-3)
    assert decide(budget, claims, 2.0, 4).entries.tolist() == [[1, 3]]


def test_without_skewness_anywhere_strength_decides_over_equal_halves():
    claims = [torch.tensor([0.6, 0.0]), torch.tensor([0.2, 0.0])]
    assert decide(StrengthSkewness(), claims, 8.0, 100).entries.tolist() == [[10, 6]]


@pytest.mark.parametrize("text", ["vt", "vvt"])
def test_skewness_of_fewer_than_three_vision_tokens_is_zero(text):
    view = layer_of(text, torch.eye(len(text)))
    score = torch.arange(len(text)).float()[None] + 1
    assert float(StrengthSkewness().strength(view, score)[0, 1]) == 0


def test_the_total_is_met_where_layers_differ_in_length():
    claims = [torch.tensor([1.0, 1.0]), torch.tensor([3.0, 1.0])]
    made = decide(StrengthSkewness(), claims, [100.0, 50.0], [400, 200])
    # Factors .75 and 1.25 of 100 and 50 entries are 75 and 62.5, scaled to the total of 150.
    assert made.entries.tolist() == [[82, 68]]
    assert float(made.requested.sum()) == pytest.approx(150)


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, [0.0, 2.0]),
        ({"negative_skewness": "absolute"}, [0.5, 1.5]),
        ({"negative_skewness": "shift"}, [0.0, 2.0]),
        ({"normalisation": "minmax"}, [0.0, 2.0]),
        ({"normalisation": "softmax"}, [2 / (1 + np.e**3), 2 / (1 + np.e**-3)]),
        (
            {"normalisation": "softmax", "negative_skewness": "absolute"},
            [2 / (1 + np.e**2), 2 / (1 + np.e**-2)],
        ),
    ],
)
def test_negative_skewness_and_normalisation(options, shares):
    # Equal strengths, skewness -1 and 3: half of the budget is 1 each whatever the options.
    claims = [torch.tensor([1.0, -1.0]), torch.tensor([1.0, 3.0])]
    made = decide(StrengthSkewness(**options), claims, 10.0, 1000)
    expected = [10 * (1 + share) / 2 for share in shares]
    assert made.requested[0].tolist() == pytest.approx(expected)


def test_a_shift_raises_every_layer_by_the_same():
    claims = [torch.tensor([1.0, x]) for x in (-1.0, 0.0, 3.0)]
    made = decide(StrengthSkewness(negative_skewness="shift"), claims, 10.0, 1000)
    shares = [3 * x / 5 for x in (0.0, 1.0, 4.0)]
    assert made.requested[0].tolist() == pytest.approx([10 * (1 + s) / 2 for s in shares])


def test_options_by_name():
    text = (
        "aircache:retention=.5;alpha=.8;text_scope=text;per_head=True;elite_per_head=True;"
        "normalisation=minmax;negative_skewness=absolute"
    )
    built = compressor(text, FACTS)
    assert built.ranking == EliteText(0.8, "text", True, True)
    assert built.budget == StrengthSkewness("minmax", "absolute")
    assert method("aircache", 0.5).ranking == EliteText(0.9, "question", False, False)
    assert method("aircache", 0.5).budget == StrengthSkewness("mean", "clamp")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: EliteText(0), "alpha"),
        (lambda: EliteText(1.01), "alpha"),
        (lambda: EliteText(0.5, "all"), "text_scope"),
        (lambda: StrengthSkewness("median"), "normalisation"),
        (lambda: StrengthSkewness("mean", "drop"), "negative_skewness"),
        (lambda: StrengthSkewness("softmax", "shift"), "negative_skewness"),
        (lambda: StrengthSkewness("minmax", "shift"), "negative_skewness"),
    ],
)
def test_values_out_of_range_are_named(make, name):
    with pytest.raises(InvalidValueError) as error:
        make().check(FACTS)
    assert error.value.name == name
    EliteText(1.0).check(FACTS)


def reference(rows, kinds, ranking, group):
    """Scores (G, N) in plain loops, from attention (H, N, N) in float64."""
    heads, length, _ = rows.shape
    text = [
        j
        for j in range(length)
        if kinds[j] == TokenKind.TEXT
        or (ranking.text_scope == "text" and kinds[j] in (TokenKind.SYSTEM, TokenKind.SEPARATOR))
    ]
    vision = [j for j in range(length) if kinds[j] == TokenKind.VISION]
    among = np.stack(
        [rows[h, text[-1], text] / rows[h, text[-1], text].sum() for h in range(heads)]
    )
    if not ranking.elite_per_head:
        among = np.broadcast_to(among.mean(0), among.shape)
    scores = np.zeros((heads, length))
    for h in range(heads):
        elite = [
            j for j, w in zip(text, among[h], strict=True) if w >= ranking.alpha * among[h].max()
        ]
        for i in elite:
            total = sum(rows[h, i, j] for j in vision + elite)
            for j in vision:
                scores[h, j] += rows[h, i, j] / total / len(elite)
    return scores.reshape(-1, group if ranking.per_head else heads, length).mean(1)


@drawn(
    st.text("s", max_size=3),
    st.text("v|", max_size=9),
    st.text("t", max_size=6),
    st.integers(0, 10**6),
    st.floats(0.3, 1.0),
    st.sampled_from(["question", "text"]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_scores_equal_a_reference_in_plain_loops(
    system, image, text, seed, alpha, scope, per_head, elite_per_head
):
    letters = f"{system}v{image}t{text}"
    view = Rows([letters], seed).views()[0]
    ranking = EliteText(alpha, scope, per_head, elite_per_head)
    index = torch.arange(len(letters))[None]
    rows = view.attention.probabilities(index)[0].double().numpy()
    group = FACTS.heads // FACTS.kv_heads
    expected = torch.from_numpy(reference(rows, view.layout.kind[0].tolist(), ranking, group))
    score = ranking.score(view)[0].double()
    score = score if per_head else score[None]
    assert_close(score, expected, SINGLE)


def test_a_row_of_a_batch_scores_as_alone():
    rows = Rows(["ssvvvvvvttt", "vvvvttttttt", "sssvv|vvvvvvvvtttttt"], seed=5)
    for options in ({}, {"per_head": True, "elite_per_head": True, "text_scope": "text"}):
        ranking = EliteText(0.6, **options)
        for layer, together in enumerate(rows.views(padding=3)):
            batch = ranking.score(together)
            for row in range(3):
                single = ranking.score(rows.views([row])[layer])[0]
                part = batch[row][..., -single.shape[-1] :]
                assert_close(part, single)


def test_a_head_that_never_looks_at_text_takes_no_part_in_the_choice():
    rows = torch.zeros(1, 2, 4, 4)
    rows[0, :, :, 0] = 1
    rows[0, 1, 3] = torch.tensor([0.1, 0.2, 0.6, 0.1])
    view = LayerView(**{**vars(two_heads()), "attention": GivenAttention(rows)})
    assert marked(EliteText(0.9).elite(view)[0, 0]) == [2]
