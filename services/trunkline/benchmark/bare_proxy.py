"""A reverse proxy of nothing but aiohttp, in a process of its own: the yardstick for the HTTP edge.

`python -m trunkline.benchmark.bare_proxy UPSTREAM` prints its port and serves until its standard input is closed.
"""

import asyncio
import contextlib
import sys


async def _main(upstream: str) -> None:
    import aiohttp
    from aiohttp import web

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fields = {"content-type": "application/json"}
        async with session.post(upstream + request.path, data=body, headers=fields) as answer:
            kind = answer.headers["content-type"]
            if not kind.startswith("text/event-stream"):
                return web.Response(body=await answer.read(), headers={"content-type": kind})
            response = web.StreamResponse(headers={"content-type": kind})
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application()
    app.router.add_post("/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()
    await session.close()


if __name__ == "__main__":
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_main(sys.argv[1]))
