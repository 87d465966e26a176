"""Files that unlock the vault: a passphrase, or a key file. Nobody but their owner may read them."""

import asyncio
import os
import stat
from pathlib import Path

from trunkline_actors.sealing import Algorithm, Kdf, Key, derive, passphrase_bytes, read_key_file

LARGEST = 64 * 1024


class BadUnlockFile(Exception):
    """This file can't unlock the vault. The message says why and what to do; it never quotes the file."""


def read_private(path: Path) -> str:
    """The text of a file that only its owner can read, without the line feed at its end. Raises BadUnlockFile."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BadUnlockFile(f"{path} is no regular file; name one")
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise BadUnlockFile(f"{path} may be read by others; chmod 600 it")
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise BadUnlockFile(f"{path} can't be read: {error.strerror}") from error
    if len(data) > LARGEST:
        raise BadUnlockFile(f"{path} is too large to hold a passphrase or a key")
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadUnlockFile(f"{path} holds no text; a passphrase is UTF-8, a key file base64") from None


def material(path: Path, algorithm: Algorithm) -> bytes:
    """What the key is derived from. Raises BadUnlockFile."""
    text = read_private(path)
    if algorithm != "key-file":
        return passphrase_bytes(text)
    try:
        return read_key_file(text)
    except ValueError as error:
        raise BadUnlockFile(f"{path}: {error}") from None


def algorithm_of(path: Path) -> Algorithm:
    """What a new vault would use this file for. Raises BadUnlockFile."""
    try:
        read_key_file(read_private(path))
    except ValueError:
        return "argon2id"
    return "key-file"


async def key_of(path: Path, kdf: Kdf) -> Key:
    """The key that this file gives, derived in a thread. Raises BadUnlockFile, BadKdf."""
    return await asyncio.to_thread(lambda: derive(kdf, material(path, kdf.algorithm)))
