"""Reads a pool of volumes that is not open: docs/formats/volume-store.md, and nothing else of the program.

    python3 tools/reader/pool.py POOL                    looks whether every byte that is described is as it is described
    python3 tools/reader/pool.py POOL VOLUME TARGET      copies what a volume has, its log taken in, into a sparse file

It needs no packages, and memory for two bits of every block: it is for tests and for emergencies, not for large pools.
"""

import argparse
import sys

BLOCK = 4096
REGION = 32768
SET_ASIDE = 8
GROUP = 512
LEAF = 256
FAN = 64
WRITE, DISCARD = 1, 2


def crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = crc_table()


def crc32c(data):
    sum_ = 0xFFFFFFFF
    for byte in data:
        sum_ = sum_ >> 8 ^ TABLE[(sum_ ^ byte) & 255]
    return sum_ ^ 0xFFFFFFFF


def sum_without(data, at):
    """The sum of a block that has it within itself."""
    return crc32c(data[:at] + bytes(4) + data[at + 4:])


def number(data, at, length):
    return int.from_bytes(data[at:at + length], "little")


class Pointer:
    """What names a node."""

    def __init__(self, data):
        self.place, self.birth, self.sum = number(data, 0, 6), number(data, 6, 6), number(data, 12, 4)
        self.greatest, self.marks = number(data, 16, 6), data[24:56]
        self.reserved = data[22:24] + data[56:64]


class Entry:
    """What names a block of data."""

    def __init__(self, data):
        self.place, self.birth, self.sum = number(data, 0, 6), number(data, 6, 6), number(data, 12, 4)


class State:
    """A slot of the catalog: a volume or a snapshot."""

    def __init__(self, slot):
        self.kind = {1: "volume", 2: "snapshot"}[slot[0]]
        self.deleting, self.level = slot[1] & 1, slot[2]
        self.id, self.epoch, self.line = number(slot, 8, 8), number(slot, 16, 8), number(slot, 24, 8)
        self.blocks, self.passed, self.origin = number(slot, 32, 8), number(slot, 40, 8), number(slot, 48, 8)
        self.root, self.name = Pointer(slot[64:128]), slot[128:128 + slot[3]].decode()
        self.reserved = slot[4:8] + slot[56:64] + slot[128 + slot[3]:]
        # Block of the volume: place and sum.
        self.data = {}


class Pool:
    """A pool, read and looked at; `wrong` has what is not as it is described."""

    def __init__(self, file):
        self.file, self.wrong = file, []
        self.read_superblock()
        self.read_space()
        self.owned = {}
        self.read_catalog()
        # Of what is being deleted, a part is given back already.
        for state in (state for state in self.states if not state.deleting):
            self.walk(state.root, state.level, 0, state.data, state.id)
        if not any(state.deleting for state in self.states):
            self.compare_space()
        self.read_log()

    def expect(self, truth, what):
        if not truth:
            self.wrong.append(what)

    def block(self, place, count=1):
        self.file.seek(place * BLOCK)
        return self.file.read(count * BLOCK)

    def checked(self, place, sum_, what):
        data = self.block(place)
        self.expect(crc32c(data) == sum_, f"{what}, at {place}: its checksum is another")
        return data

    def read_superblock(self):
        whole = []
        for at in range(4):
            data = self.block(at)
            if data[:8] != b"ORLOPVOL" or number(data, 12, 4) != sum_without(data, 12):
                continue
            if number(data, 8, 4) > 1:
                sys.exit(f"the pool has version {number(data, 8, 4)}, and this reads 1")
            if number(data, 32, 8) % 2 == at // 2:
                whole.append(data)
        if not whole:
            sys.exit("there is no superblock")
        data = max(whole, key=lambda data: number(data, 32, 8))
        self.superblock = data
        self.id, self.checkpoint, self.generation = data[16:32], number(data, 32, 8), number(data, 40, 8)
        self.blocks, self.log_blocks, self.unit = number(data, 48, 8), number(data, 56, 8), number(data, 64, 4)
        self.replay = number(data, 72, 8), number(data, 80, 8)
        self.expect(data[109:112] == bytes(3) and data[192:512] == bytes(320), "reserved bytes of the superblock")
        self.regions = -(-self.blocks // REGION)

    def fixed(self):
        """The places that are set aside."""
        aside = {r * REGION + i for r in range(self.regions) for i in range(SET_ASIDE)}
        return {place for place in aside if place < self.blocks} | set(range(SET_ASIDE, SET_ASIDE + self.log_blocks))

    def read_space(self):
        self.used = bytearray(self.blocks)
        for place in self.fixed():
            self.used[place] = 1
        for group in range(-(-self.regions // GROUP)):
            at = 512 + 8 * group
            page = self.slot(self.superblock[at:at + 8], group * GROUP * REGION + 4, "a page of the directory", 0)
            for region in range(group * GROUP, min(self.regions, (group + 1) * GROUP)) if page else ():
                self.read_region(region, page[8 * (region % GROUP):][:8])

    def slot(self, entry, first, what, free=None):
        """The page that a slot entry names."""
        self.expect(entry[7] == 0 and free in (None, number(entry, 4, 2)), f"the slot entry of {what}")
        return self.checked(first + entry[6] - 1, number(entry, 0, 4), what) if entry[6] else None

    def read_region(self, region, entry):
        bits = self.slot(entry, region * REGION + 6, f"the bits of region {region}")
        if bits is None:
            return
        free = 0
        for i in range(REGION):
            bit, place = bits[i // 8] >> i % 8 & 1, region * REGION + i
            if place >= self.blocks:
                self.expect(bit == 0, f"the bit of {place}, which is beyond the end")
                continue
            self.expect(bit == 1 or self.used[place] == 0, f"the bit of {place}, which is set aside")
            self.used[place] = bit
            free += 1 - bit
        self.expect(free == number(entry, 4, 2), f"how many blocks of region {region} are free")

    def walk(self, pointer, level, index, found, owner):
        self.expect(not any(pointer.reserved), f"{owner}: reserved bytes of a pointer")
        if pointer.place == 0:
            return
        data = self.checked(pointer.place, pointer.sum, f"{owner}: a node of level {level}")
        self.owned.setdefault(pointer.place, owner)
        kind, size, count = (Entry, 16, LEAF) if level == 0 else (Pointer, 64, FAN)
        greatest = 0
        for i in range(count):
            entry = kind(data[size * i:size * (i + 1)])
            where = f"{owner}: entry {i} of the node of level {level} at {pointer.place}"
            marked = pointer.marks[i // 8] >> i % 8 & 1
            self.expect(marked == (entry.birth == pointer.birth), f"{where}: its mark")
            self.expect(entry.birth <= pointer.birth, f"{where}: it is younger than the node")
            greatest = greatest if marked else max(greatest, entry.birth)
            if level > 0:
                self.walk(entry, level - 1, index * FAN + i, found, owner)
            elif entry.place:
                found[index * LEAF + i] = entry.place, entry.sum
                self.owned.setdefault(entry.place, owner)
            else:
                self.expect(entry.sum == 0, f"{where}: the sum of a hole")
        self.expect(greatest == pointer.greatest, f"{owner}: the greatest birth of the node at {pointer.place}")

    def read_catalog(self):
        pages, self.states = {}, []
        self.walk(Pointer(self.superblock[128:192]), self.superblock[108], 0, pages, "the catalog")
        self.expect(len(pages) == number(self.superblock, 112, 8), "how many pages the catalog has")
        for place, sum_ in (pages[page] for page in sorted(pages)):
            data = self.checked(place, sum_, "a page of the catalog")
            for at in range(0, BLOCK, 256):
                if data[at]:
                    self.states.append(State(data[at:at + 256]))
        for state in self.states:
            self.expect(not any(state.reserved), f"reserved bytes of the slot of {state.name}")

    def compare_space(self):
        fixed = self.fixed()
        for place in (place for place in range(self.blocks) if place not in fixed):
            self.expect(bool(self.used[place]) == (place in self.owned), f"whether {place} is used")

    def record(self, at, sequence):
        data = self.log[at:at + 64]
        length = number(data, 4, 4)
        if data[:4] != b"OLRC" or length > 32768 or length % self.unit or at + length > len(self.log):
            return None
        data = self.log[at:at + length]
        ours = number(data, 16, 8) == self.generation and data[48:56] == self.id[:8]
        return data if number(data, 8, 4) == sum_without(data, 8) and ours and number(data, 24, 8) == sequence else None

    def read_log(self):
        self.log = self.block(SET_ASIDE, self.log_blocks)
        (sequence, at), records = self.replay, []
        while True:
            found = [(here, data) for here in (at, 0) if (data := self.record(here, sequence))]
            if not found:
                break
            here, data = found[0]
            records.append(data)
            at, sequence = (here + len(data)) % len(self.log), sequence + 1
        # All records before this one were flushed, and so was the data that they tell of.
        flushed = number(records[-1], 32, 8) if records else 0
        volumes = {state.id: state for state in self.states}
        for data in records:
            self.expect(data[60:64] == bytes(4), "reserved bytes of a record")
            self.replay_record(data, volumes, number(data, 24, 8) < flushed)
        self.logged = len(records)

    def replay_record(self, data, volumes, is_flushed):
        at, end = 64, 64 + number(data, 56, 4)
        for _ in range(number(data, 12, 4)):
            volume, first = volumes[number(data, at + 8, 8)], number(data, at + 16, 8)
            if data[at] == WRITE:
                count, place = number(data, at + 2, 2), number(data, at + 24, 8)
                self.expect(first // LEAF == (first + count - 1) // LEAF, "a write of more than one leaf")
                for i in range(count):
                    sum_ = number(data, at + 32 + 4 * i, 4)
                    if is_flushed or crc32c(self.block(place + i)) == sum_:
                        volume.data[first + i] = place + i, sum_
                at += 32 + 4 * count
            else:
                self.expect(data[at] == DISCARD, "the kind of a change")
                for block in range(first, first + number(data, at + 4, 4)):
                    volume.data.pop(block, None)
                at += 24
        self.expect(at == end, "the length of the changes of a record")

    def copy(self, name, target):
        state = next((state for state in self.states if state.kind == "volume" and state.name == name), None)
        if state is None:
            sys.exit(f"there is no volume {name}")
        with open(target, "xb") as out:
            out.truncate(state.blocks * BLOCK)
            for block, (place, sum_) in sorted(state.data.items()):
                out.seek(block * BLOCK)
                out.write(self.checked(place, sum_, f"block {block} of {name}"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool")
    parser.add_argument("volume", nargs="?")
    parser.add_argument("target", nargs="?")
    args = parser.parse_args()
    if args.volume and not args.target:
        parser.error("say into which file the volume is to be copied")
    with open(args.pool, "rb") as file:
        pool = Pool(file)
        if args.volume:
            pool.copy(args.volume, args.target)
    for state in pool.states:
        print(f"{state.kind} {state.id} {state.name}: {state.blocks} blocks, {len(state.data)} of them data")
    for what in pool.wrong:
        print(f"not as described: {what}")
    print(f"checkpoint {pool.checkpoint}, {pool.used.count(0)} blocks free, {pool.logged} records in the log")
    return 1 if pool.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
