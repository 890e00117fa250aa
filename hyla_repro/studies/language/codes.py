"""What trained language models write, and what their codes tell of the character that they belong to."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from einops import rearrange
from jaxtyping import Float, Int

from hyla_repro.experiment import Experiment
from hyla_repro.models.generation import generate
from hyla_repro.models.transformer import load_model
from hyla_repro.studies.codes import as_features, own_codes, with_control
from hyla_repro.tasks.language import Language

PROMPT = "\n\nKING.\n"
_CHARACTERS, _TEMPERATURE = 300, 0.8
_WINDOWS = 200
_VOWELS = "aeiou"
LETTERS = ("vowel", "consonant", "capital", "space", "end of line", "other")


def go_on(run: Experiment, weights: bytes, prompt: str = PROMPT, device: str = "cpu") -> str:
    """Return a prompt and the 300 characters that a trained model adds, drawn at temperature 0.8 with seed 0.

    Raises: ValueError for a prompt that is empty, longer than the model's context or of other characters than its text.
    """
    task = run.build_task()
    assert isinstance(task, Language)
    tokens = rearrange(task.encode(prompt), "t -> 1 t").to(device)
    drawn = generate(load_model(weights, run.model).to(device), tokens, _CHARACTERS, temperature=_TEMPERATURE, seed=0)
    return task.decode(drawn[0].cpu())


def sample_table(runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu") -> pd.DataFrame:
    """Let models go on from one prompt, all with the same random numbers.

    Returns: one row per run: `written`, what `go_on` returns.
    """
    pairs = zip(runs, weights, strict=True)
    return pd.DataFrame([{"id": run.id, "written": go_on(run, content, device=device)} for run, content in pairs])


def letter_of(characters: str) -> Int[np.ndarray, " n"]:
    """Return the class of each character, as its place in LETTERS."""

    def place(character: str) -> int:
        if character.islower():
            return 0 if character in _VOWELS else 1
        return 2 if character.isupper() else {" ": 3, "\n": 4}.get(character, 5)

    return np.array([place(character) for character in characters])


def letter_code_table(
    runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu", windows: int = _WINDOWS
) -> pd.DataFrame:
    """Average the own codes of characters by their class, and tell the class of others by the nearest average.

    A character's own code is that of its attending to itself. Averages are made of one half of the windows, and the
    classes told in the other half, over codes whose heads have variance 1.

    Args:
        runs: language runs of one shape, by characters.

    Returns: one row per run, model (`trained` or `untrained`), layer and class of characters (`letter`): the mean code,
        a column per head (`head_1`, ...), and `told`, the share of the class that is told right, in [0, 1].
    """
    rows = []
    for name, stack in with_control(runs, weights, device).items():
        codes, batch = own_codes(stack, "validation", windows)
        for index, run in enumerate(runs):
            task = run.build_task()
            assert isinstance(task, Language)
            letters = letter_of(task.decode(batch.inputs[index].flatten()))
            features = as_features(rearrange(codes[index], "b t l h -> (b t) l h"))
            for layer in range(run.model.n_layers):
                means, told = _told(features[:, layer], letters)
                for letter, label in enumerate(LETTERS):
                    heads = {f"head_{head}": value for head, value in enumerate(means[letter], 1)}
                    rows.append({"id": run.id, "model": name, "layer": layer + 1, "letter": label,
                                 "told": told[letter], **heads})  # fmt: skip
    return pd.DataFrame(rows).round(5)


def _told(codes: Float[np.ndarray, "n h"], letters: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean code of each class over the first half, and the share told right in the second."""
    half = len(codes) // 2
    means = np.stack([codes[:half][letters[:half] == letter].mean(0) for letter in range(len(LETTERS))])
    spread = codes[:half].std(0)
    # A head whose code is constant tells nothing, and must not be divided by nothing.
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    distances = (((codes[half:, None] - means) * scale) ** 2).sum(-1)
    right = distances.argmin(-1) == letters[half:]
    return means, np.array([right[letters[half:] == letter].mean() for letter in range(len(LETTERS))])


def similarity(table: pd.DataFrame) -> Float[np.ndarray, "letter letter"]:
    """Return the cosine similarity of the classes' mean codes, each head centred over the classes.

    Args:
        table: rows of `letter_code_table` of one run, model and layer.
    """
    means = table.set_index("letter").loc[list(LETTERS)].filter(like="head_").to_numpy()
    means = means - means.mean(0)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    directions = np.divide(means, norms, out=np.zeros_like(means), where=norms > 0)
    return directions @ directions.T
