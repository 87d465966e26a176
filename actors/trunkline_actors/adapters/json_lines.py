"""Streams of JSON lines, cut into lines as the bytes arrive. Pure."""

from trunkline_events.failure import FailureClass

from trunkline_actors.adapters.faults import upstream_error

_LINE_LIMIT = 16 * 1024 * 1024


class LineCutter:
    """Bytes in, the lines they complete out, without their line feeds and in time that grows with the bytes alone."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete. Raises UpstreamError where one is over 16 MiB."""
        *lines, rest = data.split(b"\n")
        if lines and self._rest:
            lines[0] = bytes(self._rest + lines[0])
            self._rest = bytearray()
        self._rest += rest
        if len(self._rest) > _LINE_LIMIT:
            message = f"upstream sent a line of more than {_LINE_LIMIT} bytes"
            raise upstream_error(FailureClass.INTERNAL, message, 200)
        return lines

    def finish(self) -> bytes:
        """What is left where the bytes ended without a last line feed."""
        rest, self._rest = bytes(self._rest), bytearray()
        return rest
