from disagfusion_encoder.prompt_cache import Encoding, PromptCache, cache_key
from hypothesis import given
from hypothesis import strategies as st


def encoding(size: int) -> Encoding:
    return Encoding(payload=bytes(size), layout=(), structure=b"")


def test_the_least_recently_used_goes_first() -> None:
    cache = PromptCache(100)
    cache.put("a", encoding(40))
    cache.put("b", encoding(40))
    assert cache.get("a") is not None
    cache.put("c", encoding(40))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.get("c") is not None


def test_what_is_too_large_is_not_kept_and_costs_nobody() -> None:
    cache = PromptCache(100)
    cache.put("a", encoding(60))
    cache.put("b", encoding(101))
    assert cache.get("b") is None
    assert cache.get("a") is not None


def test_zero_capacity_keeps_nothing() -> None:
    cache = PromptCache(0)
    cache.put("a", encoding(1))
    assert len(cache) == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 120))))
def test_the_bound_holds(puts: list[tuple[str, int]]) -> None:
    cache = PromptCache(100)
    sizes: dict[str, int] = {}
    for key, size in puts:
        cache.put(key, encoding(size))
        if size <= 100:
            sizes[key] = size
            assert cache.get(key) == encoding(size)
        assert cache.nbytes <= 100
    kept = [found.nbytes for key in sizes if (found := cache.get(key)) is not None]
    assert sum(kept) == cache.nbytes
    assert len(kept) == len(cache)


def test_the_key_depends_on_all_but_the_seed() -> None:
    request = {"prompt": "a seven", "seed": 1, "height": 64, "guidance_scale": 1.0}
    key = cache_key("v1", request)
    assert key == cache_key("v1", {**request, "seed": 2})
    assert key == cache_key("v1", dict(reversed(list(request.items()))))
    assert key != cache_key("v2", request)
    assert key != cache_key("v1", request, "another tenant")
    for change in ({"prompt": "a six"}, {"height": 80}, {"guidance_scale": 2.0}, {"x": [1]}):
        assert key != cache_key("v1", {**request, **change})


def test_images_are_not_cached() -> None:
    assert cache_key("v1", {"prompt": "a", "image": [b"png"]}) is None
