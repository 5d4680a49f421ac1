"""Presets: named sets of flags. A run is what its settings are; the name of its preset is only a note beside them."""

from utils import UsageError

FAST = dict(
    epochs=328,
    optimizer="soap",
    batch_size=100,
    learning_rate=3e-3,
    schedule="cosine",
    lr_warmup=1.0,
    beta_warmup=10.0,
    grow_samples=0.67,
    ema=0.999,
)
PRESETS = {
    # Burda et al., sec. 5: what the program does without flags.
    "paper": dict(epochs=-1, optimizer="adam", batch_size=20),
    # A tenth of the paper's epochs; chosen on held-out images (results/recipe).
    "fast": FAST,
    # Twice the epochs, and 5 samples from the first one on; its models keep more units (results/recipe).
    "long": FAST | dict(epochs=656, learning_rate=2e-3, grow_samples=0.75, first_samples=5),
    # The README's first run: minutes on two CPU cores.
    "quick": dict(
        epochs=20,
        optimizer="adam",
        batch_size=100,
        learning_rate=2e-3,
        schedule="cosine",
        ema=0.99,
        eval_images=1000,
    ),
}
SETS_RATE = ("optimizer", "schedule")  # settings that a preset's learning rate is meant for


def settings_beside(preset, given):
    """The settings of a preset, overridden by the flags `given`, {flag: value}. Its warm-ups follow other --epochs.

    Raises UsageError, as where another optimizer or schedule than the preset's has no --learning_rate beside it.
    """
    if preset not in PRESETS:
        raise UsageError(f"--preset: {preset} is not allowed; one of {', '.join(PRESETS)}")
    settings = dict(PRESETS[preset])
    epochs, usual = given.get("epochs", settings["epochs"]), settings["epochs"]
    if epochs == -1 and usual != -1:
        raise UsageError(f"--epochs: -1 does not go with --preset {preset}; --preset paper is the paper's schedule")
    for name in SETS_RATE:
        value, meant = given.get(name), settings.get(name)
        if value not in (None, "paper") and meant is not None and value != meant and "learning_rate" not in given:
            raise UsageError(
                f"--{name}: {value} needs --learning_rate{' and --epochs N' * (epochs == -1)} beside it, for the rate"
                f" of --preset {preset} is for {meant}"
            )
    if given.get("schedule", "cosine") != "cosine":
        settings.pop("lr_warmup", None)
    if epochs > 0:
        if "beta_warmup" in settings:  # keeps its share of the run
            settings["beta_warmup"] *= epochs / usual
        if "lr_warmup" in settings:  # not so: a faster rise costs SOAP 0.2 nats (results/recipe, "Two seeds")
            settings["lr_warmup"] = min(settings["lr_warmup"], epochs / 10)
    return settings | given
