from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tristream.streams.batches import Batch, batches_of
from tristream.streams.config import TrainingConfig
from tristream.streams.training_loop import (
    Phase,
    Progress,
    State,
    TrainingDiverged,
    cross_entropy,
    evaluate,
    learning_rate,
    run_phase,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HOME = Path(__file__).parents[1]


class Interrupted(Exception):
    """Simulated kill."""


def tiny_network() -> nn.Module:
    """Return a network with all that a state must keep: channels-last convolution, batch norm, dropout."""
    torch.manual_seed(5)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(5 * 6 * 6, 3),
    )
    return network.to(memory_format=torch.channels_last)


def tiny_phase(network: nn.Module, n_train: int = 20, n_val: int = 9, **settings: object) -> Phase:
    config = TrainingConfig(batch_size=8, learning_rate=0.01, **{"epochs": 6, **settings})
    drawn = torch.Generator().manual_seed(0)
    looks = 0.2 * torch.randn(3, 3, 8, 8, generator=drawn)  # of the classes
    labels, held_out_labels = torch.arange(n_train) % 3, torch.arange(n_val) % 3
    pictures = looks[labels] + torch.randn(n_train, 3, 8, 8, generator=drawn)
    held_out = looks[held_out_labels] + torch.randn(n_val, 3, 8, 8, generator=drawn)

    def train_batches(generator: np.random.Generator):
        for rows in batches_of(n_train, config.batch_size, generator):
            noise = torch.from_numpy(generator.normal(size=(len(rows), 3, 8, 8)).astype(np.float32))
            yield Batch((pictures[rows] + 0.1 * noise,), labels[rows], [f"v{row}" for row in rows])

    def val_batches():
        yield Batch((held_out,), held_out_labels, [f"w{row}" for row in range(n_val)])

    n_batches = len(batches_of(n_train, config.batch_size))
    return Phase(
        "tiny", config, network, cross_entropy(network), n_batches, train_batches, val_batches
    )


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].shape == second[name].shape, name
        assert torch.equal(first[name], second[name]), name


def stop_at(epoch: int):
    def on_epoch(metrics: dict[str, float]) -> None:
        if metrics["epoch"] == epoch:
            raise Interrupted

    return on_epoch


@pytest.mark.parametrize(
    ("optimizer", "schedule"), [("sgd", "plateau"), ("adam", "one_cycle"), ("adamw", "constant")]
)
def test_an_interrupted_phase_ends_in_the_same_bits_as_an_undisturbed_one(
    tmp_path, optimizer, schedule
):
    settings = {"optimizer": optimizer, "schedule": schedule, "weight_decay": 0.01}
    undisturbed = tiny_network()
    history = run_phase(tiny_phase(undisturbed, **settings), seed=3, device=DEVICE)
    state = tmp_path / "state"
    for epoch in (2, 3, 6):  # killed three times, at another place each time
        torch.manual_seed(epoch)  # whatever the process drew before must not matter
        with pytest.raises(Interrupted):
            run_phase(
                tiny_phase(tiny_network(), **settings),
                seed=3, device=DEVICE, state=State(state, save_seconds=0), on_epoch=stop_at(epoch),
            )  # fmt: skip
    resumed, heard = tiny_network(), []
    again = run_phase(
        tiny_phase(resumed, **settings),
        seed=3,
        device=DEVICE,
        state=State(state, save_seconds=0),
        on_epoch=heard.append,
    )
    assert again == history == heard
    assert_same_bits(weights(resumed), weights(undisturbed))


def test_a_phase_that_was_finished_is_not_trained_again(tmp_path):
    first = tiny_network()
    run_phase(tiny_phase(first), seed=3, device=DEVICE, state=State(tmp_path / "state"))
    again = tiny_network()
    phase = tiny_phase(again)

    def no_batches(generator):
        raise AssertionError("a finished phase was trained")

    run_phase(
        Phase(phase.name, phase.config, again, phase.objective, phase.n_batches, no_batches, phase.val_batches),
        seed=3, device=DEVICE, state=State(tmp_path / "state"),
    )  # fmt: skip
    assert_same_bits(weights(first), weights(again))


@pytest.mark.parametrize("difference", ["signature", "seed", "learning_rate", "name"])
def test_a_state_of_another_training_is_not_resumed(tmp_path, difference):
    state = tmp_path / "state"
    with pytest.raises(Interrupted):
        run_phase(
            tiny_phase(tiny_network()),
            seed=3, device=DEVICE, state=State(state, "a", save_seconds=0), on_epoch=stop_at(4),
        )  # fmt: skip
    assert json.loads((tmp_path / "state.json").read_text())["progress"]["epoch"] == 3
    seed = 4 if difference == "seed" else 3
    signature = "b" if difference == "signature" else "a"

    def phase(network: nn.Module) -> Phase:
        made = tiny_phase(network)
        config = made.config.model_copy(
            update={"learning_rate": 0.02} if difference == "learning_rate" else {}
        )
        name = "another" if difference == "name" else made.name
        return Phase(
            name,
            config,
            network,
            cross_entropy(network),
            made.n_batches,
            made.train_batches,
            made.val_batches,
        )

    fresh, disturbed = tiny_network(), tiny_network()
    run_phase(phase(fresh), seed=seed, device=DEVICE)
    run_phase(phase(disturbed), seed=seed, device=DEVICE, state=State(state, signature))
    assert_same_bits(weights(fresh), weights(disturbed))


def test_a_damaged_state_is_not_resumed(tmp_path):
    with pytest.raises(Interrupted):
        run_phase(
            tiny_phase(tiny_network()), seed=3, device=DEVICE, state=State(tmp_path / "state", save_seconds=0),
            on_epoch=stop_at(4),
        )  # fmt: skip
    file = tmp_path / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    fresh, disturbed = tiny_network(), tiny_network()
    run_phase(tiny_phase(fresh), seed=3, device=DEVICE)
    run_phase(tiny_phase(disturbed), seed=3, device=DEVICE, state=State(tmp_path / "state"))
    assert_same_bits(weights(fresh), weights(disturbed))


def test_the_state_keeps_the_shape_of_counters(tmp_path):
    from tristream.store.checkpoint import load_artifact

    run_phase(
        tiny_phase(tiny_network(), optimizer="adam", epochs=1),
        seed=3,
        device=DEVICE,
        state=State(tmp_path / "state"),
    )
    arrays, _ = load_artifact(tmp_path / "state")
    assert arrays["module.1.num_batches_tracked"].shape == ()
    assert arrays["optimizer.0.step"].shape == ()


def test_the_weights_of_the_best_epoch_are_kept():
    network, seen = tiny_network(), []
    phase = tiny_phase(
        network, epochs=12, schedule="constant", stop_patience=None, optimizer="adam"
    )
    history = run_phase(
        phase, seed=0, device=DEVICE, on_epoch=lambda metrics: seen.append(weights(network))
    )
    best = int(np.argmin([metrics["val_loss"] for metrics in history]))
    assert 0 < best < len(history) - 1, "the series must have its lowest value inside"
    assert_same_bits(weights(network), seen[best])
    assert evaluate(phase, DEVICE)[0] == history[best]["val_loss"]
    assert not network.training


@pytest.mark.parametrize("epochs", [1, 7])
def test_one_cycle_is_torchs_with_at_most_one_step_between(epochs):
    """torch reaches its peak and its end one step before 30 % and 100 % of the steps; ours is exact."""
    config = TrainingConfig(epochs=epochs, learning_rate=0.02, schedule="one_cycle")
    n_steps = 1000 * epochs
    theirs = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.02, total_steps=n_steps, anneal_strategy="cos", cycle_momentum=False
        ),
        n_steps,
    )
    ours = np.array([learning_rate(config, step / n_steps) for step in range(n_steps + 1)])
    peak = round(0.3 * n_steps)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6) == pytest.approx(0.02 / 25)
    assert ours[peak] == pytest.approx(theirs[peak - 1], rel=1e-6) == pytest.approx(0.02)
    np.testing.assert_allclose(ours[peak:], theirs[peak - 1 :], rtol=1e-6)
    assert (theirs[: peak - 1] >= ours[: peak - 1] * (1 - 1e-9)).all()
    assert (theirs[: peak - 1] <= ours[1:peak] * (1 + 1e-9)).all()
    assert ours[-1] == pytest.approx(0.02 * 4e-6)


def torch_rates(make_scheduler, n_steps: int) -> np.ndarray:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
    scheduler, rates = make_scheduler(optimizer), []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def loss_series() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    noisy = [
        np.exp(-np.arange(60) / 20) + generator.normal(0, spread, 60)
        for spread in (0.001, 0.02, 0.2)
    ]
    slow = 1 - 0.5e-4 * np.arange(60)  # gains of less than 1e-4 an epoch, which add up
    return {
        "rises": np.arange(40.0),
        "stands still": np.ones(60),
        "falls": 1 / np.arange(1, 50),
        "falls slowly": slow,
        "falls, then stands": np.r_[1 / np.arange(1, 12), np.full(30, 0.5)],
        "gains just in time": np.tile([1.0, 1, 1, 1, 1, 0.9], 8) - np.arange(48) * 1e-3,
        **{f"noisy {index}": series for index, series in enumerate(noisy)},
    }


@pytest.mark.parametrize("name", loss_series())
def test_the_plateau_rule_is_torchs_with_a_patience_of_four(name):
    config = TrainingConfig(epochs=1000, schedule="plateau", learning_rate=0.01, stop_patience=None)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=4, factor=0.1, min_lr=1e-6, threshold=1e-4, threshold_mode="abs"
    )
    progress = Progress()
    for loss in loss_series()[name]:
        scheduler.step(loss)
        progress.note({"val_loss": float(loss)}, config)
        assert learning_rate(config, 0, progress.n_reductions) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-9
        )


def test_the_rate_is_a_tenth_at_the_fifth_epoch_without_gain_and_training_stops_at_the_tenth():
    config, progress = TrainingConfig(epochs=1000), Progress()
    progress.note({"val_loss": 1.0}, config)
    for n_bad in range(1, 11):
        assert not progress.finished(config)
        assert progress.n_reductions == (1 if n_bad > 5 else 0)
        progress.note({"val_loss": 1.0 - 0.9e-4}, config)
    assert progress.n_bad == 10
    assert progress.n_reductions == 2
    assert progress.finished(config)


def test_a_gain_below_the_threshold_still_gives_the_best_weights():
    progress = Progress()
    progress.note({"val_loss": 1.0}, TrainingConfig())
    assert progress.note({"val_loss": 1.0 - 1e-6}, TrainingConfig())
    assert progress.n_bad == 1


def test_the_rate_is_never_raised_by_its_lower_bound():
    config = TrainingConfig(learning_rate=1e-7)
    assert [learning_rate(config, 0, n) for n in (0, 1, 2)] == [1e-7, 1e-7, 1e-7]


def test_a_constant_rate_is_constant():
    config = TrainingConfig(schedule="constant", learning_rate=0.3)
    assert {learning_rate(config, done, n) for done in (0, 0.5, 1) for n in (0, 3)} == {0.3}


def test_training_stops_after_the_last_epoch_and_reports_the_rate_it_used():
    history = run_phase(
        tiny_phase(tiny_network(), epochs=3, stop_patience=None), seed=0, device=DEVICE
    )
    assert [metrics["epoch"] for metrics in history] == [1, 2, 3]
    assert {metrics["learning_rate"] for metrics in history} == {0.01}


def test_a_loss_that_is_not_finite_names_the_videos_of_its_batch():
    network = tiny_network()
    phase = tiny_phase(network)

    def poisoned(generator, train_batches=phase.train_batches):
        for batch in train_batches(generator):
            yield Batch((batch.inputs[0] * math.inf,), batch.labels, ["good.mp4", "bad/v_014.mp4"])

    phase = Phase(
        "audio-encoder", phase.config, network, phase.objective, 3, poisoned, phase.val_batches
    )
    sentence = r"audio-encoder: .* nan in epoch 1, .* good\.mp4, bad/v_014\.mp4; .*0\.01"
    with pytest.raises(TrainingDiverged, match=sentence):
        run_phase(phase, seed=0, device=DEVICE)


def test_a_validation_loss_that_is_not_finite_is_not_passed_over(tmp_path):
    network = tiny_network()
    phase = tiny_phase(network, epochs=1)

    def poisoned():
        yield Batch(
            (torch.full((2, 3, 8, 8), math.nan),), torch.tensor([0, 1]), ["x.mp4", "held_out_7.mp4"]
        )

    phase = Phase(
        "tiny",
        phase.config,
        network,
        phase.objective,
        phase.n_batches,
        phase.train_batches,
        poisoned,
    )
    with pytest.raises(
        TrainingDiverged, match=r"tiny: the validation loss became nan, .*held_out_7\.mp4"
    ):
        run_phase(phase, seed=0, device=DEVICE, state=State(tmp_path / "state"))


@pytest.mark.parametrize(
    ("n", "size"), [(1, 4), (4, 4), (5, 4), (6, 4), (9, 4), (13, 4), (100, 7), (3, 1), (2, 100)]
)
def test_batches_hold_every_index_once_and_none_is_a_single_row(n, size):
    for generator in (None, np.random.default_rng(0)):
        batches = batches_of(n, size, generator)
        assert sorted(np.concatenate(batches)) == list(range(n))
        if size > 1 and n > 1:
            assert min(map(len, batches)) > 1
        assert max(map(len, batches)) <= size + 1
    assert np.array_equal(np.concatenate(batches_of(n, size)), np.arange(n))


def test_batches_are_shuffled_by_the_generator_alone():
    first, again, other = (
        np.concatenate(batches_of(50, 8, np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_epochs_differ_and_a_seed_repeats_them():
    def seen(seed: int) -> list[np.ndarray]:
        network, rows = tiny_network(), []
        phase = tiny_phase(network, epochs=2)

        def watched(generator, train_batches=phase.train_batches):
            for batch in train_batches(generator):
                rows.append(batch.inputs[0].numpy().copy())
                yield batch

        run_phase(
            Phase(
                "p", phase.config, network, cross_entropy(network), 3, watched, phase.val_batches
            ),
            seed=seed,
            device=DEVICE,
        )
        return rows

    first, again, other = seen(0), seen(0), seen(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[3]), "the same step of the next epoch"
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("factor", [0.1, 0.5])
def test_the_step_schedule_is_torchs(factor):
    config = TrainingConfig(
        epochs=47, schedule="step", learning_rate=0.3, step_epochs=5, step_factor=factor
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, factor)
    for epoch in range(47):
        for index in range(3):
            rate = learning_rate(config, (epoch + index / 3) / 47)
            assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_a_phase_without_logits_learns_its_own_objective():
    """An objective that does not classify: a network that reconstructs its input."""
    torch.manual_seed(0)
    x = torch.randn(16, 4)
    network = nn.Linear(4, 4)

    def objective(inputs, labels, label_smoothing):
        assert label_smoothing in (0.0, 0.1)
        return nn.functional.mse_loss(network(*inputs), inputs[0]), None

    def batches(*_):
        yield Batch((x,), torch.zeros(16, dtype=torch.int64), ["v"] * 16)

    config = TrainingConfig(
        epochs=200, optimizer="adam", learning_rate=0.05, stop_patience=None, label_smoothing=0.1
    )
    history = run_phase(
        Phase("own", config, network, objective, 1, batches, batches), seed=0, device=DEVICE
    )
    assert history[-1]["val_loss"] < 1e-3 < history[0]["val_loss"]
    assert history[-1]["val_accuracy"] == 0
