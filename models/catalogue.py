"""What the command line offers: every objective and every model, with the facts that flags are judged by.

Nothing here imports TensorFlow. The code behind an entry is imported when it is used.
"""

import functools
import importlib
from typing import Any, NamedTuple


class Hyperparameter(NamedTuple):
    """A keyword argument of an objective or a model, and the flag of that name, which no setting of Config may have.
    Entries that use one name share one Hyperparameter.
    """

    default: Any
    type: type
    help: str
    rules: dict = {}  # as in experiment.rules.setting: minimum, maximum, above, below, divides


class ObjectiveEntry(NamedTuple):
    """An objective: the function of the same name in `module`, and what the command line must know of it."""

    help: str
    hyperparameters: dict = {}  # name -> Hyperparameter; keyword arguments of the function
    elbo_at_one: bool = False  # with one sample it is the ELBO, in value and gradient
    resamples: bool = False  # --backward_samples: the gradient is sum_i w~_i grad log w_i, which drawn samples estimate
    least_samples: int = 1  # with fewer it is not defined, or q learns nothing
    module: str = "models.objectives"


class ModelEntry(NamedTuple):
    """A model: the class `name` in `module`, and the sizes it has unless flags say otherwise."""

    help: str
    name: str
    module: str
    sizes: dict  # number of stochastic layers -> (n_hidden, n_latent), each from the image up
    hyperparameters: dict = {}  # name -> Hyperparameter; keyword arguments of the class


GROUPS = Hyperparameter(
    1, int, "groups M that the k samples are parted into; 1: iwae_elbo", {"minimum": 1, "divides": True}
)
ELBO_WEIGHT = Hyperparameter(0.05, float, "weight of the ELBO; iwae_elbo has the rest", {"minimum": 0, "maximum": 1})
ALPHA = Hyperparameter(
    0.5, float, "w is raised to 1 - alpha; 0 is iwae_elbo, near 1 the ELBO", {"minimum": 0, "below": 1}
)
LATER = "models.estimators"  # the module of what later papers put beside the IWAE bound

OBJECTIVES = {
    "iwae_elbo": ObjectiveEntry("log mean w", elbo_at_one=True, resamples=True),
    "vae_elbo": ObjectiveEntry("mean log w", elbo_at_one=True),
    "vae_elbo_kl": ObjectiveEntry("mean log w, with the KL divergence in closed form where it has one"),
    "iwae_eq14": ObjectiveEntry("the paper's eq. 14: the gradient of iwae_elbo", elbo_at_one=True, resamples=True),
    "dreg": ObjectiveEntry("log mean w, with the doubly reparameterised gradient for q"),
    "stl": ObjectiveEntry("log mean w, without the score of q in the gradient: biased for k > 1"),
    "miwae": ObjectiveEntry("the mean of log mean w over M groups", {"groups": GROUPS}, elbo_at_one=True, module=LATER),
    "piwae": ObjectiveEntry("p follows iwae_elbo, q miwae", {"groups": GROUPS}, elbo_at_one=True, module=LATER),
    "ciwae": ObjectiveEntry(
        "vae_elbo and iwae_elbo, weighted", {"elbo_weight": ELBO_WEIGHT}, elbo_at_one=True, module=LATER
    ),
    "vr_iwae": ObjectiveEntry(
        "(log mean w^(1 - alpha)) / (1 - alpha)", {"alpha": ALPHA}, elbo_at_one=True, module=LATER
    ),
    "vr_iwae_dreg": ObjectiveEntry("vr_iwae with the doubly reparameterised gradient", {"alpha": ALPHA}, module=LATER),
    "rws": ObjectiveEntry(
        "reweighted wake-sleep: p follows iwae_elbo, q the wake-phi update", least_samples=2, module=LATER
    ),
    "rws_dreg": ObjectiveEntry("rws with the doubly reparameterised gradient", least_samples=2, module=LATER),
    "jvi": ObjectiveEntry("log mean w with its bias of order 1/k taken off", least_samples=2, module=LATER),
    "jvi_dreg": ObjectiveEntry("jvi with the doubly reparameterised gradient", least_samples=2, module=LATER),
}

MODELS = {
    "iwae": ModelEntry(
        "Burda et al.: Gaussian layers, Bernoulli pixels",
        name="IWAE",
        module="models.iwae",
        sizes={1: ((200,), (100,)), 2: ((200, 100), (100, 50))},
    ),
}


def hyperparameters():
    """Every hyperparameter: name -> (Hyperparameter, the objectives and models that have it).

    Raises ValueError where two of one name differ.
    """
    found = {}
    for owner, entry in (*OBJECTIVES.items(), *MODELS.items()):
        for name, parameter in entry.hyperparameters.items():
            if found.setdefault(name, (parameter, []))[0] != parameter:
                raise ValueError(f"{owner} and {found[name][1][0]} have different hyperparameters called {name}")
            found[name][1].append(owner)
    return found


def hyperparameters_of(model, objective):
    """Those of the two together: name -> Hyperparameter."""
    return MODELS[model].hyperparameters | OBJECTIVES[objective].hyperparameters


def objective_function(name, numbers):
    """The objective `name` with its hyperparameters bound: (output, beta=1.0) -> models.objectives.Estimate."""
    return functools.partial(getattr(importlib.import_module(OBJECTIVES[name].module), name), **numbers)


def model_class(name):
    """The class behind an entry of MODELS; its constructor is described in models/interface.py."""
    return getattr(importlib.import_module(MODELS[name].module), MODELS[name].name)
