"""Make many pictures at once with asyncio, at a service that runs.

disagfusion serve &
python examples/sdk/many.py 127.0.0.1:7420
"""

from __future__ import annotations

import asyncio
import sys

from disagfusion.client import AsyncClient

COLOURS = ("red", "green", "blue", "orange", "purple")


async def main(address: str) -> None:
    async with AsyncClient(address) as client:
        prompts = [f"a handwritten seven in {colour}" for colour in COLOURS]
        results = await asyncio.gather(*(client.generate(prompt) for prompt in prompts))
    for colour, result in zip(COLOURS, results, strict=True):
        print(*result.save(f"seven-{colour}.png"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
