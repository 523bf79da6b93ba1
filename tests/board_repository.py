"""A git repository with a small leaderboard, for tests of everything that reads commits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


class Clone:
    """A repository in a folder, with a branch main and a name of its own to commit under."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def board(self) -> Path:
        return self.folder / "leaderboard"

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, message: str = "change") -> str:
        """Commits all that is in the folder; returns the commit."""
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def copy(self, folder: Path) -> Clone:
        """The same repository in another folder, on a branch of its own that left main here."""
        shutil.copytree(self.folder, folder, symlinks=True)
        other = Clone(folder)
        other.git("checkout", "--quiet", "-B", "submission")
        return other


def new_clone(folder: Path) -> Clone:
    """An empty repository."""
    folder.mkdir(parents=True, exist_ok=True)
    clone = Clone(folder)
    clone.git("init", "--quiet", "--initial-branch", "main")
    for name, value in (("user.name", "Ada"), ("user.email", "ada@example.org"), ("commit.gpgsign", "false")):
        clone.git("config", name, value)
    return clone
