"""Write a tiny llama-architecture GGUF whose output is deterministic: a chain of words.

One-hot embeddings and zero residual branches make the logits a function of the last token only, so the
output matrix is a table "after this token comes that one". No training, no download, about 10 MB.

usage: python make_model.py tiny.gguf        needs: pip install gguf numpy
"""

import sys
from itertools import pairwise

import gguf
import numpy as np
import numpy.typing as npt

WIDTH = 640  # embedding length = vocabulary size = token-table size
KIND = gguf.TokenType

TEXT = ["Hello", " from", " a real", " llama.cpp", " engine;", " caf\u00e9", " \u2603", " done."]
THINKING = ["<think>", "\nLet me", " think", " about", " it.", "\n</think>", "\n\nThe answer", " is forty-two."]
TOOL = ['<tool_call>\n{"name": ', '"get_weather"', ', "arguments": ', '{"city": ', '"Paris"}}', "\n</tool_call>"]

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] if m['role'] in ['system','user'] else 'user' }}|>{{ m['content'] }}"
    "{% endfor %}"
    "{% if tools %}<|toolmode|>{% elif 'think' in (messages[-1]['content'] or '') %}<|thinkmode|>"
    "{% elif 'long' in (messages[-1]['content'] or '') %}<|longmode|>{% else %}<|assistant|>{% endif %}"
)


class Vocabulary:
    """The tokens, and which comes after which."""

    def __init__(self) -> None:
        self.tokens: list[bytes] = []
        self.kinds: list[int] = []
        self.after: dict[int, int] = {}

    def add(self, text: str, kind: int = KIND.NORMAL) -> int:
        self.tokens.append(text.encode())
        self.kinds.append(int(kind))
        return len(self.tokens) - 1

    def chain(self, start: int, words: list[str], end: int) -> None:
        """Edges start -> word -> word ... -> end."""
        last = start
        for word in words:
            token = self.add(word.replace(" ", "\u2581"))
            self.after[last] = token
            last = token
        self.after[last] = end


def build_vocabulary() -> tuple[Vocabulary, int, int, npt.NDArray[np.float32]]:
    """The vocabulary, its begin and end tokens, and the output matrix."""
    words = Vocabulary()
    words.add("<unk>", KIND.UNKNOWN)
    begin, end = words.add("<s>", KIND.CONTROL), words.add("</s>", KIND.CONTROL)
    for byte in range(256):
        words.add(f"<0x{byte:02X}>", KIND.BYTE)
    for code in range(33, 127):
        words.add(chr(code))
    words.add("\u2581")
    for role in ("<|system|>", "<|user|>"):
        words.add(role, KIND.CONTROL)
    modes = [words.add(f"<|{mode}|>", KIND.CONTROL) for mode in ("assistant", "thinkmode", "toolmode", "longmode")]
    for mode, said in zip(modes[:3], (TEXT, THINKING, TOOL), strict=True):
        words.chain(mode, said, end)
    loop = [words.add(f"\u2581word{i}") for i in range(64)]  # endless text, for cancel and length tests
    words.after.update([(modes[3], loop[0]), *pairwise(loop), (loop[-1], loop[0])])
    while len(words.tokens) < WIDTH:
        words.add(f"<pad{len(words.tokens)}>", KIND.UNUSED)
    output = np.zeros((WIDTH, WIDTH), np.float32)
    for token in range(WIDTH):
        output[words.after.get(token, words.after[modes[0]]), token] = 30.0 / np.sqrt(WIDTH)
    # Where a schema forbids words, an answer begins as the object it asks for, and not by thinking without an end.
    output[words.tokens.index(b"{"), modes[0]] = 15.0 / np.sqrt(WIDTH)
    return words, begin, end, output


def zeros(*shape: int) -> npt.NDArray[np.float32]:
    return np.zeros(shape, np.float32)


def main(path: str = "tiny.gguf") -> None:
    """Write the model to `path`, the same bytes each time."""
    words, begin, end, output = build_vocabulary()
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("tiny-chain")
    w.add_context_length(4096)
    w.add_embedding_length(WIDTH)
    w.add_block_count(1)
    w.add_feed_forward_length(64)
    w.add_head_count(8)
    w.add_head_count_kv(8)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_dimension_count(WIDTH // 8)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_vocab_size(WIDTH)
    w.add_tokenizer_model("llama")
    w.add_token_list(words.tokens)
    w.add_token_scores([-float(i) for i in range(WIDTH)])
    w.add_token_types(words.kinds)
    w.add_bos_token_id(begin)
    w.add_eos_token_id(end)
    w.add_unk_token_id(0)
    w.add_add_bos_token(True)
    w.add_add_space_prefix(False)
    w.add_chat_template(TEMPLATE)
    w.add_tensor("token_embd.weight", np.eye(WIDTH, dtype=np.float32))
    w.add_tensor("output.weight", output)
    w.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        w.add_tensor(f"blk.0.{name}.weight", zeros(WIDTH, WIDTH))
    for name in ("attn_norm", "ffn_norm"):
        w.add_tensor(f"blk.0.{name}.weight", np.ones(WIDTH, np.float32))
    w.add_tensor("blk.0.ffn_gate.weight", zeros(64, WIDTH))
    w.add_tensor("blk.0.ffn_up.weight", zeros(64, WIDTH))
    w.add_tensor("blk.0.ffn_down.weight", zeros(WIDTH, 64))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
