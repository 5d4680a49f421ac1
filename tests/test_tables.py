"""The README's tables, from results to Markdown."""

import json
import re
import types

import pytest

import plots.comparison
import tables
from data.catalogue import DATASETS
from experiment import cells, markdown, run_folder, survey
from experiment.presets import PRESETS, settings_beside
from experiment.settings import Config
from tests.test_tasks import run
from utils import UsageError, write_csv

FAST = dict(preset="fast", **PRESETS["fast"])


def result(value, folder="run", **settings):
    llh = {"test_llh": value, "standard_error": 0.25, "mc_error": 0.01, "n_samples": 5000, "n_images": 10000}
    llh |= {"active_units": [19]}
    config = Config(**(settings if "preset" in settings else {**FAST, **settings})).resolved()
    return cells.Result(folder, config, llh, {"epochs": config.n_epochs, "seconds": 5400})


def test_a_row_says_what_its_run_measured_and_took():
    text = markdown.tables([result(-86.30, "fast/iwae-1l-k1", n_samples=1)])
    (row,) = [line for line in text.splitlines() if "fast/iwae-1l-k1" in line]
    assert row == (
        "| 1 | **-86.30** ± 0.25 | -86.35 | -86.76 | +0.05 | 19 | 328 | 1.5 | [fast/iwae-1l-k1](fast/iwae-1l-k1) |"
    )
    assert "| 5 | not measured yet | -85.18 | -85.54 |  |  |  |  |  |" in text


def test_readme_s_table_has_means_over_seeds_and_counts_what_is_met():
    runs = [result(value, f"seed{seed}", n_samples=1, seed=seed) for seed, value in enumerate((-86.50, -86.30, -86.28))]
    text = markdown.summary([*runs, result(-85.30, n_samples=5), result(-82.81, stochastic_layers=2, n_samples=50)])
    assert text.splitlines()[2:9] == [
        "| IWAE, 1 stochastic layer | **-86.36**‡ (-86.35, -86.76) | **-85.30** (-85.18, -85.54)"
        " | not measured yet (-84.59, -84.78) |",
        "| IWAE, 2 stochastic layers | not measured yet (-84.83, -85.33) | not measured yet (-83.48, -83.89)"
        " | **-82.81** (-82.82, -82.90) |",
        "| VAE, 1 stochastic layer | **-86.36**‡ (-86.35, -86.76) | not measured yet (-86.10, -86.47)"
        " | not measured yet (-86.06, -86.35) |",
        "| VAE, 2 stochastic layers | not measured yet (-84.83, -85.33) | not measured yet (-84.08, -85.01)"
        " | not measured yet (-83.89, -84.78) |",
        "| DReG, 1 stochastic layer | not measured yet (-86.08) | not measured yet (-84.90)"
        " | not measured yet (-84.32) |",
        "| Conditional IWAE, learned prior | not measured yet (-82.32) | not measured yet (-81.41)"
        " | not measured yet (-80.78) |",
        "| Conditional IWAE, standard prior | not measured yet | not measured yet | not measured yet |",
    ]
    assert ", 1 of them by less than 0.2 nats (two seeds may differ by that), 2 missed by 0.01 to 0.12 nats." in text
    at_once = markdown.summary([result(-85.184, n_samples=5)])  # shown as -85.18, and below it
    assert "0 of the reference's 16 values are met (reached or exceeded), 1 missed by 0.00 nats." in at_once
    assert "‡ Mean over several seeds" in text
    assert "1 of the reference's 16 values are met (reached or exceeded).\n" in markdown.summary(
        [result(-84.9, n_samples=5)]
    )


def test_a_cell_shows_the_longest_preset_whatever_the_numbers():
    long = dict(preset="long", **PRESETS["long"])
    runs = [
        result(-85.10, "fast/a", n_samples=5),
        result(-85.90, "long/a", n_samples=5, **long),
        result(-85.70, "long/b", n_samples=5, seed=1, **long),
        result(-84.40, "fast/b", n_samples=50),
        result(-84.00, "long/c", n_samples=50, seed=1, **long),  # without the first seed it is no cell
    ]
    (row,) = [line for line in markdown.summary(runs).splitlines() if line.startswith("| IWAE, 1")]
    assert "| **-85.80**†‡ (-85.18, -85.54) | **-84.40** (-84.59, -84.78) |" in row
    assert "† 656 epochs, all others 328" in markdown.summary(runs)
    text = markdown.tables(runs)
    assert "[long/a](long/a)" in text and "fast/a" not in text and "long/c" not in text
    assert "2 seeds of `iwae_elbo`, 1 layer, k=5: [-85.90](long/a), [-85.70](long/b)" in text


def test_the_second_opinion_s_table_has_means_and_their_errors(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    run = run_folder.Run(tmp_path / "fast" / "a", lock=False)
    run.path.mkdir(parents=True)
    errors = dict(mc_error=0.3, annealed_mc_error=0.4)
    test = [dict(log_px=-80, annealed=-79, **errors), dict(log_px=-90, annealed=-90.5, **errors)]
    write_csv(run.annealed, test)
    runs = [result(-80, f"fast/{name}") for name in "ab"]
    assert markdown.annealed(runs).count("\n") == 1  # as where task 7 was stopped after the first table
    write_csv(run.bracket, [dict(lower=-70.3, upper=-70, log_px=-71, mc_error=1)])
    row = markdown.annealed(runs).splitlines()[-1]
    assert row == ("| [fast/a](fast/a) | 2 | -85.00 ± 0.21 | -84.75 ± 0.28 | +0.25 ± 0.35 | 1 | 0.30 | 1.00 |")
    drawn = [dict(lower=-70.3, upper=-70, log_px=-71, mc_error=1), dict(lower=-70.1, upper=-70, log_px=-73, mc_error=1)]
    write_csv(run.bracket, drawn)
    assert markdown.annealed(runs).endswith("| 2 | 0.20 ± 0.10 | 2.00 ± 1.00 |")
    for damaged in ("", "log_px\n1\n", "log_px,annealed\n1,x\n"):
        run.annealed.write_text(damaged)
        assert markdown.annealed(runs).count("\n") == 1 and "fast/a, in the table" in capfd.readouterr().err


def test_the_table_of_estimators_knows_hyperparameters_and_other_growths_of_k():
    runs = [
        result(-84.50, "fast/a", objective="miwae", hyperparameters={"groups": 8}, n_samples=64),
        result(-84.70, "fast/b", objective="miwae", hyperparameters={"groups": 8}, n_samples=64, seed=1),
        result(-84.30, "fast/c", objective="miwae", hyperparameters={"groups": 4}, n_samples=64),
        result(-84.10, "fast/d", objective="rws", n_samples=50, first_samples=5),
        result(-80.00, "fast/e", objective="stl", n_samples=64, **{**FAST, "learning_rate": 1e-3}),
        result(-80.00, "fast/f", objective="stl", n_samples=64, stochastic_layers=2),
        result(-80.00, "long/a", n_samples=50, preset="long", **PRESETS["long"]),  # no more epochs than the others
    ]
    rows = {row.split(" | ")[0]: row for row in markdown.estimators(runs).splitlines()}
    assert rows["| MIWAE, 8 groups"].endswith("groups |  | [-84.60](../results/fast/a) | -84.97 ± 0.10 |")
    assert rows["| MIWAE, 4 groups"].endswith("groups |  | [-84.30](../results/fast/c) | -84.56 |")
    assert rows["| RWS"] == "| RWS | [-84.10](../results/fast/d) | not measured yet |  |"
    assert rows["| IWAE"] == "| IWAE | not measured yet | not measured yet | -84.52 ± 0.02 |"
    assert rows["| STL"] == "| STL | not measured yet | not measured yet |  |"
    for name, _, hyperparameters, _ in cells.ESTIMATORS:
        assert all(str(value) in name for value in hyperparameters.values())
    assert "fast/" not in markdown.tables(runs)  # the seeds of miwae are no cell of the main tables


def test_runs_of_one_seed_are_not_averaged():
    runs = [
        result(-83.50, "fast/again", n_samples=1, stochastic_layers=2, objective="vae_elbo"),
        result(-83.60, "fast/other", n_samples=1, stochastic_layers=2),
        result(-84.00, "fast/a", n_samples=50, **{**FAST, "grow_samples": 0.0}),
        result(-84.90, "fast/b", n_samples=50),
    ]
    (found,) = cells.grouped(runs[:2]).values()
    assert [run.folder for run in found] == ["fast/again"]
    assert "| IWAE | [-84.90](../results/fast/b) |" in markdown.estimators(runs)


def test_the_table_of_data_sets_has_each_one_s_own_runs():
    runs = [
        result(-88.50, "fast/a", dataset="binarized_mnist", n_samples=50),
        result(-104.00, "fast/b", dataset="omniglot", n_samples=50, stochastic_layers=2),
        result(-86.20, "fast/c", n_samples=1),
        result(-1.0, "fast/f", n_samples=1, seed=1, **{**FAST, "beta_warmup": 0.0}),
        result(-1.0, "fast/g", dataset="caltech101_silhouettes", n_samples=1),
        result(
            -146.00, "fast/h", dataset="caltech101_silhouettes", n_samples=50, **settings_beside("fast", {"epochs": 80})
        ),
        result(-1.0, "fast/d", dataset="omniglot", n_samples=50, binarise="fixed"),
        result(-1.0, "fast/e", dataset="fashion_mnist", n_samples=50, conditional="learned_prior"),
    ]
    rows = markdown.sets(runs).splitlines()[2:]
    assert len(rows) == 2 * len(DATASETS) and sum("](fast/" in row for row in rows) == 4
    missing = "not measured yet"
    assert rows[0] == f"| `mnist`, 1 layer | [-86.20](fast/c) | {missing} | {missing} |"
    assert rows[2] == (
        f"| `binarized_mnist`, 1 layer | {missing} (-88.71) | {missing} (-89.05) | [-88.50](fast/a) (-87.10) |"
    )
    assert rows[5] == (
        f"| `omniglot`, 2 layers | {missing} (-107.58) | {missing} (-106.30) | [-104.00](fast/b) (-103.38) |"
    )
    assert rows[8] == f"| `caltech101_silhouettes`, 1 layer, 80 epochs | {missing} | {missing} | [-146.00](fast/h) |"
    of_omniglot = runs[1]._replace(llh=runs[1].llh | {"n_images": 8115})
    assert cells.finished([runs[1], of_omniglot]) == [of_omniglot]  # which has fewer test images


def save_run(folder, config, **llh):
    """A folder that holds a run which was trained, by its files alone, and measured."""
    saved = run_folder.Run(folder)
    saved.begin(config)
    saved.weights.touch()
    saved.training.write_text(json.dumps({"epochs": config.n_epochs, "seconds": 7200}))
    saved.test_llh.write_text(json.dumps(result(-90.0).llh | llh))
    return saved


def test_every_run_has_a_line_whatever_it_was_measured_on(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    one_image = dict(standard_error=None, mc_error=None, n_samples=1, n_images=1)
    locked = save_run(tmp_path / "fast/a", Config().resolved(), **one_image)  # as while it is being measured
    save_run(tmp_path / "fast/b", Config(held_out=50, dataset="fashion_mnist").resolved(), n_images=50)
    save_run(tmp_path / "fast/c", Config().resolved()).training.unlink()  # killed before it was written
    save_run(tmp_path / "recipe/e", Config(held_out=10000).resolved())  # which has a page of its own
    mine = dict(n_train=60, n_test=20, n_labels=0, image_shape=[4, 6], crc32=1)
    save_run(tmp_path / "fast/d", Config(dataset="/home/me/photos.npz", own_data=mine).resolved(), n_images=20)
    lines = markdown.every_run(cells.measured()).splitlines()
    del locked
    assert lines[2:] == [
        "| [fast/a](fast/a) | -90.00 |  |  | 1 | 1 | 19 | 3,280 | 2.0 |",
        "| [fast/b](fast/b) | -90.00 ± 0.25 | 0.010 |  | 5000 | 50 held out of fashion_mnist | 19 | 3,280 | 2.0 |",
        "| [fast/d](fast/d) | -90.00 ± 0.25 | 0.010 |  | 5000 | 20 of photos | 19 | 3,280 | 2.0 |",
    ]


def test_a_run_that_cannot_be_opened_costs_no_other(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    for name in "abcd":
        save_run(tmp_path / "fast" / name, Config().resolved())
    (tmp_path / "fast/d/test_llh.json").write_text("{}")
    save_run(tmp_path / "recipe/e", Config().resolved()).weights.unlink()  # and is not opened
    broken, foreign, no_metrics = (run_folder.Run(tmp_path / "fast" / name, lock=False) for name in "abc")
    broken.weights.write_text("no weights")
    foreign.config.write_text(foreign.config.read_text().replace('"iwae_elbo"', '"vr_max"'))
    opened = []

    def work(settings, sessions):
        opened.append((len(sessions), *sessions))

    no_metrics.metrics.write_text("no rows")
    assert survey(work, "", ["--gpu", "-1"], same=("dataset",)) == 0
    out, err = capfd.readouterr()
    assert opened == [(3,)]  # of three that could be looked at, none
    assert err.count(" is left out: ") == err.count("\n") == 4
    assert "fast/b is left out: --run_dir: " in err and "--objective: vr_max is not allowed" in err
    assert "model.weights.h5 does not fit this model, or is damaged" in err and "metrics.csv is damaged" in err
    assert "fast/d/test_llh.json has None as test_llh" in err
    broken.training.write_text('{"epochs": 3}')
    assert [found.folder for found in cells.measured()] == ["fast/c"]  # the tables are rebuilt from the others
    assert "training.json has None as seconds" in capfd.readouterr().err


def test_a_model_without_a_number_costs_no_other(capfd):
    def opened(measure):
        run = types.SimpleNamespace(recorded=lambda: dict(n_samples=5, n_images=7, test_llh=-80.0))
        return types.SimpleNamespace(run=run, config=Config(), measure=measure)

    def none():
        raise UsageError("no number")

    good = opened(lambda: types.SimpleNamespace(test_llh=-80.5))
    tables.measure_again([("a", opened(none)), ("b", good)])
    assert capfd.readouterr() == ("b: -80.500, recorded -80.000: -0.500 nats\n", "a is left out: no number\n")


def test_what_is_no_cell_of_the_tables_is_in_none():
    others = [
        result(-80.0, "another_size", n_latent=(50,)),
        result(-80.0, "another_seed", seed=1),
        result(-80.0, "another_recipe", preset="quick", **PRESETS["quick"]),
        result(-80.0, "a_changed_recipe", first_samples=5),
        result(-80.0, "a_shorter_schedule", preset="paper", epochs=20, learning_rate=1e-3),
    ]
    text = markdown.tables(others)
    assert not any(r.folder in text for r in others) and "0 of the reference's 16" in markdown.summary(others)


def test_the_paper_s_schedule_and_seeds_have_their_own_place():
    paper = dict(preset="paper", n_samples=1)
    seeds = [result(-86.0 - 0.1 * seed, f"seed{seed}", n_samples=1, seed=seed) for seed in (0, 1, 2)]
    text = markdown.tables([result(-86.40, "faithful", **paper), *seeds])
    fast, _, own_schedule = text.partition("The paper's own schedule")
    assert "faithful" in own_schedule and "3,280" in own_schedule and "faithful" not in fast
    two_layers = markdown.tables([result(-83.0, "two", stochastic_layers=2, **paper)])
    assert "The paper's own schedule, IWAE, 2 stochastic layers:" in two_layers
    assert "The paper's own schedule, IWAE, 1" not in two_layers
    links = "[-86.00](seed0), [-86.10](seed1), [-86.20](seed2)"
    spread = "mean -86.10, standard deviation between seeds 0.10 nats."
    assert f"3 seeds of `iwae_elbo`, 1 layer, k=1: {links}; {spread}" in text
    both = [result(-81.0, f"c{s}", seed=s, n_samples=5, conditional="learned_prior") for s in (0, 1)]
    assert "2 seeds of `iwae_elbo`, 1 layer, learned_prior, k=5: " in markdown.tables(both)


def test_vae_with_one_sample_is_the_iwae_s_cell():
    vae = cells.cell_of(Config(objective="vae_elbo", n_samples=1).resolved())
    assert vae == cells.cell_of(Config(n_samples=1).resolved()) in cells.REFERENCE
    shown = markdown.with_vae_at_one(cells.REFERENCE)
    assert {cell for cell in shown if cell not in cells.REFERENCE} == {("vae_elbo", n, 1, "no") for n in (1, 2)}
    assert all(shown["vae_elbo", n, 1, "no"] == cells.REFERENCE["iwae_elbo", n, 1, "no"] for n in (1, 2))


def test_readme_and_figure_are_rebuilt_and_every_run_is_measured_again(few_digits, no_figures, monkeypatch, capfd):
    marks = "before\n<!-- results -->\nold\n<!-- /results -->\nafter\n"
    readme, page, tasks = (few_digits / name for name in ("first.md", "README.md", "tasks.md"))
    readme.write_text(marks)
    tasks.write_text("<!-- estimators -->\nold\n<!-- /estimators -->\n")
    page.write_text(
        marks + "<!-- runs -->\n<!-- /runs -->\n<!-- annealed -->\n<!-- /annealed -->\n<!-- sets -->\n<!-- /sets -->\n"
    )
    monkeypatch.setattr(tables, "README", readme)
    monkeypatch.setattr(tables, "TASKS", tasks)
    compared, draw = {}, plots.comparison.comparison
    monkeypatch.setattr(
        plots.comparison, "comparison",
        lambda sections, ks, sources, path: (compared.update(sources), draw(sections, ks, sources, path)),
    )  # fmt: skip
    assert run("task04", "--jit", "off", "--n_hidden", 20) == 0
    (folder,) = few_digits.glob("quick/*/")
    recorded = json.loads((folder / "test_llh.json").read_text())["test_llh"]
    capfd.readouterr()
    assert survey(tables.work, tables.__doc__, ["--measure", "--gpu", "-1"], measure="measure again") == 0
    out, err = capfd.readouterr()
    assert f"quick/{folder.name}: {recorded:.3f}, recorded {recorded:.3f}: +0.000 nats" in out and err == ""
    for text in (readme.read_text(), page.read_text()):
        assert text.startswith("before\n<!-- results -->\n") and "<!-- /results -->\nafter\n" in text
        assert "\nold\n" not in text
    assert "\nold\n" not in tasks.read_text() and "| IWAE | not measured yet |" in tasks.read_text()
    (row,) = [line for line in page.read_text().splitlines() if f"[quick/{folder.name}]" in line]
    assert f"| {recorded:.2f} ± " in row and " | 20 | 50 | " in row and re.search(r" \| 2 \| \d\.\d \|$", row)
    assert (few_digits / "comparison.png").stat().st_size > 1000
    for name, source in {"reference": cells.REFERENCE, "paper": cells.PAPER}.items():
        assert compared[name] == markdown.with_vae_at_one(source)
    assert compared["this project"] == {}  # a short run fills no cell


def test_short_measurements_fill_no_page(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    pages, compared = {}, []
    monkeypatch.setattr(tables, "annealed", lambda runs: [one.folder for one in runs])
    monkeypatch.setattr(tables, "rewrite", lambda page, **parts: pages.update({page: parts}))
    monkeypatch.setattr(plots.comparison, "comparison", lambda _, ks, sources, path: compared.append(sources))
    for name, n_images in (("a", 1000), ("b", 10000)):
        config = result(-90.0, n_samples=50 if name == "a" else 5).config
        save_run(tmp_path / "fast" / name, config, n_images=n_images)
    tables.work(Config(), [("a", lambda: pytest.fail("it was measured"))], False)
    assert pages[tables.README]["results"].count("**") == 2 and "fast/a" in pages[tmp_path / "README.md"]["runs"]
    for part in ("results", "sets"):
        assert "fast/a" not in pages[tmp_path / "README.md"][part]
    assert "fast/a" not in pages[tables.TASKS]["estimators"]
    assert pages[tmp_path / "README.md"]["annealed"] == ["fast/a", "fast/b"]  # of whatever has been annealed
    assert {cell[2] for cell in compared[0]["this project"]} == {5}


def test_a_page_without_its_marks_stays_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    for text in ("all\n", "a\n<!-- results -->\nthe rest\n", "a\n<!-- /results -->\n<!-- results -->\nthe rest\n"):
        page.write_text(text)
        with pytest.raises(UsageError, match="the marks <!-- results --> and <!-- /results --> are not there"):
            markdown.rewrite(page, results="new")
        assert page.read_text() == text
