"""What the agent benchmarks are played with. Nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PageStyle = Literal["react", "text", "text_rich"]


@dataclass(frozen=True)
class AgentOptions:
    """Worlds of the agent benchmarks; what is not there is made up, and every score says so."""

    agents_dir: Path | None = None
    """folder of agent data (`xmodel2 eval fetch --suite agents`); default: DATA_DIR/agents if it is there"""
    articles: str | None = None
    """article store of HotpotQA and FEVER: a file of `xmodel2 eval articles`, or wikipedia for the live one"""
    games: Path | None = None
    """folder of ALFWorld games with valid_unseen in it (default: AGENTS_DIR/alfworld, else $ALFWORLD_DATA)"""
    catalogue: Path | None = None
    """folder of WebShop's product files (default: AGENTS_DIR/webshop)"""
    pages: PageStyle = "react"
    """how WebShop's pages are shown: as ReAct does, or as one of WebShop's own modes"""
    uncovered: bool = False
    """score questions and claims whose articles the store does not have, too; with the live Wikipedia all are"""


MADE_UP = AgentOptions()
"""No data at all."""
