"""Noisy samples against the diffusion that they stand for."""

import pytest
import torch

from compressors.batches import fetch, in_order
from compressors.tasks import DrawnSamples, NoiseSchedule, NoisySamples
from tests.compressors.samples import BatchedTensors

CLEAN = BatchedTensors(torch.rand(40, 3, 4, 4) * 2 - 1)
SCHEDULE = NoiseSchedule()


def test_what_is_kept_is_that_of_the_step_by_step_process() -> None:
    kept, product = SCHEDULE.kept(), 1.0
    assert len(kept) == 1000
    for step in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
        assert float(kept[step]) == pytest.approx(product, rel=1e-9)


def test_schedule_is_that_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    torch.testing.assert_close(SCHEDULE.kept().float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-7)
    samples = NoisySamples(CLEAN, SCHEDULE)
    (noisy, times), noise = samples.batch(range(40))
    torch.testing.assert_close(theirs.add_noise(CLEAN.inputs, noise, times), noisy, rtol=1e-3, atol=1e-4)


def test_a_sample_has_the_same_noise_however_it_is_read() -> None:
    samples = NoisySamples(CLEAN, SCHEDULE, seed=3)
    (noisy, times), noise = samples.batch([7, 2])
    (other, when), what = samples[2]
    assert torch.equal(noisy[1], other)
    assert int(times[1]) == int(when)
    assert torch.equal(noise[1], what)
    assert not torch.equal(noise[0], noise[1])


def test_seeds_give_different_noise() -> None:
    one, two = (NoisySamples(CLEAN, SCHEDULE, seed).batch([0, 1]) for seed in (0, 1))
    assert not torch.equal(one[1], two[1])


def test_times_of_a_few_samples_cover_the_whole_process() -> None:
    (_, times), _ = NoisySamples(CLEAN, SCHEDULE).batch(range(40))
    for low in range(0, 1000, 100):
        assert ((times >= low) & (times < low + 100)).any()


def test_training_draws_antithetic_times_anew() -> None:
    samples = NoisySamples(CLEAN, SCHEDULE)
    assert isinstance(samples, DrawnSamples)
    generator = torch.Generator().manual_seed(0)
    (noisy, times), noise = samples.drawn(range(6), generator)
    assert torch.equal(times[:3] + times[3:], torch.full((3,), 999))
    kept = SCHEDULE.kept()[times].view(-1, 1, 1, 1)
    expected = kept.sqrt() * CLEAN.inputs[:6] + (1 - kept).sqrt() * noise
    torch.testing.assert_close(noisy.double(), expected, rtol=1e-5, atol=1e-6)
    (_, later), other = samples.drawn(range(6), generator)
    assert not torch.equal(times, later)
    assert not torch.equal(noise, other)
    (_, odd), _ = samples.drawn(range(5), generator)
    assert len(odd) == 5


def test_batches_carry_the_noise_as_targets() -> None:
    samples = NoisySamples(CLEAN, SCHEDULE)
    batch = fetch(samples, [0, 1, 2])
    assert batch.labels.shape == (3, 3, 4, 4)
    assert batch.labels.dtype == torch.float32
    assert sum(len(part) for part in in_order(samples, 16)) == 40
