"""The coordinate check tells tensor programs from the standard parametrisation."""

from xmodel2.search.coordinate import coordinate_check


def test_flat_under_tensor_programs_and_growing_without() -> None:
    ours = coordinate_check((64, 128, 256), steps=3, parametrization="tensor_program")
    standard = coordinate_check((64, 128, 256), steps=3, parametrization="standard")
    assert set(ours.growth) == {"embedding", "attention", "feed-forward", "residual stream", "logits"}
    assert ours.worst_growth < 0.1
    assert standard.worst_growth > 1
    assert standard.growth["logits"] > ours.growth["logits"] + 0.5
