"""The claims ledger: what the report claims, and what was measured of it here.

    folders of runs, searches and comparisons -> Evidence -> verdicts -> a row a claim: measured, scale, verdict, command

A verdict is said of the scale that it was measured at, and of nothing else. A claim without evidence is "not measured", and one
whose file is damaged says which; none is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xmodel2.eval.calibration_page import PAPER_TASK
from xmodel2.page import table
from xmodel2.release.reporting import ablation_verdicts, verdicts
from xmodel2.release.reporting.evidence import Evidence
from xmodel2.release.reporting.faults import complaint
from xmodel2.release.reporting.section import Section
from xmodel2.release.reporting.verdicts import Finding

NOT_MEASURED, UNREADABLE = "not measured", "cannot be read"


@dataclass(frozen=True)
class Claim:
    """A claim of the report."""

    text: str
    judge: Callable[[Evidence], Finding | None]
    command: str
    """What measures it."""


def claims_section(folders: Sequence[Path]) -> Section:
    """Return the ledger of what the folders hold."""
    head = ["claim of the report", "verdict", "measured here", "at the scale of", "command"]
    return Section("claims", "Claims", table(head, ledger(folders), "Each is said of its scale alone"))


def ledger(folders: Sequence[Path]) -> list[list[str]]:
    """Return a row a claim: claim, verdict, measured, scale, command; of two files of a kind the first folder's counts."""
    evidence = Evidence(folders)
    rows = []
    for claim in CLAIMS:
        try:
            found = claim.judge(evidence) or Finding(NOT_MEASURED, "", "")
        except Exception as error:  # files of other versions and half-written ones fail in any way
            found = Finding(UNREADABLE, complaint(error, evidence.path), "")
        rows.append([claim.text, found.verdict, found.measured, found.scale, claim.command])
    return rows


CLAIMS = (
    Claim(
        "Tensor programs keep activations and their changes steady as width grows (Table 6)",
        verdicts.steady,
        "xmodel2 transfer RECIPE --sweeps coordinate",
    ),
    Claim(
        "Hyperparameters found on a small model carry over to larger ones",
        verdicts.carries_over,
        "xmodel2 transfer RECIPE --sweeps learning_rate-width",
    ),
    Claim(
        "Carried over unchanged, they lose at most half a percent to a search at the next two sizes",
        ablation_verdicts.direct,
        "xmodel2 transfer RECIPE --direct-trials N",
    ),
    Claim(
        "WSD is at least as good as cosine at equal tokens, with one stable run for all lengths",
        verdicts.wsd,
        "xmodel2 ratio RECIPE --compare cosine",
    ),
    Claim("Instruction data in the decay lifts reasoning", verdicts.sft_lifts, "xmodel2 ratio RECIPE --compare shares"),
    Claim("Its best share is 60 to 69%", verdicts.best_share, "xmodel2 ratio RECIPE --compare shares"),
    Claim(
        "Chain-of-thought data lifts reasoning, against other instructions in its place",
        verdicts.chain_of_thought,
        "xmodel2 ratio RECIPE --compare mixtures --swap chain-of-thought=OTHER",
    ),
    Claim(
        "The steps to an answer lift reasoning, against the answers alone",
        ablation_verdicts.steps_to_answers,
        "xmodel2 ratio RECIPE --compare mixtures --swap SOURCE=SOURCE-answers",
    ),
    Claim(
        "Instruction format beats pretraining format for the same facts",
        ablation_verdicts.formats,
        "xmodel2 ratio RECIPE --compare format",
    ),
    Claim("Loss follows a law of parameters and tokens", verdicts.law, "xmodel2 law RECIPE --then SIZE"),
    Claim(
        "Loss falls as a power law of the place in the context (Figure 5)", verdicts.test_time, "xmodel2 scaling RUN"
    ),
    Claim(f"The model is calibrated on {PAPER_TASK.upper()} (Figure 4)", verdicts.calibrated, "xmodel2 calibrate RUN"),
    Claim(
        "At 1.2B it is among the best of fourteen models of its size (Tables 2 to 4, Figure 1)",
        verdicts.beside_rivals,
        "xmodel2 eval RUN --suite commonsense,reasoning,agents",
    ),
    Claim(
        "Sharing embedding and head costs little, against a head of its own (0.1B parameters saved)",
        ablation_verdicts.embedding,
        "xmodel2 ablate RECIPE --compare embedding",
    ),
    Claim(
        "Deep and thin beats wide and shallow at equal parameters in blocks",
        ablation_verdicts.depth,
        "xmodel2 ablate RECIPE --compare depth",
    ),
    Claim(
        "Grouped-query attention costs little quality",
        ablation_verdicts.attention,
        "xmodel2 ablate RECIPE --compare attention",
    ),
    Claim(
        "A Unigram tokenizer serves better than BPE",
        ablation_verdicts.tokenizer,
        "xmodel2 ablate RECIPE --compare tokenizer --data bpe=DIR",
    ),
    Claim(
        "(ours) The recipe reaches a plain Trainer's loss in 0.6 of its tokens-time",
        ablation_verdicts.peer,
        "xmodel2 peer RECIPE",
    ),
)
"""In the order of the report."""
