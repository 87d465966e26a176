"""The simulated month: what routing by cost saves, at equal bars."""

import pytest
from given import a_model
from trunkline.benchmark import month
from trunkline_actors.capabilities import match


def test_the_cheapest_model_that_passes_the_bar_costs_a_fifth_less_at_least() -> None:
    lines = month.simulate()
    told = month.totals(lines)
    assert told["saved"] >= 0.2
    assert sum(line.requests for line in lines) == month.DAYS * month.A_DAY
    models = {one["id"]: a_model(one["id"], capabilities=one["capabilities"]) for one in month.MODELS}
    for line in lines:
        wanted = [name for name in line.kind.wants if name != "context"]
        assert line.chosen
        for name in {*line.chosen, month.PRIMARY}:
            assert match(models[name], wanted) >= line.kind.bar, "the bar is kept by both"


def test_a_bar_that_nobody_passes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = month.Kind(name="impossible", share=1, given=1, output=1, wants=("reasoning",), bar=1.0)
    monkeypatch.setattr(month, "KINDS", (hard,))
    with pytest.raises(month.NoModelPasses, match="impossible: no model passes the bar"):
        month.simulate()
