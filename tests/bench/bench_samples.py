"""A profile in pprof's format, built field by field."""


def varint(value):
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)


def number(field, value):
    return varint(field << 3) + varint(value)


def nested(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def pprof():
    """One sample of main, called by <module>, with two values and the name of its thread; one of the second kind only,
    which is zero."""
    strings = ['', 'wall-time', 'nanoseconds', 'wall-samples', 'count', '<module>', 'main', '/a/t.py', 'thread id',
               'thread name', 'T 1']
    kinds = [number(1, 1) + number(2, 2), number(1, 3) + number(2, 4)]
    labels = [nested(3, number(1, 8) + number(3, 77)), nested(3, number(1, 9) + number(2, 10))]
    samples = [nested(1, varint(2) + varint(1)) + nested(2, varint(20000000) + varint(2)) + b''.join(labels),
               number(1, 1) + nested(2, varint(0) + varint(0))]
    locations = [number(1, 1) + nested(4, number(1, 1) + number(2, 21)),
                 number(1, 2) + nested(4, number(1, 2) + number(2, 300))]
    functions = [number(1, 1) + number(2, 5) + number(4, 7), number(1, 2) + number(2, 6) + number(4, 7)]
    parts = [nested(1, one) for one in kinds] + [nested(2, one) for one in samples]
    parts += [nested(4, one) for one in locations] + [nested(5, one) for one in functions]
    return b''.join(parts + [nested(6, text.encode()) for text in strings])
