"""Who may write a feature store: one run alone, or several shards of one count at once, each with a lock of its own."""

from contextlib import suppress
from pathlib import Path

from .lock import Lock, LockedError, holder_of
from .shards import Shard, shard_files


class StoreLocks:
    """The locks of a store. One run holds `.lock` alone; shards share it, and each holds `shards/2-of-8.lock` alone.

    Args:
        folder: the store's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._shards = folder / "shards"
        self._held: list[Lock] = []

    def acquire_alone(self) -> list[str]:
        """Take the store for this run alone.

        Returns:
            Warnings.

        Raises:
            LockedError: others are writing; the message names them.
        """
        lock = Lock(self.path)
        try:
            return self._hold(lock, lock.acquire())
        except LockedError as holder:
            raise LockedError(self._shards_at_work() or str(holder)) from None

    def acquire_shared(self) -> list[str]:
        """Let no run take the store for itself alone; as `acquire_alone`."""
        lock = Lock(self.path)
        return self._hold(lock, lock.acquire(shared=True))

    def acquire_shard(self, shard: Shard) -> list[str]:
        """Take a shard, in a store that is shared; as `acquire_alone`."""
        lock = Lock(self._shards / f"{shard.stem}.lock")
        try:
            return self._hold(lock, lock.acquire())
        except LockedError as holder:
            raise LockedError(f"shard {shard}: {holder}") from None

    def release(self) -> None:
        """Release what is held."""
        while self._held:
            self._held.pop().release()

    def _hold(self, lock: Lock, has_locks: bool) -> list[str]:
        self._held.append(lock)
        if not has_locks:
            return [f"the file system of {lock.path} has no locks: make sure that no other run writes there"]
        if lock.left_by is None:
            return []
        return [
            f"{lock.path} was left by {lock.left_by}; if that still runs, the locks of this file system do not reach "
            "other hosts: stop one of the two"
        ]

    def _shards_at_work(self) -> str:
        """Name the shards that work, or have been killed."""
        named = {}
        for path in shard_files(self._shards, ".lock"):
            with suppress(OSError):  # it may have gone since
                if holder := holder_of(path):
                    named[path.stem.replace("-of-", "/")] = holder
        first = next((f"shard {shard}: {holder}" for shard, holder in named.items()), "")
        return f"{first}, and {len(named) - 1} more" if len(named) > 1 else first
