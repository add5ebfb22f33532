"""Sources files: those of the repository load, and mistakes name file, key and the nearest right one."""

from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.recipe import load_recipe
from xmodel2.recipe.preparation import load_preparation

RECIPES = Path(__file__).parents[2] / "recipes"
HEAD = "[tokenizer]\nvocab_size = 600\n"


@pytest.mark.parametrize("path", sorted((RECIPES / "sources").glob("*.toml")), ids=lambda path: path.name)
def test_every_sources_file_of_the_repository_loads(path: Path) -> None:
    preparation = load_preparation(path)
    assert all(source.weight for source in preparation.sources.values() if source.resolved_stage != "evaluation")


def test_the_report_s_sources_have_the_weights_of_its_recipe() -> None:
    sources = load_preparation(RECIPES / "sources" / "xmodel2-1.2b.toml").sources
    stable = {name: source.weight for name, source in sources.items() if source.resolved_stage == "stable"}
    recipe = load_recipe(RECIPES / "xmodel2-1.2b.toml")
    assert {name: (weight or 0) / 100 for name, weight in stable.items()} == pytest.approx(recipe.stages.stable.mixture)
    assert set(sources) == set(recipe.data.sources)


def test_a_base_is_extended(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(HEAD + '[sources.a]\nfiles = ["a"]\n[clean.web]\npii = {}\n')
    (tmp_path / "top.toml").write_text('base = "base.toml"\n[sources.b]\nfiles = ["b"]\nclean = "web"\n')
    assert list(load_preparation(tmp_path / "top.toml").sources) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[sources.a]\nfiles = ["x"]\n', "tokenizer is missing"),
        ("[tokenizer]\n[sources.a]\nfiles = ['x']\n", "give either path or vocab_size"),
        (HEAD + "[sources.a]\n", "needs either files or dataset"),
        (HEAD + "[sources.a]\nfiles = ['x']\ndataset = 'y'\n", "needs either files or dataset"),
        (HEAD + "[sources.a]\nfiles = ['x']\nclean = 'wb'\n[clean.web]\npii = {}\n", "there is no such"),
        (HEAD + "[sources.a]\nfiles = ['x']\n[clean.web]\ngopher = {}\n", "Did you mean 'gopher_"),
        (
            HEAD + "[sources.a]\nfiles = ['x']\n[clean.web]\nfineweb = { line_punct_thr = 3 }\n",
            "less than or equal to 1",
        ),
        (HEAD + "[sources.a]\nfiles = ['x']\nfields = { instruction = 'q' }\n", "instruction and output go together"),
        (HEAD + "[sources.'a/b']\nfiles = ['x']\n", "cannot be the name of a source's folder"),
        (HEAD + "[sources.tokenizer]\nfiles = ['x']\n", "cannot be the name of a source's folder"),
        (HEAD + "[sources.a]\nfiles = ['x']\n[deduplicate]\ntext = ['minhsh']\n", "deduplicate.text.0 = 'minhsh'"),
        (HEAD + "[sources.a]\nstage = 'evaluation'\n", "evaluation needs heldout"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "sources.toml").write_text(text)
    with pytest.raises(XmodelError, match=words) as caught:
        load_preparation(tmp_path / "sources.toml")
    assert "sources.toml" in str(caught.value)
