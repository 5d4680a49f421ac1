"""The tables of the runs that the presets were chosen with."""

from experiment import recipe, run_folder
from experiment.settings import Config
from tests.test_tables import FAST, result, save_run


def test_a_cell_of_a_changed_preset_stands_beside_that_of_the_preset():
    changed = [result(-86.20, f"cells/changed_k{k}", n_samples=k, **{**FAST, "learning_rate": 1e-3}) for k in (1, 5)]
    text = recipe.variations_table(changed, [result(-86.40, "fast/preset", n_samples=1)])
    rows = [line for line in text.splitlines() if "](cells" in line]
    assert rows == [
        "| [changed_k1](cells/changed_k1) | -86.20 | 19 | -86.40 | 19 |",
        "| [changed_k5](cells/changed_k5) | -86.20 | 19 | not measured yet |  |",
    ]


def test_an_element_is_worth_what_the_preset_is_ahead_without_it():
    changes = {}, dict(beta_warmup=0.0), dict(optimizer="adam", learning_rate=1e-3, schedule="cosine")
    runs = [
        result(-88.0 - 0.4 * number + 0.1 * seed, n_samples=1, seed=seed, **{**FAST, **change})
        for number, change in enumerate(changes)
        for seed in (0, 1)
    ]
    assert recipe.elements_table(runs[:-1]).splitlines()[2:] == [
        "| `--preset fast`, k = 1 | seed 0 | seed 1 | the preset's lead |",
        "| --- | --- | --- | --- |",
        "| as it is | -88.00 | -87.90 |  |",
        "| beta_warmup 0.0 | -88.40 | -88.30 | +0.40 |",
        "| optimizer adam, learning_rate 0.001 | -88.80 |  | +0.80 |",
    ]
    assert recipe.elements_table(runs[2:]) == recipe.elements_table(runs[:2]) == ""  # nothing to compare


def test_curves_of_a_recipe_s_run_that_are_damaged_cost_no_other(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    for name in "ab":
        save_run(tmp_path / "recipe" / name, Config().resolved())
    (tmp_path / "recipe" / "a" / "metrics.csv").write_text("no rows")
    (tmp_path / "recipe" / "b" / "metrics.csv").write_text(
        ",".join(["epoch,step", *sorted(run_folder.DRAWN)]) + "\n0,0" + ",1" * len(run_folder.DRAWN) + "\n"
    )
    assert [[*curves] for curves in recipe.curves().values()] == [["b"]]
    assert "metrics.csv is damaged" in capfd.readouterr().err
