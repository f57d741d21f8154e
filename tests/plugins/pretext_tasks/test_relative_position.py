from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.relative_position import (
    POSITIONS,
    Cut,
    RelativePosition,
    drop_colors,
    neighbours,
    project_colors,
)

SIZE = 32
FACTS = DataFacts("image", train_size=8, image_size=SIZE)


class Flat(nn.Module):
    """An encoder stand-in: a linear map of the pixels. It remembers what it was given."""

    def __init__(self, side: int, feature_dim: int = 6, minimum_size: int = 1) -> None:
        super().__init__()
        self.feature_dim, self.minimum_size = feature_dim, minimum_size
        self.layer = nn.Linear(3 * side * side, feature_dim)
        self.seen: list[Tensor] = []
        self.normalized: list[bool] = []

    def forward(self, images: Tensor, normalize: bool = True) -> Tensor:
        self.seen.append(images)
        self.normalized.append(normalize)
        return self.layer(images.flatten(1))


def task_of(side: int = 7, *, facts: DataFacts = FACTS, minimum_size: int = 1, **options: Any) -> RelativePosition:
    torch.manual_seed(0)
    encoder: Any = Flat(side, minimum_size=minimum_size)
    return RelativePosition(encoder, facts, **{"hidden_dim": 8, **options})


def pictures(count: int = 4, seed: int = 0, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor, index: Tensor | None = None, epoch: int = 0) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    random = SampleRandom.keyed(0, epoch, index)
    return Batch([images], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def naive_loss(task: RelativePosition, features: Tensor) -> float:
    """The cross-entropy over all pairs of the grid, place by place, with the head in float64."""
    solver, losses = task.solver.double().eval(), []
    numbers = {offset: number for number, offset in enumerate(((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1)))}
    numbers |= {(1, -1): 5, (1, 0): 6, (1, 1): 7}
    for sample in features.double():
        for first, second in itertools.product(itertools.product(range(3), repeat=2), repeat=2):
            offset = (second[0] - first[0], second[1] - first[1])
            if offset in numbers:
                pair = torch.cat([sample[3 * first[0] + first[1]], sample[3 * second[0] + second[1]]])
                likelihoods = np.exp(solver(pair[None])[0].detach().numpy())
                losses.append(-math.log(likelihoods[numbers[offset]] / likelihoods.sum()))
    assert len(losses) == 40 * len(features)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("colors", ["drop", "project", "keep"])
def test_the_loss_is_the_mean_cross_entropy_of_all_pairs_of_neighbours(colors: str) -> None:
    task, batch = task_of(colors=colors).eval(), batch_of(pictures())
    loss = task(batch).loss.item()
    features = task.encoder(task.patches(batch).flatten(0, 1), normalize=False).view(4, 9, -1)
    assert loss == pytest.approx(naive_loss(task, features), abs=1e-5)


def test_an_undecided_head_has_the_loss_of_chance() -> None:
    task = task_of()
    last: Any = task.solver[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    assert task(batch_of(pictures())).loss.item() == pytest.approx(math.log(8), abs=1e-6)


def test_the_pairs_are_all_neighbours_once_in_each_order() -> None:
    pairs = neighbours()
    assert len({pair[:2] for pair in pairs}) == len(pairs) == 40
    assert [(second, position) for first, second, position in pairs if first == 4] == [
        (0, 0), (1, 1), (2, 2), (3, 3), (5, 4), (6, 5), (7, 6), (8, 7),
    ]  # fmt: skip
    assert [(second, position) for first, second, position in pairs if first == 2] == [(1, 3), (4, 5), (5, 6)]
    swapped = {(second, first): 7 - position for first, second, position in pairs}  # positions are point-symmetric
    assert swapped == {pair[:2]: pair[2] for pair in pairs}


def test_a_position_is_where_the_second_patch_is_cut_seen_from_the_first() -> None:
    rows, columns = torch.meshgrid(torch.arange(30.0), torch.arange(30.0), indexing="ij")
    picture = torch.stack([rows, columns, rows])[None] / 30
    patches = Cut(patch=6, jitter=1, side=6)(picture, batch_of(picture).random)[0] * 30
    corners = patches[:, :2, 0, 0].round().int()
    for first, second, position in neighbours():
        down, right = ((corners[second] - corners[first]).float() / 11).round().int().tolist()  # 11 px, give or take 2
        assert POSITIONS[position] == (down, right)


def test_top1_is_the_percentage_of_pairs_whose_position_is_found() -> None:
    task = task_of()
    last: Any = task.solver[-1]
    nn.init.zeros_(last.weight)
    last.bias.data = 40 * torch.eye(8)[1]  # above: six of a picture's forty pairs
    assert float(task(batch_of(pictures())).logs["position_top1"]) == pytest.approx(100 * 6 / 40)


def test_every_patch_is_encoded_once_and_comes_normalized() -> None:
    task, batch = task_of(), batch_of(pictures())
    task(batch)
    encoder: Any = task.encoder
    assert [seen.shape for seen in encoder.seen] == [(36, 3, 7, 7)]
    assert encoder.normalized == [False]
    assert torch.equal(encoder.seen[0], task.patches(batch).flatten(0, 1))


def place_in(room: Tensor, patch: Tensor) -> tuple[int, int]:
    side, spare = patch.shape[-1], room.shape[-1] - patch.shape[-1] + 1
    places = itertools.product(range(spare), repeat=2)
    (found,) = [(y, x) for y, x in places if torch.equal(room[:, y : y + side, x : x + side], patch)]
    return found


def test_each_patch_is_moved_on_its_own_within_its_room() -> None:
    images = pictures(12)
    patches = Cut(patch=7, jitter=1, side=7)(images, batch_of(images).random)
    starts = (0, 11, 23)  # 32 pixels, three rooms of 9
    places = [
        place_in(images[sample, :, starts[number // 3] :, starts[number % 3] :][:, :9, :9], patches[sample, number])
        for sample in range(12)
        for number in range(9)
    ]
    assert set(places) == set(itertools.product(range(3), repeat=2))


def test_neighbours_share_no_pixel_and_the_gap_is_random() -> None:
    columns = torch.arange(float(SIZE)).expand(64, 3, SIZE, SIZE) / SIZE
    patches = Cut(7, 1, 7)(columns, batch_of(columns).random) * SIZE
    gaps = (patches[:, 1, 0, 0, 0] - patches[:, 0, 0, 0, -1] - 1).round().int()
    assert set(gaps.tolist()) == {2, 3, 4, 5, 6}  # half a patch, give or take


@pytest.mark.parametrize(
    ("size", "patch", "jitter"), [(32, 7, 1), (96, 23, 2), (224, 53, 4), (28, 6, 0), (16, 3, 0), (400, 96, 7)]
)
def test_sizes_follow_from_the_pictures(size: int, patch: int, jitter: int) -> None:
    cut = task_of(facts=DataFacts("image", train_size=8, image_size=size)).cut
    assert (cut.patch, cut.jitter, cut.side) == (patch, jitter, patch)


@pytest.mark.parametrize(("enlarged", "minimum", "side"), [(1.0, 1, 7), (2.0, 1, 14), (1.0, 16, 16), (2.5, 8, 24)])
def test_patches_are_enlarged_to_multiples_of_what_the_encoder_takes(enlarged: float, minimum: int, side: int) -> None:
    task = task_of(side, enlarged=enlarged, minimum_size=minimum)
    task(batch_of(pictures()))
    encoder: Any = task.encoder
    assert encoder.seen[0].shape == (36, 3, side, side)


def test_the_projection_is_the_papers_matrix() -> None:
    axis = np.array([[-1.0, 2.0, -1.0]])
    matrix = np.eye(3) - axis.T @ axis / (axis @ axis.T)
    images = pictures(2)
    expected = np.einsum("dc,bchw->bdhw", matrix, images.double().numpy())
    np.testing.assert_allclose(project_colors(images).numpy(), expected, atol=1e-6)


def test_the_projection_keeps_gray_and_takes_green_and_magenta_apart_from_it() -> None:
    gray, green, magenta = (torch.tensor(color)[:, None, None] for color in ([0.4] * 3, [0.2, 0.8, 0.2], [0.6, 0, 0.6]))
    torch.testing.assert_close(project_colors(gray), gray)
    torch.testing.assert_close(project_colors(green), gray)
    torch.testing.assert_close(project_colors(magenta), gray)


def test_of_each_patch_one_random_channel_stays_and_faint_noise_replaces_the_others() -> None:
    patches = torch.rand(60, 9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    patches = patches - patches.mean(dim=(-2, -1), keepdim=True)
    made = drop_colors(patches, batch_of(patches).random)
    stays = (made == patches).flatten(3).all(dim=3)  # (60, 9, 3)
    assert (stays.sum(dim=2) == 1).all()
    assert stays.float().mean(dim=(0, 1)).numpy() == pytest.approx([1 / 3] * 3, abs=0.08)
    assert (stays.int().argmax(dim=2).amax(1) > stays.int().argmax(dim=2).amin(1)).any()  # patches differ in theirs
    noise, kept = made[~stays].view(540, 2, 8, 8), patches[stays].view(540, 1, 8, 8)
    ratio = noise.square().mean(dim=(-2, -1)).sqrt() / kept.square().mean(dim=(-2, -1)).sqrt()
    assert ratio.mean().item() == pytest.approx(0.01, rel=0.02)
    assert noise.mean().abs() < 1e-4


def test_a_single_channel_is_not_dropped() -> None:
    patches = pictures(2)[:, None, :1].expand(-1, 9, -1, -1, -1)
    assert torch.equal(drop_colors(patches, batch_of(patches).random), patches)


@pytest.mark.parametrize("colors", ["drop", "project", "keep"])
def test_patches_have_mean_0_and_root_mean_square_1(colors: str) -> None:
    patches = task_of(colors=colors).patches(batch_of(pictures()))
    assert patches.mean(dim=(-2, -1)).abs().max() < 0.02  # the noise has a mean of its own
    torch.testing.assert_close(patches.square().mean(dim=(2, 3, 4)).sqrt(), torch.ones(4, 9))


def test_a_patch_of_one_color_becomes_zeros() -> None:
    assert not task_of().patches(batch_of(torch.full((2, 3, SIZE, SIZE), 0.25))).any()


def test_projected_patches_have_no_green_or_magenta_and_others_do() -> None:
    axis = torch.tensor([-1.0, 2.0, -1.0])[:, None, None]
    along = {
        c: (task_of(colors=c).patches(batch_of(pictures())) * axis).sum(2).abs().max() for c in ("project", "keep")
    }
    assert along["project"] < 1e-5
    assert along["keep"] > 1


def test_what_is_evaluated_is_projected_where_training_was() -> None:
    images = pictures()
    for colors in ("drop", "keep"):
        task = task_of(colors=colors)
        assert task.representation() is task.encoder
    task = task_of(SIZE, colors="project")
    assert torch.equal(task.representation()(images), task.encoder(project_colors(images)))


def test_patches_differ_between_samples_and_epochs_but_not_with_their_batch() -> None:
    task, images = task_of(), pictures(1).expand(16, -1, -1, -1)
    first, later = task.patches(batch_of(images)), task.patches(batch_of(images, epoch=1))
    order = torch.arange(16).flip(0)[:5]
    assert len(first.flatten(1).unique(dim=0)) == 16
    assert not torch.equal(first, later)
    assert torch.equal(task.patches(batch_of(images[order], order)), first[order])


def test_the_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    task, images = task_of().eval(), pictures(6)
    parts = [task(batch_of(images[part], part)).loss for part in torch.arange(6).chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(images)).loss)


def test_no_draw_comes_from_torchs_generator() -> None:
    task, batch = task_of(), batch_of(pictures())
    before = torch.get_rng_state()
    task(batch)
    assert torch.equal(before, torch.get_rng_state())


def test_the_gradient_reaches_every_parameter() -> None:
    task = task_of()
    task(batch_of(pictures())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_list_of_pairs_is_no_part_of_what_is_saved_or_moved() -> None:
    task = task_of()
    assert "pairs" in dict(task.named_buffers())
    assert "pairs" not in task.state_dict()
    assert task.moves == ()


@pytest.mark.parametrize(
    "options", [{"patch": 0.0}, {"patch": 0.33}, {"jitter": -0.1}, {"jitter": 0.3}, {"enlarged": 0.5}]
)
def test_patches_that_do_not_fit_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ClvrBenchError, match=r"relative_position: patch must be positive, .* The paper's are 0\.24"):
        task_of(**options)


def test_gray_data_have_no_colors_to_project() -> None:
    facts = DataFacts("image", train_size=8, image_size=SIZE, channels=1)
    with pytest.raises(ClvrBenchError, match=r"colors='project' needs 3 channels, the data have 1\. Use 'drop'\."):
        task_of(facts=facts, colors="project")


def test_its_default_augmentation_crops_and_does_not_mirror(plugins: Plugins) -> None:
    entry = plugins.registry.get(Kind.AUGMENTATION, RelativePosition.default_augmentation)
    assert entry.name == "crop"


def test_its_rate_is_the_authors_for_a_loss_summed_over_pairs() -> None:
    for pictures_a_step in (1, 64):
        per_pair = RelativePosition.recipe.peak_rate(pictures_a_step) / (40 * pictures_a_step)
        assert per_pair == pytest.approx(1e-5)


def test_the_loss_falls_within_a_few_steps() -> None:
    task, images = task_of(hidden_dim=32), pictures(1).expand(4, -1, -1, -1)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        loss = task(batch_of(images)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(8), abs=0.5)
    assert losses[-1] < 0.5 * losses[0]


def test_the_preview_is_what_the_encoder_sees_with_the_patches_as_cut_beside_it() -> None:
    task, batch = task_of(), batch_of(pictures(3))
    encoder: Any = task.encoder
    shown = task.preview(batch)
    assert not encoder.seen
    task(batch)
    assert list(shown) == ["patches", "seen"]
    seen, as_cut = encoder.seen[0].view(3, 9, 3, 7, 7), task.cut(batch.views[0], batch.random)
    for place in range(9):
        top, left = 10 * (place // 3), 10 * (place % 3)  # patches of 7 px, gaps of 3 px
        assert torch.equal(shown["seen"][..., top : top + 7, left : left + 7], (seen[:, place] / 8 + 0.5).clamp(0, 1))
        assert torch.equal(shown["patches"][..., top : top + 7, left : left + 7], as_cut[:, place])
