"""From a complete part to the user's file: the steps, each of which a crash may follow.

A file: modes, sync; link to the final name; sync the folder; unlink the part; sync the folder.
A folder: modes, sync; rename; sync the folder above. Then the caller saves the record and removes
the state file. Whatever step a crash follows, part or target is whole and the state file vouches
for it by inode, so the next start goes on from there; every step may be done twice.

Job: those steps, blocking. Does NOT check content. Threat: something that appeared under the final
name meanwhile is never overwritten unless the operator asked for it. Tests:
``test_store``, ``test_create``, ``test_crash``.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from p2pdist.errors import ContentConflict
from p2pdist.ids import HashKey, short
from p2pdist.storage.disk import Kind
from p2pdist.storage.layout import part_name
from p2pdist.storage.tree import FileTree

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
"""What link(2) answers on file systems without hard links."""


def publish(tree: FileTree, name: str, hash_key: HashKey, *, replace: bool) -> bytes:
    """Give the complete, synced tree its final name and modes, durably.

    Args:
        tree: at its part name, or at ``name`` already when a crash came in between.
        name: the final name.
        hash_key: of the content.
        replace: what stands under ``name`` may be replaced; a folder is kept under another name.

    Returns:
        The stamps of the published files.

    Raises:
        ContentConflict: something else stands under ``name``; the part is as it was.
        OSError: publishing may be tried again.
    """
    tree.chmod()
    part = part_name(name, hash_key)
    if tree.top != name:
        if tree.is_folder:
            _rename_folder(tree, part, name, hash_key, replace)
        else:
            _link_file(tree, part, name, replace)
        tree.disk.sync(tree.root)
    if not tree.is_folder:
        _unlink_part(tree, part)
    stamps = tree.stamps()
    tree.seal()
    return stamps


def previous_name(name: str, hash_key: HashKey) -> str:
    """Return what a folder that had to give way to ``name`` is called from then on."""
    return f"{name}.before-{short(hash_key)}"


def _conflict(tree: FileTree, name: str, what: str) -> ContentConflict:
    return ContentConflict(
        f"{tree.directory}/{name} {what}; the download is complete and kept in {tree.path}"
    )


def _link_file(tree: FileTree, part: str, name: str, replace: bool) -> None:
    disk, root = tree.disk, tree.root
    existing = disk.facts_at(root, name)
    if existing is None:
        try:
            disk.link(root, part, name)
        except FileExistsError:
            raise _conflict(tree, name, "has just appeared") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            tree.move(name, lambda: disk.rename_exclusive(root, part, name))
            return
        tree.move(name, lambda: None)
    elif replace and existing.kind is Kind.FILE:
        tree.move(name, lambda: disk.rename(root, part, name))
    else:
        raise _conflict(tree, name, f"is {existing.kind.value} with other content")


def _unlink_part(tree: FileTree, part: str) -> None:
    left = tree.disk.facts_at(tree.root, part)
    if left is not None and left.inode == tree.facts(0).inode:
        tree.disk.unlink(tree.root, part)
        tree.disk.sync(tree.root)


def _rename_folder(tree: FileTree, part: str, name: str, hash_key: HashKey, replace: bool) -> None:
    disk, root = tree.disk, tree.root
    existing = disk.facts_at(root, name)
    if existing is not None and existing.kind is Kind.DIRECTORY:
        with suppress(OSError):
            disk.remove_directory(root, name)  # goes only if it is empty
            existing = None
    if existing is not None:
        if not replace or existing.kind is not Kind.DIRECTORY:
            raise _conflict(tree, name, f"is {existing.kind.value} with other content")
        try:
            disk.rename_exclusive(root, name, previous_name(name, hash_key))
        except FileExistsError:
            raise _conflict(
                tree, name, f"and {previous_name(name, hash_key)!r} both stand in the way"
            ) from None
    try:
        tree.move(name, lambda: disk.rename_exclusive(root, part, name))
    except FileExistsError:
        raise _conflict(tree, name, "has just appeared") from None
