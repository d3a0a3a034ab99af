"""The parts of the training, on untrained weights."""

import numpy as np
import pytest
import torch
from digitkit import autoencoder, text, transformer
from digitkit.pictures import COLOURS, load_split, render_ink, tint
from digitkit.prompts import COLOUR_NAMES, DIGIT_WORDS, Wish, corpus, training_prompt


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return text.TextTower()


def test_every_word_of_the_templates_is_one_token(tower):
    words = {part for line in corpus() for part in text._words(line)}
    assert "seven" in words
    for word in words:
        for form in (word, word.capitalize()):
            assert len(tower.clip_tokenizer.tokenize(form)) == 1
            assert len(tower.t5_tokenizer.tokenize(form)) == 1


@pytest.mark.parametrize("prompt", ["", "naïve café 日本 🙂", "a" * 5000, "\x00\n\t"])
def test_any_text_can_be_encoded(tower, prompt):
    assert tower.pooled([prompt]).isfinite().all()
    embeds, counts = tower.sequence([prompt], 64)
    assert embeds.shape == (1, 64, text.WIDTH)
    assert embeds.isfinite().all()
    assert 1 <= counts[0] <= 64


def test_spellings_of_a_word_have_one_embedding(tower):
    small, _ = tower.sequence(["seven in red"], 16)
    large, _ = tower.sequence(["Seven In RED"], 16)
    assert torch.equal(small, large)


def test_text_length_does_not_change_the_prompt_embeddings(tower):
    short, counts = tower.sequence(["a handwritten seven in red"], 32)
    long, _ = tower.sequence(["a handwritten seven in red"], 512)
    assert torch.allclose(short, long[:, :32], atol=1e-5)
    padding = long[0, counts[0] + text.T5_WINDOW :]
    assert torch.allclose(padding, padding[:1].expand_as(padding), atol=1e-5)


def test_a_few_padding_tokens_with_a_bias_stand_for_hundreds(tower):
    torch.manual_seed(1)
    model = transformer.build().eval()
    latents = torch.randn(2, 16, 16)
    prompts = ["a handwritten seven in red", "two"]

    def predict(length, mask):
        with torch.no_grad():
            embeds, counts = tower.sequence(prompts, length)
            bias = transformer.padding_bias(counts, length, 512) if mask else None
            return model(
                hidden_states=latents,
                timestep=torch.tensor([0.3, 0.9]),
                pooled_projections=tower.pooled(prompts),
                encoder_hidden_states=embeds,
                txt_ids=torch.zeros(length, 3),
                img_ids=transformer.image_ids(),
                joint_attention_kwargs={"attention_mask": bias} if mask else None,
                return_dict=False,
            )[0]

    full = predict(512, mask=False)
    assert torch.allclose(full, predict(14, mask=True), atol=1e-5)
    assert not torch.allclose(full, predict(14, mask=False), atol=1e-3)


def test_packing_is_that_of_the_pipeline():
    from diffusers import FluxPipeline

    latents = torch.randn(3, 4, 8, 8)
    expected = FluxPipeline._pack_latents(latents, 3, 4, 8, 8)
    assert torch.equal(transformer.pack(latents), expected)
    ids = FluxPipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)
    assert torch.equal(transformer.image_ids(), ids)


def test_painting_agrees_with_the_pictures_that_people_see():
    ink = np.stack([render_ink(image) for image in load_split()[0].images[: len(COLOURS)]])
    painted = autoencoder.paint(torch.from_numpy(ink), torch.arange(len(COLOURS)))
    seen = (painted.clamp(-1, 1).permute(0, 2, 3, 1).numpy() + 1) / 2
    for picture, one, colour in zip(seen, ink, COLOURS, strict=True):
        assert np.abs(picture - tint(one, colour)).max() <= (autoencoder.PAPER - 1) / 2 + 1e-6


def test_training_prompts_say_what_they_claim():
    rng = np.random.default_rng(0)
    wishes = set()
    for _ in range(2000):
        prompt, wish = training_prompt(7, "green", rng)
        words = set(text._words(prompt.replace(".", " ")))
        assert (wish.digit == 7) == bool(words & {"7", "seven"})
        assert (wish.colour == "green") == ("green" in words)
        assert not words & ({*DIGIT_WORDS, *COLOUR_NAMES} - {"seven", "green"})
        wishes.add(wish)
    assert wishes == {Wish(7, "green"), Wish(7, None), Wish(None, "green"), Wish(None, None)}


def test_one_step_of_each_training_changes_the_weights(tower):
    ink = np.stack([render_ink(image) for image in load_split()[0].images[:8]])
    generator = torch.Generator().manual_seed(0)
    logged = []
    torch.manual_seed(0)
    vae = autoencoder.build()
    before = vae.decoder.conv_out.weight.detach().clone()
    autoencoder.train(vae, ink, 2, 2, generator, logged.append)
    assert not torch.equal(before, vae.decoder.conv_out.weight)
    latents = torch.stack([autoencoder.encode(vae, ink, colour) for colour in range(len(COLOURS))])
    latents = autoencoder.normalise(vae, latents)
    assert latents.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert latents.std().item() == pytest.approx(1.0, abs=1e-4)
    pool = transformer.encode_prompts(tower, np.random.default_rng(0))
    packed = torch.stack([transformer.pack(part) for part in latents])
    data = transformer.TrainingSet(packed, torch.arange(8), pool)
    model = transformer.build()
    before = model.proj_out.weight.detach().clone()
    phase = transformer.Phase("transformer", steps=3, batch=2, learning_rate=1e-3)
    transformer.train(model, data, phase, generator, logged.append)
    assert not torch.equal(before, model.proj_out.weight)
    assert len(logged) == 2


def test_guidance_is_distilled_into_one_pass(tower):
    torch.manual_seed(2)
    model = transformer.build()
    # The last projection starts small; enlarge it so that prompts make a difference.
    model.proj_out.weight.data.mul_(10)
    pool = transformer.encode_prompts(tower, np.random.default_rng(0))
    latents = torch.randn(len(COLOURS), 8, 16, 16)
    data = transformer.TrainingSet(latents, torch.arange(8), pool)
    task = transformer.draw_task(data, 4, torch.Generator().manual_seed(0))
    told = transformer.predict(model, task.mixed, task.sigma, task.condition, task.text_length)
    without = transformer.GuidanceLoss(model, tower, scale=1.0)(model, task)
    assert without.item() == pytest.approx(0.0, abs=1e-10)
    guided = transformer.GuidanceLoss(model, tower, scale=3.0)(model, task)
    assert guided.item() > 1e-8
    embeds, counts = tower.sequence([transformer.OPEN_PROMPT] * 4, task.condition.embeds.shape[1])
    nothing = transformer.Condition(tower.pooled([transformer.OPEN_PROMPT] * 4), embeds, counts)
    untold = transformer.predict(model, task.mixed, task.sigma, nothing, task.text_length)
    expected = ((told - (untold + 3.0 * (told - untold))) ** 2).mean()
    assert guided.item() == pytest.approx(expected.item(), rel=1e-3)
