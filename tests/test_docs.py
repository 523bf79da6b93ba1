"""Every command of README, CONTRIBUTING and docs is one, and does what it should: page by page, as written.

Lines of code blocks that begin with odebench, the commands that README's table lists, scripts of an entry and blocks of
py are run in a fresh folder with what is published beside it. What would take minutes, a cluster, a terminal or a network
is parsed, and named in TESTED_BY with the test that runs it. Commands in running text are parsed.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from entry_factory import change_entry

from odebench.cli import _exit_code, app
from odebench.entry import read_entry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
MAX_RECIPE_LINES = 24

# A command and the test that runs it, or one that differs in size alone.
TESTED_BY = {
    "odebench run -m ode -a cw --horizon 2 -n 100": "test_cli.py::test_run_of_a_model_without_a_field",
    "odebench run -m ode -a pgd --solver dopri5 --tolerance 1e-3": "test_cli.py::test_run_evaluates_with_another_solver_on_the_same_weights",
    "odebench run -m kd-ode -a pgd --dataset fashion-mnist": "test_cli.py::test_run_trains_attacks_and_shows_the_result",
    "odebench run -m ode -a pgd --weights FILE": "test_cli.py::test_run_takes_weights_from_a_file",
    "odebench judge -m kd-ode FILE": "test_candidate.py::test_what_a_run_saves_is_judged_to_the_same_letters",
    "odebench train --model kd-ode --horizon 2": "test_cli.py::test_train_names_the_weights_and_trains_once",
    "odebench compare main~5 main": "test_difference.py::test_commits_are_compared",
    "odebench leaderboard --serve": "test_page.py::test_the_page_is_served_on_loopback_alone_until_interrupted",
    "odebench examples": "test_example.py::test_examples_show_what_the_result_says",
    "odebench diagnose --model kd-ode": "test_diagnose.py::test_a_diagnosis_prints_every_check_in_80_columns",
    "odebench diagnose --model kd-ode --full --chart kd-ode.svg": "test_diagnose.py::test_the_full_set_makes_every_check",
    "odebench diagnose --model ode --solver dopri5 --tolerance 0.1": "test_diagnose.py::test_flags_and_what_to_do_are_said",
    "odebench run --model antisymmetric-ode --attack mi-fgsm -n 100 --set epochs=2": "test_plugin.py::test_the_plugin_gives_a_result",
    "odebench protocols --time": "test_protocol.py::test_protocols_are_listed_with_their_time",
    "odebench sweep digits --results again": "test_sweep.py::test_a_cell_is_what_run_makes_of_it",
    "odebench sweep digits --results mine": "test_sweep.py::test_a_cell_is_what_run_makes_of_it",
    "odebench sweep cifar10 --slice-images 1000 --scheduler tcp://HOST:8786": "test_sweep_slices.py::test_large_evaluations_become_slices_and_a_join",
    "odebench sweep fashion-mnist --scheduler tcp://HOST:8786 --results /shared/results": "test_sweep.py::test_a_cluster_started_by_hand_computes_the_same",
    "odebench sweep digits --scheduler tls://HOST:8786 --tls-ca ca.pem --tls-cert cert.pem --tls-key key.pem": "test_sweep.py::test_a_cluster_started_by_hand_computes_the_same",
    "odebench run -m ode -a pgd --weights 'https://example.org/ode.safetensors#sha256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'": "test_remote.py::test_a_run_takes_weights_from_an_address",
    "odebench run -m ode -a pgd --weights hf://owner/name/ode.safetensors@main": "test_remote.py::test_a_file_of_the_hub_is_fetched",
}
