"""The repository keeps its word: README, results, CI and style."""

import importlib
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from experiment import cells, markdown, recipe
from experiment.flags import default_path, parse_flags
from experiment.presets import PRESETS
from experiment.run_folder import RESULTS, ROOT, Run, load_config
from experiment.session import Session
from experiment.settings import Config
from models.catalogue import hyperparameters
from tests.helpers import part_of
from utils import read_csv

README = (ROOT / "README.md").read_text()
PAGES = [
    "README.md",
    "results/recipe/README.md",
    *sorted(f"{path.parent.name}/README.md" for path in ROOT.glob("[!.]*/README.md")),
]
TRACKED = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True).stdout.split()
MEASURED = [ROOT / path.removesuffix("/test_llh.json") for path in TRACKED if path.endswith("/test_llh.json")]
COMMITTED = [folder for folder in MEASURED if "recipe" not in folder.parts]  # those have no weights


def test_ci_runs_the_readme_s_test_command():
    (command,) = [line for line in README.splitlines() if line.endswith("-m pytest")]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == command


def test_readme_s_first_run_leaves_the_clone_clean():
    (command,) = [line for line in README.splitlines() if "requirements.txt" in line and "--preset quick" in line]
    flags = command.partition("main.py ")[2].split()
    config, _, _ = parse_flags(flags)
    process = subprocess.run(["git", "check-ignore", "-q", config.run_dir + "/config.json"], cwd=ROOT)
    assert process.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pages_name_only_flags_and_give_only_commands_that_exist(page):
    text = (ROOT / page).read_text()
    others = {"resume", "eval_only", "help", "measure", "commands"}  # of main.py and tables.py, not settings
    others |= {"only", "cost", "kills", "operators", "signal"}  # of benchmarks and tests
    others |= {"process", "logdir"}  # of xargs and TensorBoard
    others |= {"q_scale"}  # of the page's own example
    known = {*Config.__dataclass_fields__, *hyperparameters(), *others}
    assert set(re.findall(r"--([a-z_]+)", text)) <= known
    for line in re.findall(r"^(?:.*/)?python main\.py (--.*)$", text, re.MULTILINE):
        words = line.partition(" #")[0].partition(" && ")[0].split()
        if not {"pictures/", "images.npz"} & {*words}:  # own data, which is not here
            parse_flags(words)


def test_the_commands_of_tasks_find_committed_runs():
    commands = re.findall(r"python tasks/(task0[1-57])\.py([^&\n`]*)", (ROOT / "tasks/README.md").read_text())
    assert {name for name, _ in commands} == {f"task0{i}" for i in (1, 2, 3, 4, 5, 7)}
    for name, flags in commands:
        task = importlib.import_module(f"tasks.{name}")
        config = parse_flags(flags.split(), "", task.DEFAULTS, task.FIXED)[0]
        assert pathlib.Path(config.run_dir) in COMMITTED
        assert load_config(config.run_dir).experiment() == config.experiment()


def test_readme_quotes_the_quick_run_as_it_was():
    llh = json.loads((ROOT / "results/quick/iwae-1l-k5/test_llh.json").read_text())
    line = f"test log likelihood (k={llh['n_samples']}): {llh['test_llh']:.2f} ± {llh['standard_error']:.2f} nats"
    assert line in README and f"images: {llh['mc_error']:.3f} nats" in README


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_every_committed_result_has_what_it_takes_to_measure_it_again(folder):
    config = load_config(folder)
    assert folder.parent.name == config.preset and default_path(config) == folder
    assert (folder / "model.weights.h5").stat().st_size < 2.5e6
    assert json.loads((folder / "training.json").read_text())["epochs"] == config.n_epochs
    last_row = (folder / "metrics.csv").read_text().splitlines()[-1]
    assert int(last_row.split(",")[0]) == config.n_epochs


def test_the_pages_tables_are_those_of_the_results():
    every = cells.results_in(COMMITTED)
    results = cells.finished(every)
    assert part_of(ROOT / "README.md", "results") == markdown.summary(results)
    assert part_of(RESULTS / "README.md", "results") == markdown.tables(results)
    assert part_of(ROOT / "tasks/README.md", "estimators") == markdown.estimators(results)
    assert part_of(RESULTS / "README.md", "runs") == markdown.every_run(every)
    assert part_of(RESULTS / "README.md", "annealed") == markdown.annealed(every)
    assert part_of(RESULTS / "README.md", "sets") == markdown.sets(results)


def test_k_grew_in_the_committed_runs_when_their_settings_say():
    grown = 0
    for folder in COMMITTED:
        config, rows = load_config(folder), read_csv(folder / "metrics.csv")
        if "n_samples" in rows[0]:
            assert [int(row["n_samples"]) for row in rows] == [config.samples_at(int(row["epoch"])) for row in rows]
            grown += config.samples_at(0) < config.n_samples
    assert grown > 3


def test_the_recipe_s_tables_are_those_of_its_runs_and_none_compared_was_tested_on_the_test_set():
    results = cells.finished(cells.results_in(COMMITTED))
    assert (RESULTS / "recipe" / "comparisons.md").read_text() == recipe.comparisons(results)
    runs = recipe.compared()
    assert runs and all(result.config.held_out == 10000 for result in (*runs, *recipe.elements()))


def test_runs_of_two_seeds_are_what_the_recipe_s_page_says():
    recipe = RESULTS / "recipe"
    page = (recipe / "README.md").read_text().partition("## Two seeds")[2]
    rows = re.findall(r"^\| .* \| \[?(-[\d.]+).* \| (-[\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 3
    names = {f"{name}seed{seed}": row[seed] for name, row in zip(("", "earlier_soap_", "lr_warmup0.18_"), rows)
             for seed in (0, 1)}  # fmt: skip
    for name, said in names.items():
        folder = recipe / ("k5_grown_rate3e-3" if name == "earlier_soap_seed0" else f"k5_60epochs/{name}")
        assert f"{json.loads((folder / 'test_llh.json').read_text())['test_llh']:.2f}" == said
        settings = json.loads((folder / "config.json").read_text())["experiment"]
        assert (settings["seed"], settings["epochs"], settings["n_samples"]) == (int(name[-1]), 60, 5)
        warmup = settings.get("lr_warmup", settings.get("rate_warmup"))  # as it was called
        assert (settings["beta_warmup"], round(warmup, 2)) == (0, 0.18 if name.startswith("lr_warmup") else 1)


@pytest.mark.parametrize(
    ("folder", "name", "n_held_out", "decimals", "page"),
    [
        ("caltech", "caltech101_silhouettes", 1000, 1, "README.md"),
        ("binarized_mnist", "binarized_mnist", 10000, 2, "recipe/README.md"),
    ],
)
def test_the_epochs_of_sets_that_are_overfitted_were_chosen_by_what_their_page_says(
    folder, name, n_held_out, decimals, page
):
    records = sorted((RESULTS / "recipe" / folder).glob("*/test_llh.json"), key=lambda path: epochs_of(path.parent))
    held_out = [f"{json.loads(path.read_text())['test_llh']:.{decimals}f}" for path in records]
    epochs = [str(epochs_of(path.parent)) for path in records]
    text = " ".join((RESULTS / page).read_text().split())
    for words in (held_out, epochs):
        assert f"{', '.join(words[:-1])} and {words[-1]}" in text
    best = max(records, key=lambda path: json.loads(path.read_text())["test_llh"])
    assert cells.EPOCHS_OF_SETS.get(name, PRESETS["fast"]["epochs"]) == epochs_of(best.parent)
    assert {(load_config(path.parent).dataset, load_config(path.parent).held_out) for path in records} == {
        (name, n_held_out)
    }


def epochs_of(folder):
    return load_config(folder).epochs


def test_the_two_runs_that_show_why_a_tighter_bound_helps_are_as_the_page_says():
    page = (RESULTS / "README.md").read_text().partition("## Why a tighter bound helps")[2]
    said = re.findall(r"^\| after .* \| (-[\d.]+) \| ([\d.]+) \| (-[\d.]+) \|(?: (-[\d.]+))? \|$", page, re.MULTILINE)
    found, beginnings = [], []
    for name in ("vae-1l-k50", "iwae-1l-k50"):
        rows = {row["epoch"]: row for row in read_csv(RESULTS / "fast" / name / "metrics.csv")}
        beginnings.append([rows[str(epoch)]["test_vae_elbo"] for epoch in range(220)])
        llh = json.loads((RESULTS / "fast" / name / "test_llh.json").read_text())["test_llh"]
        for epoch, last in (("219", ""), ("328", f"{llh:.2f}")):
            elbo, kl, bound = (float(rows[epoch][f"test_{key}"]) for key in ("vae_elbo", "kl", "iwae_elbo"))
            found.append((f"{elbo:.2f}", f"{kl:.1f}", f"{bound:.2f}", last))
    assert beginnings[0] == beginnings[1] and found[0] == found[2]
    assert said == [found[0], found[1], found[3]]


def test_a_cell_is_the_published_model_s_and_no_other_s():
    assert cells.cell_of(Config(objective="vae_elbo", n_samples=1).resolved()) == ("iwae_elbo", 1, 1, "no")
    assert cells.cell_of(Config(stochastic_layers=2, n_samples=50).resolved()) == ("iwae_elbo", 2, 50, "no")
    assert cells.cell_of(Config(n_latent=(50,)).resolved()) is None
    assert cells.cell_of(Config(n_hidden=(400,)).resolved()) is None


def test_a_committed_run_measures_the_same_again(tmp_path, mnist):
    """From the committed weights, with the recorded seed: the first batch; the others' values are in per_image.csv."""
    from evaluation import make_log_likelihood
    from utils import evenly_spaced

    folder = ROOT / "results/quick/iwae-1l-k5"
    config = load_config(folder)
    run = Run(tmp_path)
    run.weights = folder / "model.weights.h5"
    session = Session(config, run)
    session.load_weights()
    recorded = json.loads((folder / "test_llh.json").read_text())
    rows = [float(row["log_px"]) for row in read_csv(folder / "per_image.csv")]
    assert np.mean(rows) == pytest.approx(recorded["test_llh"], abs=1e-3) and len(rows) == recorded["n_images"]
    images = evenly_spaced(mnist.binarised_test_images(), recorded["n_images"])[:100]
    _, per_image = make_log_likelihood(session.model, recorded["n_samples"])(images, seed=config.seed)
    np.testing.assert_allclose(per_image.log_px, rows[:100], atol=0.01)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_style(command):
    process = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout
