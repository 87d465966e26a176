"""llama.cpp's own HTTP server, from the prebuilt xllamacpp wheel, serving the tiny model.

usage: python serve.py tiny.gguf PORT [template.jinja]     needs: pip install xllamacpp
Speaks OpenAI (/v1/chat/completions, /v1/responses, /v1/models) and Anthropic (/v1/messages). Model name: tiny.
Prints `listening http://...` when it serves; ends on SIGTERM.
"""

import signal
import sys
from pathlib import Path

import xllamacpp


def main(model: str, port: str, template: str | None = None) -> None:
    """Serve until SIGTERM."""
    params = xllamacpp.CommonParams()
    params.model.path, params.port = model, int(port)
    params.hostnames, params.model_alias = ["127.0.0.1"], {"tiny"}
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 4096, 2, 1
    params.use_jinja, params.warmup, params.ui = True, False, False
    params.endpoint_slots = params.endpoint_metrics = True
    if template:
        params.chat_template = Path(template).read_text(encoding="utf-8")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = xllamacpp.Server(params)
    print("listening", server.listening_address, flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
