"""Server-sent events, decoded as the bytes arrive. Pure. https://html.spec.whatwg.org/multipage/server-sent-events.html"""

_BOM = b"\xef\xbb\xbf"
_EVENT_LIMIT = 16 * 1024 * 1024


class EventTooLarge(Exception):
    """The upstream sent an event over 16 MiB. Give the stream up."""

    def __init__(self) -> None:
        super().__init__(f"upstream sent an event of more than {_EVENT_LIMIT} bytes")


class EventDecoder:
    r"""Bytes in, the `data` of each complete event out.

    Takes any split of the bytes, inside a character too; lines ending in \n, \r\n or \r; several data lines per event
    (joined by \n). Comments (`: keep-alive`) and other fields are dropped, and so are events without data.
    """

    def __init__(self) -> None:
        self._rest = bytearray()  # an unfinished line
        self._data: list[bytes] = []  # the data lines of an unfinished event
        self._size = 0  # of its finished lines, whatever they hold
        self._after_cr = False
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that these bytes complete, in order. Raises EventTooLarge."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")  # the other half of a \r\n cut in two
            self._after_cr = False
        lines = data.splitlines(keepends=True)
        rest = b""
        if lines and (last := lines[-1])[-1:] != b"\n":
            if last.endswith(b"\r"):
                self._after_cr = True
            else:
                rest = lines.pop()
        if lines and self._rest:
            lines[0] = bytes(self._rest + lines[0])
            self._rest = bytearray()
        if rest:
            self._rest += rest  # which takes as long as the new part: a line may come in very many pieces
        if self._size + len(self._rest) > _EVENT_LIMIT:
            raise EventTooLarge
        return self._payloads(lines)

    def finish(self) -> list[bytes]:
        """The payload left when the stream ended without its last empty line.

        An unfinished line is dropped, for it may have been cut; only a bare `[DONE]` is as good as finished.
        """
        rest, self._rest = bytes(self._rest), bytearray()
        lines = [b"\n"] if rest.replace(b" ", b"") != b"data:[DONE]" else [rest, b"\n"]
        return self._payloads(lines)

    def _payloads(self, lines: list[bytes]) -> list[bytes]:
        payloads = []
        for line in lines:
            if not self._started:
                self._started = True
                line = line.removeprefix(_BOM)
            if line in (b"\n", b"\r\n", b"\r"):
                self._size = 0
                if self._data:
                    if payload := self._data[0] if len(self._data) == 1 else b"\n".join(self._data):
                        payloads.append(payload)
                    self._data.clear()
                continue
            self._size += len(line)
            if self._size > _EVENT_LIMIT:
                raise EventTooLarge
            if line.startswith(b"data:"):
                self._data.append(line[5:].rstrip(b"\r\n").removeprefix(b" "))
        return payloads
