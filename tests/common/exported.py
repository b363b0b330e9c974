"""Reads what tools/exports.h writes: the files of pstats, Firefox's profiler, Perfetto and jsonl, each by the rules that its
readers have. What is not so is a FormatError. Times are nanoseconds; all stacks are leaf first.

It runs in any Python, and needs nothing from around it.
"""

import collections
import decimal
import json
import marshal

Frame = collections.namedtuple('Frame', 'name file line first_line')
Sample = collections.namedtuple('Sample', 'thread stack is_idle start weight cpu')  # firefox
Slice = collections.namedtuple('Slice', 'tid name category start duration depth parent')  # parent: a slice's index, or None
Jsonl = collections.namedtuple('Jsonl', 'facts functions nodes spans')


class FormatError(Exception):
    """A file that is not as it should be."""


def hold(is_so, rule):
    if not is_so:
        raise FormatError(rule)


def ns(number, unit):
    """A decimal number of a unit, in nanoseconds: whole ones."""
    value = decimal.Decimal(number) * unit
    hold(value == int(value), 'times: whole nanoseconds')
    return int(value)


def load(text):
    hold('\\ud' not in text.replace('\\\\', ''), 'strings: no escapes of lone surrogates')
    return json.loads(text, parse_float=decimal.Decimal)


# ---- pstats

def read_pstats(data):
    """{(file, line, name): (cc, nc, tt, ct, callers)}, times in nanoseconds."""
    rows = marshal.loads(data)
    hold(marshal.dumps(rows, 2)[:1] == data[:1] == b'{', 'marshal: a dict')
    hold(rows, 'pstats: no empty dict')
    found = {}
    for (file, line, name), (cc, nc, tt, ct, callers) in rows.items():
        hold(file and name and isinstance(line, int) and line >= 0, 'pstats: a file, a line and a name')
        hold(cc <= nc and tt <= ct, 'pstats: a part is no more than the whole')
        hold(set(callers) <= set(rows), 'pstats: callers that are there')
        found[file, line, name] = (cc, nc, round(tt * 1e9), round(ct * 1e9), {
            caller: (entry[1], entry[0], round(entry[2] * 1e9), round(entry[3] * 1e9)) for caller, entry in callers.items()})
    return found


# ---- firefox

COLUMNS = {
    'samples': 'stack time weight threadCPUDelta',
    'stackTable': 'frame prefix',
    'frameTable': 'address inlineDepth category subcategory func nativeSymbol innerWindowID line column',
    'funcTable': 'name isJS relevantForJS resource fileName lineNumber columnNumber',
    'markers': 'data name startTime endTime phase category',
}


def check_tables(thread):
    for table, columns in COLUMNS.items():
        there = set(thread[table]) - {'length', 'weightType'}
        hold(there == set(columns.split()), '%s: its columns, not %s' % (table, there))
        for column in there:
            hold(len(thread[table][column]) == thread[table]['length'], '%s: as long as it says' % table)
    for number, prefix in enumerate(thread['stackTable']['prefix']):
        hold(prefix is None or prefix < number, 'stackTable: callers come first')


def stack_of(thread, strings, number):
    frames, stack, is_leaf, is_idle = thread['frameTable'], [], True, False
    functions = thread['funcTable']
    while number is not None:
        frame = thread['stackTable']['frame'][number]
        function = frames['func'][frame]
        if is_leaf:
            is_idle = frames['category'][frame] == 1
        hold(is_leaf or frames['category'][frame] == 2, 'frameTable: only a leaf waits')
        file = functions['fileName'][function]
        stack.append(Frame(strings[functions['name'][function]], '' if file is None else strings[file],
                           frames['line'][frame] or 0, functions['lineNumber'][function] or 0))
        number, is_leaf = thread['stackTable']['prefix'][number], False
    return tuple(stack), is_idle


def read_firefox(text):
    """All samples but those without a stack, which weigh nothing; and the document."""
    document = load(text)
    meta, strings, samples = document['meta'], document['shared']['stringArray'], []
    hold((meta['version'], meta['preprocessedProfileVersion']) == (32, 57), 'meta: the versions')
    hold([one['name'] for one in meta['categories']] == ['Other', 'Idle', 'Python'], 'meta: categories')
    hold(document['threads'], 'threads: one at least')
    hold(len({thread['tid'] for thread in document['threads']}) == len(document['threads']), 'threads: ids of their own')
    for thread in document['threads']:
        hold(isinstance(thread['pid'], str) and isinstance(thread['tid'], int), 'threads: pid a text, tid a number')
        check_tables(thread)
        table = thread['samples']
        unit = 1 if table['weightType'] == 'samples' else 1000000
        cpu = table['threadCPUDelta']
        hold(table['time'] == sorted(table['time']), 'samples: in the order of time')
        hold(not cpu or cpu[0] == 0, 'samples: no CPU time before the first one')
        for i, number in enumerate(table['stack']):
            weight = ns(table['weight'][i], unit)
            if number is None:
                hold(weight == 0, 'samples: without a stack, no weight')
            else:
                stack, is_idle = stack_of(thread, strings, number)
                samples.append(Sample(thread['name'], stack, is_idle, ns(table['time'][i], 1000000), weight, cpu[i + 1]))
    return samples, document


# ---- perfetto

def read_perfetto(text):
    """The slices of each thread, in the order in which they stand: each within its parent. And the threads' names."""
    events, slices, names = load(text)['traceEvents'], [], {}
    open_slices = collections.defaultdict(list)
    for event in events:
        if event['ph'] == 'M':
            if event['name'] == 'thread_name':
                hold(event['tid'] not in names, 'threads: ids of their own')
                names[event['tid']] = event['args']['name']
            continue
        hold(set(event) == {'ph', 'name', 'cat', 'pid', 'tid', 'ts', 'dur'} and event['ph'] == 'X', 'slices: no arguments')
        hold(isinstance(event['tid'], int), 'slices: tid a number')
        start, duration = ns(event['ts'], 1000), ns(event['dur'], 1000)
        stack = open_slices[event['tid']]
        while stack and start >= slices[stack[-1]].start + slices[stack[-1]].duration and duration:
            stack.pop()
        parent = slices[stack[-1]] if stack else None
        hold(not parent or start + duration <= parent.start + parent.duration, 'slices: within their parents')
        hold(not parent or start >= parent.start, 'slices: parents first')
        slices.append(Slice(event['tid'], event['name'], event['cat'], start, duration, len(stack), stack[-1] if stack else None))
        stack.append(len(slices) - 1)
    return slices, names


def self_times(slices):
    """{(names of the stack, leaf first, whether it waits): nanoseconds}."""
    own = [one.duration for one in slices]
    for one in slices:
        if one.parent is not None:
            own[one.parent] -= one.duration
    hold(all(time >= 0 for time in own), 'slices: no more than their parents')
    stacks, sums = [], collections.Counter()
    for i, one in enumerate(slices):
        stacks.append((one.name,) + (stacks[one.parent] if one.parent is not None else ()))
        if own[i]:
            sums[stacks[i], one.category == 'idle'] += own[i]
    return sums


# ---- jsonl

FIGURES = ['samples', 'samples_idle', 'wall_ns', 'wall_idle_ns', 'cpu_ns', 'gil_ns']
FIELDS = {
    'facts': ['format', 'version', 'program', 'process', 'python', 'start_ns', 'duration_ns', 'interval_us', 'stats'],
    'function': ['id', 'name', 'path', 'file', 'first_line'],
    'thread': ['id', 'name', 'tid', 'is_named'] + FIGURES,
    'node': ['id', 'parent', 'function', 'line'] + FIGURES,
    'span': ['thread', 'node', 'start_ns', 'wall_ns', 'cpu_ns', 'samples', 'is_idle', 'has_gil'],
    'end': ['nodes', 'spans'],
}
OF_SEVERAL = ['id', 'name', 'tid', 'is_named', 'process', 'pid'] + FIGURES  # a thread's, in a profile of several processes


class Reader:
    """What was read so far. Whatever a line refers to came before it."""

    def __init__(self):
        self.functions, self.nodes, self.spans, self.threads = [], [], [], []
        self.facts = self.end = None

    def take(self, line):
        value = json.loads(line)
        kind = value.pop('type')
        is_of_several = kind == 'thread' and list(value) == OF_SEVERAL
        hold(list(value) == FIELDS[kind] or is_of_several, '%s: its fields' % kind)
        hold(self.end is None and (self.facts is None) == (kind == 'facts'), 'jsonl: facts, ..., end')
        getattr(self, 'take_' + kind)(value)

    def take_facts(self, value):
        hold((value['format'], value['version']) == ('pyprof-jsonl', 1), 'facts: format and version')
        self.facts = value

    def take_function(self, value):
        hold(value['id'] == len(self.functions), 'functions: numbered')
        self.functions.append(value)

    def take_thread(self, value):
        hold(value['id'] == len(self.nodes), 'nodes: numbered')
        self.threads.append(value['id'])
        self.nodes.append(dict(value, parent=None, thread=len(self.threads) - 1))

    def take_node(self, value):
        hold(value['id'] == len(self.nodes) and value['parent'] < value['id'], 'nodes: numbered, callers first')
        hold(value['function'] < len(self.functions), 'nodes: a function that is there')
        self.nodes.append(dict(value, thread=self.nodes[value['parent']]['thread']))

    def take_span(self, value):
        hold(self.nodes[value['node']]['thread'] == value['thread'], 'spans: of their node\'s thread')
        if self.spans and self.spans[-1]['thread'] == value['thread']:
            before = self.spans[-1]
            hold(before['start_ns'] + before['wall_ns'] <= value['start_ns'], 'spans: without overlap')
        self.spans.append(value)

    def take_end(self, value):
        hold((value['nodes'], value['spans']) == (len(self.nodes), len(self.spans)), 'end: how many there were')
        self.end = value

    def stack(self, number):
        """Of a node; a frame has what its function has."""
        stack = []
        while self.nodes[number]['parent'] is not None:
            node = self.nodes[number]
            function = self.functions[node['function']]
            stack.append(Frame(function['name'], function['path'], node['line'], function['first_line']))
            number = node['parent']
        return tuple(stack)


def read_jsonl(text):
    reader = Reader()
    hold(text.endswith('\n'), 'jsonl: the last line has an end')
    for line in text.split('\n')[:-1]:
        reader.take(line)
    hold(reader.end is not None, 'jsonl: an end')
    return reader
