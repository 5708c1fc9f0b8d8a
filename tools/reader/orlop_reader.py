#!/usr/bin/env python3
"""Reads backup repositories of orlop. Written from docs/formats alone, so that the format does not hang on one program.

Exit codes: 0 all is well, 1 something is wrong with the repository or the request, 2 wrong usage, 3 something could not
be restored.
"""

import argparse
import os
import sys
import time

import applications
import contents
import restore
from check import Checker
from primitives import Damage, Unsupported, spell_canonical
from repository import Repository
from restore import shown


def read_passphrase(path):
    with open(path, "rb") as file:
        text = file.read()
    # Editors end a file with a line break, which nobody means to be a part of the passphrase.
    return text.rstrip(b"\r\n")


def chosen_root(point, name):
    if name is None and len(point.roots) == 1:
        return point.roots[0]
    for root in point.roots:
        if root.name == name:
            return root
    names = ", ".join(shown(root.name.encode()) for root in point.roots)
    raise Damage(f"choose one of the contents with --volume: {names}" if point.roots else "it has no contents")


def list_points(repository, _):
    status = 0
    for id in repository.points():
        try:
            point = repository.point(id)
        except (Damage, Unsupported) as error:
            print(f"{id}: {error}", file=sys.stderr)
            status = 1
            continue
        complete = "complete" if point.fields["complete"] else "incomplete"
        print(f"{id}  {point.fields['created']}  {point.fields['source']['kind']}  {complete}")
        for root in point.roots:
            print(f"    {root.kind}  {root.files} files  {root.bytes} bytes  {shown(root.name.encode())}")
    return status


def list_contents(repository, arguments):
    root = chosen_root(repository.point(arguments.id), arguments.volume)
    if root.kind != "tree":
        for extent in contents.image_extents(repository, root):
            print(f"{extent.offset} {extent.length} {extent.blob.blob.hex()} {extent.blob_offset}")
        return 0
    for path, entry in contents.tree_entries(repository, root.table):
        seconds = entry.mtime[0]
        try:
            modified = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
        except (OverflowError, OSError, ValueError):
            modified = str(seconds)  # A time far beyond the calendar is a valid one.
        line = f"{entry.mode:04o} {contents.KIND_NAMES[entry.kind]} {entry.uid}:{entry.gid} {entry.size} {modified}"
        line += f" {shown(b'/'.join(path)) or '.'}"
        if entry.kind in (contents.SYMLINK, contents.HARD_LINK):
            line += f" -> {shown(entry.target.replace(bytes(1), b'/'))}"
        print(line)
    return 0


def restore_contents(repository, arguments):
    root = chosen_root(repository.point(arguments.id), arguments.volume)
    # New files belong to nobody else until they have got their own mode.
    os.umask(0o077)
    if root.kind != "tree":
        restore.restore_image(repository, root, arguments.target)
        return 0
    failures = restore.restore_tree(repository, root, arguments.target, lambda line: print(line, file=sys.stderr))
    if failures:
        print(f"{failures} things could not be restored", file=sys.stderr)
    return 3 if failures else 0


def check(repository, _):
    checker = Checker(repository)
    checker.run()
    for name, what in checker.findings:
        print(f"{name}: {what}")
    for id in sorted(checker.hit):
        print(f"recovery point {id} is hit")
    objects = len(repository.names)
    print(f"{objects} objects were read, {repository.foreign} foreign ones left alone")
    print(f"{len(checker.findings)} things are wrong")
    return 1 if checker.findings else 0


def print_line(line):
    sys.stdout.buffer.write(line + b"\n")


def print_objects(repository, arguments):
    table = repository.point(arguments.id).objects
    if table is not None:
        for _, _, value in applications.objects(repository, table):
            print_line(value)  # Canonical JSON has no line break in it.
    sys.stdout.buffer.flush()
    return 0


def print_ledger(repository, arguments):
    table = repository.point(arguments.id).ledger
    if table is not None:
        for _, name, fields in applications.ledger(repository, table):
            # What the entry is about is only in its key.
            print_line(spell_canonical(fields | {
                "group": name.group, "kind": name.kind, "namespace": name.namespace, "name": name.name}))
    sys.stdout.buffer.flush()
    return 0


COMMANDS = {
    "list": list_points,
    "ls": list_contents,
    "restore": restore_contents,
    "check": check,
    "objects": print_objects,
    "ledger": print_ledger,
}


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description="Reads backup repositories of orlop.")
    parser.add_argument("--repository", required=True, help="the folder")
    parser.add_argument("--password-file", required=True, help="the passphrase; line breaks at its end are left out")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the recovery points and their contents")
    ls = commands.add_parser("ls", help="what is in a tree; the extents of a volume or stream")
    restore_parser = commands.add_parser("restore", help="a tree to an empty folder; all else to a new file")
    commands.add_parser("check", help="read every byte and follow every reference")
    objects = commands.add_parser("objects", help="the objects of an application, one in a line")
    ledger = commands.add_parser("ledger", help="what was wanted, and what became of it, one in a line")
    for parser_of_id in ls, restore_parser, objects, ledger:
        parser_of_id.add_argument("id")
    restore_parser.add_argument("target")
    for parser_of_volume in ls, restore_parser:
        parser_of_volume.add_argument("--volume", help="the name of the content, if there are several")
    return parser.parse_args(arguments)


def main(arguments=None):
    arguments = parse_arguments(arguments)
    try:
        with Repository(arguments.repository, read_passphrase(arguments.password_file)) as repository:
            return COMMANDS[arguments.command](repository, arguments)
    except (Damage, Unsupported, OSError) as error:
        print(f"orlop_reader: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
