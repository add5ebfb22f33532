"""Typed settings of `data prepare`: what a sources.toml may say, with units, bounds and defaults.

The names and thresholds of the cleaning rules are those of datatrove's blocks, which apply them.
"""

from dataclasses import field
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from xmodel2.recipe.load import Origin, checked, read_tree
from xmodel2.recipe.settings import NotNegative, Positive, PositiveFloat, Share, SourceSettings

_RESERVED = ("tokenizer", "inspect", "index.json", "report.json", "mixture.toml", "contaminated.jsonl")
_CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)

Scope = Literal["across", "within"]
Method = Literal["exact", "minhash", "simhash"]


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class TokenizerSource:
    """Which tokenizer reads the documents: one that is there, or one trained on a sample of them."""

    path: str | None = None
    """Tokenizer directory, relative to the sources file."""
    vocab_size: Positive | None = None
    """Pieces of a tokenizer to train, special tokens and bytes included."""
    algorithm: Literal["unigram", "bpe"] = "unigram"
    """How it is trained: `unigram` as the report, or `bpe` (byte-level) to compare with."""
    sample_bytes: Positive = 8_000_000
    """Bytes of text to train on, each source with its weight's share (without weights, its share of the bytes)."""

    @model_validator(mode="after")
    def _check(self) -> "TokenizerSource":
        if (self.path is None) == (self.vocab_size is None):
            raise ValueError("tokenizer: give either path or vocab_size")
        return self


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class LanguageRule:
    """Keep documents that are in one of the languages (py3langid, whose model comes with it)."""

    allow: list[str] = field(default_factory=lambda: ["en", "zh"])
    """ISO 639-1 codes."""
    min_probability: Share = 0.65
    """Least probability of an allowed language."""


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class GopherRepetitionRule:
    """Remove documents that repeat themselves (Gopher, arXiv 2112.11446, Table A1)."""

    dup_line_frac: Share = 0.3
    """Largest share of lines that stand before."""
    dup_para_frac: Share = 0.3
    """Largest share of paragraphs that stand before."""
    dup_line_char_frac: Share = 0.2
    """Largest share of characters in such lines."""
    dup_para_char_frac: Share = 0.2
    """Largest share of characters in such paragraphs."""
    top_n_grams: list[tuple[int, float]] = field(default_factory=lambda: [(2, 0.2), (3, 0.18), (4, 0.16)])
    """For n words: largest share of characters in the commonest n-gram."""
    dup_n_grams: list[tuple[int, float]] = field(
        default_factory=lambda: [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)]
    )
    """For n words: largest share of characters in n-grams that stand before."""


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class GopherQualityRule:
    """Remove documents that do not look like prose (Gopher, arXiv 2112.11446, section A1.1)."""

    min_doc_words: NotNegative = 50
    """Fewest words."""
    max_doc_words: NotNegative = 100_000
    """Most words."""
    min_avg_word_length: float = 3
    """Shortest mean word, in characters; Chinese words are nearer to 1.5."""
    max_avg_word_length: float = 10
    """Longest mean word, in characters."""
    max_symbol_word_ratio: float = 0.1
    """Most # or ellipses a word."""
    max_bullet_lines_ratio: Share = 0.9
    """Largest share of lines that begin with a bullet."""
    max_ellipsis_lines_ratio: Share = 0.3
    """Largest share of lines that end with an ellipsis."""
    max_non_alpha_words_ratio: Share = 0.8
    """Smallest share of words with a letter (the name is datatrove's)."""
    min_stop_words: NotNegative = 2
    """Fewest different stop words."""
    stop_words: list[str] | None = None
    """Which they are; by default the, be, to, of, and, that, have, with."""


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class C4Rule:
    """Drop lines and documents as C4 did (arXiv 1910.10683, section 2.2)."""

    remove_citations: bool = True
    """Take [12] and [edit] out of the text."""
    filter_no_terminal_punct: bool = True
    """Drop lines that do not end in . ! ? or a quotation mark."""
    min_num_sentences: int = 5
    """Fewest sentences left in a document; -1 turns it off."""
    min_words_per_line: int = 3
    """Drop lines of fewer words; -1 turns it off."""
    max_word_length: int = 1000
    """Drop lines with a longer word, in characters; -1 turns it off."""
    filter_lorem_ipsum: bool = True
    """Drop documents with "lorem ipsum"."""
    filter_javascript: bool = True
    """Drop lines that mention javascript."""
    filter_curly_bracket: bool = True
    """Drop documents with a curly bracket."""
    filter_policy: bool = True
    """Drop lines about cookies and terms of use."""


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class FineWebRule:
    """Remove documents that look like lists (FineWeb, arXiv 2406.17557, section 3.5)."""

    line_punct_thr: Share = 0.12
    """Smallest share of lines that end in punctuation."""
    short_line_thr: Share = 0.67
    """Largest share of short lines."""
    short_line_length: Positive = 30
    """What a short line is, in characters."""
    char_duplicates_ratio: Share = 0.01
    """Largest share of characters in lines that stand before."""
    new_line_ratio: PositiveFloat = 0.3
    """Most line ends a word."""


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class PiiRule:
    """Replace e-mail addresses and public IP addresses by made-up ones; no document is removed."""

    remove_emails: bool = True
    """Replace e-mail addresses."""
    remove_ips: bool = True
    """Replace public IP addresses."""


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class UrlRule:
    """Replace web addresses; a text, or a chat with a turn, of which nothing is left is removed."""

    replacement: str = ""
    """What stands in their place."""


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class CleanSettings:
    """A set of rules, applied in this order; a rule that is not named is not applied, `rule = {}` takes its defaults."""

    language: LanguageRule | None = None
    gopher_repetition: GopherRepetitionRule | None = None
    gopher_quality: GopherQualityRule | None = None
    c4: C4Rule | None = None
    fineweb: FineWebRule | None = None
    pii: PiiRule | None = None
    urls: UrlRule | None = None


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class DeduplicateSettings:
    """How documents that were there before are found; of near-duplicates, the one in the earlier source stays."""

    text: list[Method] = field(default_factory=lambda: ["exact"])
    """Methods for sources of kind text; `minhash` finds near-duplicates."""
    sft: list[Method] = field(default_factory=lambda: ["exact"])
    """Methods for sources of kind sft; the report used SimHash."""
    scope: Scope = "across"
    """`across` all sources of a kind, or `within` each alone. Held-out documents stay, their copies among these go."""
    ngram: Positive = 5
    """Words a shingle, of MinHash."""
    bands: Positive = 28
    """Bands of a MinHash signature: two documents with one equal band are compared."""
    rows: Positive = 4
    """Hashes a band. 28 x 4 compares pairs of similarity s with probability 1 - (1 - s^4)^28: 0.84 at 0.5, 0.999 at 0.7."""
    min_jaccard: Share = 0.7
    """Least similarity of shingle sets, estimated from the signatures, of two near-duplicates."""
    simhash_ngram: Positive = 2
    """Words a shingle, of SimHash. One word finds more copies, and takes short answers of common words for copies."""
    max_hamming: int = Field(default=3, ge=0, le=7)
    """Most differing bits, of 64, of two near-duplicates."""


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class DecontaminateSettings:
    """Removal of training documents that hold benchmark items (the rule: docs/data.md)."""

    dirs: list[str] = field(default_factory=list)
    """Folders of benchmark files, one folder a benchmark; relative to the sources file. Empty: no decontamination."""
    ngram: Positive = 13
    """Words that must stand in the same order (a shorter item: all of its words)."""
    min_words: Positive = 8
    """Items of fewer words are too short to be told from ordinary text, and are counted as not checked."""
    min_share: Share = 0.25
    """Share of an item's n-grams that a document must hold."""
    max_items: Positive = 10
    """An n-gram that stands in more items of a benchmark than this is wording of its template, and does not count."""


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class FieldSettings:
    """Names of the fields of a record; a dot goes into a nested one."""

    text: str = "text"
    """Text of a document."""
    messages: str = "messages"
    """List of a chat's turns."""
    role: str = "role"
    """Of a turn: who speaks."""
    content: str = "content"
    """Of a turn: what is said."""
    roles: dict[str, str] = field(default_factory=dict)
    """Names of roles to user, assistant, system; for example { human = "user", gpt = "assistant" }."""
    instruction: str | None = None
    """Instruction of an instruction triple; with `output` it makes a chat of two turns."""
    input: str | None = None
    """Its input, put after the instruction and a blank line; may be empty."""
    output: str | None = None
    """Its answer."""
    system: str | None = None
    """Its system message; may be empty."""

    @model_validator(mode="after")
    def _check(self) -> "FieldSettings":
        if (self.instruction is None) != (self.output is None):
            raise ValueError("fields: instruction and output go together")
        return self


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class PreparedSource(SourceSettings):
    """One source: where its documents are, and what part of the mixture it is."""

    files: list[str] = field(default_factory=list)
    """Patterns of files, relative to the sources file, or URLs; or else `dataset`."""
    split: str = "train"
    """Split of the data set."""
    revision: str | None = None
    """Commit, branch or tag of the data set on the hub."""
    heldout: list[str] = field(default_factory=list)
    """Patterns of files with held-out documents; without it, `heldout_fraction` is held out."""
    heldout_fraction: float = Field(default=0.01, ge=0, lt=1)
    """Share of documents held out, chosen by each one's hash."""
    fields: FieldSettings = field(default_factory=FieldSettings)
    clean: str | None = None
    """Name of a [clean.NAME] set of rules."""
    stage: Literal["stable", "decay", "evaluation"] | None = None
    """`stable`: trained on in both stages; `decay`: in the second; `evaluation`: never. Default: sft in decay."""
    weight: PositiveFloat | None = None
    """Part of the stage's tokens, relative to the stage's other sources. All of a stage have one, or none has."""
    as_text: bool = False
    """For kind sft: write its training documents a second time, as pretraining text, as source NAME-as-text, which is in no
    mixture unless a recipe names it (`xmodel2 ratio --compare format`)."""

    @property
    def resolved_stage(self) -> str:
        """The stage, by kind if none is given."""
        return self.stage or ("decay" if self.kind == "sft" else "stable")

    @model_validator(mode="after")
    def _check(self) -> "PreparedSource":
        if bool(self.files) + bool(self.dataset) != (self.stage != "evaluation"):
            raise ValueError("a source needs either files or dataset, and one of stage evaluation only heldout")
        if self.stage == "evaluation" and (self.weight is not None or not self.heldout):
            raise ValueError("a source of stage evaluation needs heldout, and has no weight")
        if self.as_text and (self.kind != "sft" or self.stage == "evaluation"):
            raise ValueError("as_text is for sources of kind sft that are trained on")
        return self


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class Preparation:
    """A sources.toml."""

    tokenizer: TokenizerSource
    sources: dict[str, PreparedSource]
    clean: dict[str, CleanSettings] = field(default_factory=dict)
    """Named sets of cleaning rules."""
    deduplicate: DeduplicateSettings = field(default_factory=DeduplicateSettings)
    decontaminate: DecontaminateSettings = field(default_factory=DecontaminateSettings)
    sft_share: Share = 0.64
    """Share of the decay stage's tokens that the sources of stage decay have together."""

    @model_validator(mode="after")
    def _check(self) -> "Preparation":
        if not self.sources:
            raise ValueError("there is no [sources.NAME]")
        for name, source in self.sources.items():
            if not name or name.startswith(".") or "/" in name or "\\" in name or name in _RESERVED:
                raise ValueError(f"sources: {name!r} cannot be the name of a source's folder")
            if source.clean is not None and source.clean not in self.clean:
                known = ", ".join(self.clean) or "none"
                raise ValueError(
                    f"sources.{name}.clean = {source.clean!r}: there is no such [clean.NAME]; there are: {known}"
                )
        for stage in ("stable", "decay"):
            weighted = [source.weight is not None for source in self.sources.values() if source.resolved_stage == stage]
            if any(weighted) and not all(weighted):
                raise ValueError(f"sources of stage {stage}: give all of them a weight, or none")
        return self


def text_form(name: str) -> str:
    """Return the name of the source that has a source's documents as pretraining text."""
    return f"{name}-as-text"


def load_preparation(path: Path) -> Preparation:
    """Read and check a sources file. Raises `XmodelError` naming file and key."""
    origin: Origin = {}
    tree = read_tree(Path(path), origin, what="sources file")
    return checked(Preparation, tree, str(path), origin)
