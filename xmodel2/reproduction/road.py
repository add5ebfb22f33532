"""The report from end to end, as stages of commands: what each does at a scale, and what it rests on.

corpus -> data -> search -> transfer, ratio, law, ablation, peer
                  carry (search, where a scale has no other) -> direct
                        -> stable -> decay (ratio's share) -> benchmarks, calibration, context, export
all of them -> the report and the ledger
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xmodel2.eval.tasks import TASKS
from xmodel2.files import read_json
from xmodel2.recipe import Recipe
from xmodel2.recipe.load import recipe_to_toml
from xmodel2.reproduction.benchmarks import available_tasks
from xmodel2.reproduction.corpus import FILES, Corpus, write_corpus
from xmodel2.reproduction.kinds import ANSWERS_ONLY, SFT_SHARE, TEXT
from xmodel2.reproduction.recipes import base_recipe, carry_recipe, final_recipe, search_recipe
from xmodel2.reproduction.scales import Scale
from xmodel2.reproduction.stage import Command, Records, Stage

SEARCH, CARRY = "recipes/search.toml", "recipes/carry.toml"
BASE, FINAL = "recipes/base.toml", "recipes/final.toml"
_LEAST_AGENT_CONTEXT = 2048
"""Tokens that a question of ReAct needs with its worked examples."""
RATES = ("0.25", "0.5", "1", "2")
"""Of the ablations: runs are longer than the search's, and the best rate falls with length (docs/wind-tunnel.md)."""
_TEXT_ONLY = ("--set", "stages.decay.sft_share=0")
"""For comparisons of the loss on text."""


@dataclass(frozen=True)
class Road:
    """A reproduction: what it is made from, at what scale, and where."""

    scale: Scale
    corpus: Corpus
    out: Path
    eval_data: Path | None = None
    """Folder of benchmark files; None: no benchmarks."""

    @cached_property
    def tasks(self) -> list[str]:
        """The benchmarks at hand; read once, since that reads them whole. Raises `XmodelError` as `available_tasks`."""
        return available_tasks(self.eval_data)

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages in their order."""
        made = [
            Stage(
                "corpus",
                "the text that all stages read, by the published shares",
                (),
                list,
                ("corpus",),
                ("corpus/sources.toml", "corpus/sources-bpe.toml", f"corpus/{FILES}"),
                files=lambda: self.corpus.fingerprint,
                work=self._write_corpus,
            ),
            self._stage(
                "data",
                "tokenizers, and token shards of both",
                ("corpus",),
                self._data,
                ("data/index.json", "data-bpe/index.json", "data/tokenizers.json"),
            ),
            self._stage(
                "search",
                "hyperparameters of the small model",
                ("data",),
                self._search,
                ("search/best.toml", "data/index.json"),  # other data may have the same best values
                SEARCH,
            ),
            *self._carry_stage(),
            self._stage(
                "stable",
                "the final model's stable stage",
                (self._carried,),
                self._stable,
                ("stable/recipe.toml", "stable/metrics.jsonl"),
                FINAL,
            ),
            self._stage(
                "ratio",
                "the share of instruction data, its parts and format; WSD against cosine",
                ("search",),
                self._ratio,
                ("ratio/ratio.json",),
                BASE,
            ),
            self._stage(
                "decay",
                "its decay, with the share that was found",
                ("stable", "ratio"),
                self._decay,
                ("run/recipe.toml", "run/metrics.jsonl"),
                FINAL,
            ),
            self._stage(
                "ablation",
                "embedding sharing, depth against width, grouped queries, Unigram against BPE",
                ("search",),
                self._ablation,
                ("ablation/ablation.json",),
                BASE,
            ),
            self._stage(
                "transfer",
                "the coordinate check, and the best rate over width",
                ("search",),
                self._transfer,
                ("transfer/transfer.json", "transfer/coordinate.json"),
            ),
            self._stage(
                "direct",
                "the hyperparameters carried over against a search at the next two sizes",
                (self._carried,),
                self._direct,
                ("direct/direct.json",),
            ),
            self._stage("law", "loss by parameters and tokens", ("search",), self._law, ("law/law.json",), BASE),
            self._stage(
                "peer",
                "the same tokens through a plain Trainer with a cosine schedule",
                ("search",),
                self._peer,
                ("peer/peer.json",),
                BASE,
                alone=True,
            ),
            self._stage("context", "loss by place in the context", ("decay",), self._context, ()),
            self._stage("export", "native directory and GGUF, proved", ("decay",), self._export, ()),
        ]
        if self.eval_data is not None:
            made.insert(-2, self._stage("benchmarks", "every benchmark that fits", ("decay",), self._benchmarks, ()))
            made.insert(
                -2, self._stage("calibration", "the reliability diagram", ("benchmarks",), self._calibration, ())
            )
        return made

    @property
    def _carried(self) -> str:
        """The search whose answer is carried over to larger models, the final one among them."""
        return "carry" if self.scale.carry else "search"

    def _carry_stage(self) -> list[Stage]:
        if self.scale.carry is None:
            return []
        what, results = "a search that settles what is carried over", ("carry/best.toml", "data/index.json")
        return [self._stage("carry", what, ("data",), self._carry, results, CARRY)]

    @property
    def result_folders(self) -> list[Path]:
        """What the report and the ledger are made from."""
        records = Records(self.out, self.stages)
        done = {name: records.is_done(name) for name in records.stages}
        return [self.out / _FOLDERS.get(name, (name,))[0] for name in _TOLD if done.get(name)]

    def _stage(
        self,
        name: str,
        purpose: str,
        after: tuple[str, ...],
        prepare: Callable[[], Sequence[Command]],
        results: tuple[str, ...],
        recipe: str = "",
        alone: bool = False,
    ) -> Stage:
        folders = _FOLDERS.get(name, (name,))

        def recipes() -> dict[str, str]:
            return {recipe: recipe_to_toml(self.recipe(recipe))} if recipe else {}

        return Stage(
            name, purpose, after, prepare, folders, results, recipes, order_only=_ORDER.get(name, ()), alone=alone
        )

    def _write_corpus(self) -> None:
        write_corpus(self.corpus, self.out / "corpus", *self.scale.corpus_tokens, self.scale.vocab_size)

    def _data(self) -> list[Command]:
        held = sorted(str(path) for path in (self.out / "corpus").glob("*-heldout.jsonl"))
        ends = [path for path in held if ANSWERS_ONLY not in path]
        compare = ["tokenizer", "inspect", self._at("data/tokenizer"), self._at("data-bpe/tokenizer"), "--files", *ends]
        return [
            *(
                self._command(
                    "data", "prepare", self._at(f"corpus/sources{e}.toml"), out=f"data{e}", more=["--overwrite"]
                )
                for e in ("", "-bpe")
            ),
            Command((*compare, "--json"), self.out / "data" / "tokenizers.json"),
        ]

    def _search(self) -> list[Command]:
        return [self._command("search", self._at(SEARCH), out="search", trials=self.scale.trials)]

    def _transfer(self) -> list[Command]:
        length = self.scale.search_length
        half = {
            "model.num_hidden_layers": max(1, self.recipe(SEARCH).model.num_hidden_layers // 2),
            "train.batch_tokens": length.batch_tokens // 2,
            "train.micro_batch_size": length.micro_batch_size // 2,
            "stages.stable.tokens": length.stable_tokens // 2,
            "stages.decay.tokens": length.decay_tokens // 2,
            "train.heldout_every": 0,
        }
        return [
            self._command(
                "transfer",
                self._at("search/best.toml"),
                out="transfer",
                widths=_list(self.scale.widths),
                depths=_list(self.scale.depths),
                sweeps="coordinate,learning_rate-width",
                seeds=self.scale.seeds,
                more=["--set", *(f"{key}={value}" for key, value in half.items())],
            )
        ]

    def _carry(self) -> list[Command]:
        return [self._command("search", self._at(CARRY), out="carry", trials=self.scale.carried.trials)]

    def _direct(self) -> list[Command]:
        return [
            self._command(
                "transfer",
                self._at(f"{self._carried}/best.toml"),
                out="direct",
                widths=_list(self.scale.next_widths),
                direct_trials=self.scale.carried.trials,
                direct_seeds=self.scale.direct_seeds,
            )
        ]

    def _ratio(self) -> list[Command]:
        compare, mixture = ["shares", "cosine"], self.recipe(BASE).stages.decay.sft_mixture
        if len(mixture) > 1:
            compare += ["mixtures", "format"]
        swaps = [f"reasoning={ANSWERS_ONLY}", "chain-of-thought=general"]
        swaps = [swap for swap in swaps if {*swap.split("=")} <= {ANSWERS_ONLY, *mixture}]
        return [
            self._command(
                "ratio",
                self._at(BASE),
                out="ratio",
                seeds=self.scale.seeds,
                checkpoints=3,
                more=["--compare", *compare, "--shares", *map(str, self.scale.shares), "--swap", *swaps],
            )
        ]

    def _law(self) -> list[Command]:
        return [
            self._command(
                "law",
                self._at(BASE),
                out="law",
                widths=_list(self.scale.law_widths),
                then=self.scale.law_then,
                tokens=_list(self.scale.law_tokens),
                seeds=2,
                more=_TEXT_ONLY,
            )
        ]

    def _ablation(self) -> list[Command]:
        compare = ["embedding", "depth", "attention", "tokenizer"]
        return [
            self._command(
                "ablate",
                self._at(BASE),
                out="ablation",
                seeds=self.scale.seeds,
                more=[
                    "--rates",
                    *RATES,
                    "--compare",
                    *compare,
                    "--data",
                    f"bpe={self._at('data-bpe')}",
                    *_TEXT_ONLY,
                ],
            )
        ]

    def _peer(self) -> list[Command]:
        return [self._command("peer", self._at(BASE), out="peer", seeds=self.scale.seeds, more=_TEXT_ONLY)]

    def _stable(self) -> list[Command]:
        more = ["--resume", "--set", "stages.decay.tokens=0"]
        return [self._command("train", self._at(FINAL), out="stable", more=more)]

    def _decay(self) -> list[Command]:
        more = [
            "--resume",
            "--branch-from",
            f"{self._at('stable')}@stable",
            "--set",
            f"stages.decay.sft_share={self.share:g}",
        ]
        return [self._command("train", self._at(FINAL), out="run", more=more)]

    def _benchmarks(self) -> list[Command]:
        commands = [
            self._command(
                "eval", self._at("run"), suite="heldout,questions", tasks=",".join(self.tasks), data_dir=self.eval_data,
                limit=self.scale.limit,
            )
        ]  # fmt: skip
        if self.scale.context >= _LEAST_AGENT_CONTEXT:
            commands.append(self._command("eval", self._at("run"), suite="agents", limit=self.scale.limit))
        return commands

    def _calibration(self) -> list[Command]:
        choices = [name for name in self.tasks if TASKS[name].multiple_choice]
        tasks = [name for name in ("mmlu", *choices) if name in choices][:1]
        return [
            self._command("calibrate", self._at("run"), task=task, data_dir=self.eval_data, limit=self.scale.limit)
            for task in tasks
        ]

    def _context(self) -> list[Command]:
        folder = self.corpus.path / "wikitext2-test"
        kinds = [self.out / "corpus" / f"{name}-heldout.jsonl" for name in ("encyclopedia", *TEXT)]
        texts = sorted(folder.glob("*-heldout.*")) or [path for path in kinds if path.exists()]
        # Places beyond the rows that it was trained on are another question.
        trained = self.scale.final_length.sequence_length
        return [self._command("scaling", self._at("run"), text=texts[0], max_context=trained)]

    def _export(self) -> list[Command]:
        return [self._command("export", self._at("run"), out="export", to="hf,gguf-q8_0", more=["--overwrite"])]

    @property
    def share(self) -> float:
        """The share of instruction data: the ratio's answer where it is one, else the report's."""
        found = read_json(self.out / "ratio" / "ratio.json") or {}
        curve = found.get("shares", {}).get("accuracy") or {}
        return float(curve["optimum"]) if curve.get("verdict") == "inside" else SFT_SHARE

    def recipe(self, name: str) -> Recipe:
        """Return one of the recipes; base takes what the search found, final what is carried over."""
        data, kinds = self.out / "data", self.corpus.kinds
        if name == SEARCH:
            return search_recipe(self.scale, data, kinds)
        if name == CARRY:
            return carry_recipe(self.scale, data, kinds)
        if name == BASE:
            return base_recipe(self.scale, data, kinds, self.out / "search" / "best.toml")
        return final_recipe(self.scale, data, kinds, self.out / self._carried / "best.toml")

    def _at(self, name: str) -> str:
        return str(self.out / name)

    def _command(self, *words: str, out: str = "", more: Sequence[str] = (), **options: object) -> Command:
        given = {**options, **({"out": self.out / out} if out else {})}
        pairs = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        return Command((*words, *pairs, *more))


_FOLDERS = {
    "data": ("data", "data-bpe"),
    "decay": ("run",),
    "benchmarks": (),
    "calibration": (),
    "context": ("run/scaling",),
}
"""What stages make that is not called as they are; what lies in the final run goes with it."""


_ORDER = {"decay": ("ratio",)}
"""Stages whose answer stands in another's command, and whose results it reads nothing else of."""


_TOLD = ("decay", "search", "transfer", "carry", "direct", "ratio", "law", "ablation", "peer")
"""Stages that the report and the ledger are made from, when they are done."""


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
