const svg = document.currentScript?.closest('svg') ?? document.documentElement;
const part = (id) => svg.querySelector('#' + id);
const put = (element, attributes) => {
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  return element;
};
const make = (tag, attributes, space = 'http://www.w3.org/2000/svg') => put(document.createElementNS(space, tag), attributes);
const html = (tag, attributes) => make(tag, attributes, 'http://www.w3.org/1999/xhtml');
const {pad, row} = data;
// The table, see flamegraph_put_table(): numbers to the base of 42, names, frames with the records of their own values.
const digitOf = new Uint8Array(127);
for (let code = 37, next = 0; code < 127; code++)
  if (!'&<>\\]`'.includes(String.fromCharCode(code))) digitOf[code] = next++;
function reader(text) {
  let at = 0;
  const next = () => {
    for (let sum = 0; ; ) {
      const digit = digitOf[text.charCodeAt(at++)];
      if (digit < 42) return sum * 42 + digit;
      sum = sum * 42 + digit - 42;
    }
  };
  return {next, rest: () => text.slice(at)};
}
const names = [], codes = [], none = [0, 0];
for (const line of data.names.split('\n')) {
  const read = reader(line), common = read.next();
  codes.push(read.next());
  names.push((names.at(-1) ?? '').slice(0, common) + read.rest());
}
// As flamegraph_colour() has them.
function colour(code) {
  if (code < 3) return code ? '#dedfd8' : '#d5dae1';
  const place = Math.floor((code - 3) / 3), white = (code - 3) % 3 * 16, mix = place % 64;
  const from = data.hues[place >> 6], to = data.hues[((place >> 6) + 1) % data.hues.length];
  let sum = 0;
  for (let shift = 0; shift < 24; shift += 8) {
    const channel = Math.floor(((from >> shift & 255) * (64 - mix) + (to >> shift & 255) * mix) / 64);
    sum |= channel + Math.floor((255 - channel) * white / 128) << shift;
  }
  return '#' + sum.toString(16).padStart(6, '0');
}
const colours = codes.map(colour);
// The tree with threads together and importlib as it is: frames in breadth-first order.
const tree = {name: [], parent: [0], missing: []}, records = [];
const ofBase = []; // difference
const {next: take} = reader(data.table);
for (let i = 0; i < tree.parent.length; i++) {
  tree.name.push(take());
  const code = take(), flags = Math.floor(code / 3);
  tree.missing.push(flags % 2 ? take() : 0);
  for (let k = flags >> 1; k > 0; k--) tree.parent.push(i);
  for (let k = code % 3 < 2 ? code % 3 : take(); k > 0; k--) {
    const kind = take();
    const record = {frame: i, thread: Math.floor(kind / 3), kind: kind % 3, value: take()};
    if (data.figures && record.kind < 2) record.figures = Array.from({length: 6}, (_, bit) => record.value >> bit & 1 ? take() : 0);
    if (record.thread >= data.threads.length) ofBase.push({...record, thread: record.thread - data.threads.length}); else // difference
    records.push(record);
  }
}
const holds = new Set([0, ...data.holds]), importlib = codes.map((code) => code === 2);
const has = {apart: data.threads.length > 2, imports: importlib.some(Boolean), functions: true, callers: true};
// Of figures: wall time busy and idle, CPU time, time with the GIL, samples busy and idle.
const metrics = data.memory || [{name: 'wall time', at: 0, idle: 1}, {name: 'CPU time', at: 2}, {name: 'time with the GIL', at: 3}, {name: 'samples', at: 4, idle: 5, unit: 'samples'}];
const known = Array.from({length: 6}, (_, at) => records.some((record) => record.figures?.[at]));
ofBase.forEach(({figures}) => figures?.forEach((sum, at) => { known[at] ||= sum > 0; })); // difference
has.idle = known[1] || known[5];
has.metric = metrics.filter((one) => known[one.at] || known[one.idle]).length > 1;
const metric = () => metrics[chosen.metric];
function weight(record) {
  if (!record.figures) return record.value;
  const {at, idle} = metric();
  return record.figures[at] + (chosen.idle && idle ? record.figures[idle] : 0);
}
const chosen = {apart: !!data.apart, imports: false, functions: false, callers: false, metric: data.metric, idle: !!data.idle};
// What is shown: frames in breadth-first order, so that the children of one are neighbours, by falling value.
// `origin` tells a frame of the tree and a thread for which each of them stands; `placed` leads back.
let name, value, self, parent, first, children, folded, size, total, origin, placed;
// The same, always from callers to what they call; what is shown may be turned around.
let calls;
// What the frames had in the base, with what they called and of their own; how many are there only, and whether some of
// them are not known.
let old, oldSelf, gone, unsure; // difference
// Which frame of a view stands for a frame of the tree, made when it is asked for: callers have smaller numbers.
function shape() {
  const found = {name: [tree.name[0]], parent: [0], origin: [[0, 0]]}, made = new Map(), stood = new Map([[0, 0]]);
  const enter = (above, word) => {
    const key = above * names.length + word;
    let at = made.get(key);
    if (at === undefined) {
      at = found.name.push(word) - 1;
      found.parent.push(above);
      made.set(key, at);
    }
    return at;
  };
  const shownAs = (frame, above) => {
    const word = tree.name[frame];
    if (chosen.imports || !importlib[word]) return enter(above, word);
    return above && found.name[above] === data.imports ? above : enter(above, data.imports);
  };
  // A thread stands between what may hold it and what it did.
  found.place = (frame, given) => {
    const thread = chosen.apart ? given : 0;
    const way = [];
    for (let at = frame, of = thread; !stood.has(at + of * tree.name.length); ) {
      way.push([at, of]);
      if (of && holds.has(at)) of = 0; else at = tree.parent[at];
    }
    while (way.length) {
      const [at, of] = way.pop(), holder = holds.has(at);
      const above = stood.get(of && holder ? at : tree.parent[at] + of * tree.name.length);
      const stands = of && holder ? enter(above, data.threads[of]) : shownAs(at, above);
      stood.set(at + of * tree.name.length, stands);
      if (!found.origin[stands]) found.origin[stands] = [at, chosen.apart ? of : given];
    }
    return stood.get(frame + thread * tree.name.length);
  };
  return found;
}
// A view's frames by falling value, equal ones by name.
function arrange(view) {
  const count = view.name.length, runs = new Int32Array(count + 1), members = new Int32Array(count);
  for (let i = 1; i < count; i++) runs[view.parent[i] + 1]++;
  for (let i = 0; i < count; i++) runs[i + 1] += runs[i];
  const fill = runs.slice();
  for (let i = 1; i < count; i++) members[fill[view.parent[i]]++] = i;
  const order = [0];
  name = new Int32Array(count), value = new Float64Array(count), self = new Float64Array(count), parent = new Int32Array(count);
  first = new Int32Array(count), children = new Int32Array(count), size = new Float64Array(count), folded = [], origin = [];
  old = new Float64Array(count), oldSelf = new Float64Array(count), gone = 0, unsure = view.lostOld.some((sum) => sum > 0); // difference
  const where = new Int32Array(count);
  for (let at = 0; at < order.length; at++) {
    const i = order[at], run = members.subarray(runs[i], runs[i + 1]);
    run.sort((a, b) => view.value[b] - view.value[a] || view.name[a] - view.name[b]);
    name[at] = view.name[i];
    origin[at] = view.origin[i];
    where[i] = at;
    value[at] = view.value[i];
    self[at] = view.self[i];
    old[at] = view.old[i], oldSelf[at] = view.oldSelf[i], gone += old[at] > 0 && !(value[at] > 0); // difference
    if (view.missing[i] || view.lost[i]) folded[at] = [view.missing[i], view.lost[i]];
    first[at] = order.length;
    children[at] = run.length;
    for (const child of run) parent[order.push(child) - 1] = at;
  }
  for (let i = count - 1; i >= 0; i--) {
    size[i] += 1 + (folded[i]?.[0] ?? 0);
    if (!(value[i] > 0)) size[i]--; // difference
    if (i) size[parent[i]] += size[i];
  }
  total = value[0];
  placed = (frame, thread) => where[view.place(frame, thread)] ?? 0;
  calls = {name, value, self, parent, first, children, folded};
  calls.old = old, calls.oldSelf = oldSelf; // difference
}
// The view turned around: what ran, below those that called it. A group is what is shown as one frame, as places in the
// calls and how much of each counts; who called it is looked for once it is to be drawn.
let groups;
function turn() {
  const own = [];
  calls.self.forEach((sum, i) => { if (sum > 0) own.push(i); });
  name = [calls.name[0]], value = [total], self = [0], parent = [0], first = [0], children = [0], size = [1], folded = [];
  const lost = calls.folded.reduce((sum, one) => [sum[0] + one[0], sum[1] + one[1]], none);
  if (lost[0]) folded[0] = lost;
  calls.oldSelf.forEach((sum, i) => { if (sum > 0 && !(calls.self[i] > 0)) own.push(i); }); // difference
  groups = [{at: own, sums: own.map((i) => calls.self[i])}];
  groups[0].olds = own.map((i) => calls.oldSelf[i]), old = [calls.old[0]], oldSelf = [0]; // difference
}
function expand(i) {
  const group = groups[i], found = new Map();
  if (!group) return;
  groups[i] = null;
  group.at.forEach((at, k) => {
    const caller = i ? calls.parent[at] : at;
    if (!caller && i) return;
    const word = calls.name[caller];
    if (!found.has(word)) found.set(word, {word, sum: 0, at: [], sums: []});
    const one = found.get(word);
    one.sum += group.sums[k];
    one.old = (one.old ?? 0) + group.olds[k], (one.olds ??= []).push(group.olds[k]); // difference
    one.at.push(caller);
    one.sums.push(group.sums[k]);
  });
  const run = [...found.values()].sort((a, b) => b.sum - a.sum || a.word - b.word);
  first[i] = name.length;
  children[i] = run.length;
  for (const one of run) {
    groups[name.length] = one;
    name.push(one.word), value.push(one.sum), self.push(0), parent.push(i), first.push(0), children.push(0), size.push(1);
    old.push(one.old), oldSelf.push(0), size.push(+(size.pop() && one.sum > 0)); // difference
  }
}
function build() {
  const view = shape(), sums = {self: [], lost: [], missing: []};
  const add = (kind, at, more) => { sums[kind][at] = (sums[kind][at] ?? 0) + more; };
  for (const record of records) {
    if (record.kind === 2) {
      if (chosen.apart) add('missing', view.place(record.frame, record.thread), record.value);
    } else if (weight(record) > 0) add(record.kind ? 'lost' : 'self', view.place(record.frame, record.thread), weight(record));
  }
  sums.oldSelf = [], sums.lostOld = []; // difference
  for (const record of ofBase) if (weight(record) > 0) add(record.kind ? 'lostOld' : 'oldSelf', view.place(record.frame, record.thread), weight(record)); // difference
  if (!chosen.apart)
    tree.missing.forEach((missing, frame) => { if (missing) add('missing', view.place(frame, 0), missing); });
  for (const kind in sums) view[kind] = Float64Array.from(view.name, (_, i) => sums[kind][i] ?? 0);
  view.value = view.self.map((own, i) => own + view.lost[i]);
  for (let i = view.name.length - 1; i > 0; i--) view.value[view.parent[i]] += view.value[i];
  view.old = view.oldSelf.map((own, i) => own + view.lostOld[i]); // difference
  for (let i = view.name.length - 1; i > 0; i--) view.old[view.parent[i]] += view.old[i]; // difference
  arrange(view);
  if (chosen.callers) turn();
}
// Numbers for people.
const commas = new Intl.NumberFormat('en'), number = (n) => commas.format(n);
const percent = (n, of) => {
  const share = of > 0 ? 100 * n / of : 0;
  return share > 0 && share < 0.01 ? '<0.01%' : share.toFixed(share >= 1 ? 1 : share > 0 ? 2 : 0) + '%';
};
const count = (n) => {
  if (Number.isInteger(n) || n >= 999.5) return number(Math.round(n));
  let digits = n >= 99.95 ? 0 : n >= 9.995 ? 1 : 2;
  for (let rest = n; rest > 0 && rest < 0.9995 && digits < 15; rest *= 10) digits++;
  return n.toFixed(digits);
};
const units = (n, base, of) => {
  let step = 0;
  while (of[step + 1] && n >= base - 0.5) n /= base, step++;
  return (n >= 999.5 ? number(Math.round(n)) : n.toFixed(step && n < 99.95 ? n < 9.995 ? 2 : 1 : 0)) + ' ' + of[step];
};
const amount = (n) => {
  const counted = data.figures && metric().unit, ns = counted ? 0 : data.ns, unit = counted || data.unit;
  n /= data.per;
  if (unit === 'bytes' && n > 1) return units(n, 1024, 'bytes KiB MiB GiB TiB'.split(' '));
  if (!ns) return count(n) + ' ' + (n === 1 ? unit.replace(/s$/, '') : unit);
  return n ? units(n * ns, 1000, ['ns', 'µs', 'ms', 's']) : '0 s';
};
// Text that fits: measured in the font that is really there, cut between whole characters.
const pen = html('canvas').getContext('2d'), family = getComputedStyle(svg).fontFamily;
const wholes = Intl.Segmenter && new Intl.Segmenter();
function fit(text, room, font) {
  pen.font = font + ' ' + family;
  if (pen.measureText(text).width <= room) return text;
  const start = text.slice(0, 4 * Math.ceil(room));
  const characters = wholes ? Array.from(wholes.segment(start), (s) => s.segment) : Array.from(start);
  let low = 0, high = characters.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    const width = pen.measureText(characters.slice(0, middle).join('') + '…').width;
    if (width <= room) low = middle; else high = middle - 1;
  }
  return low ? characters.slice(0, low).join('') + '…' : '';
}
let zoomed = 0, boxes = [], hits = null, width = 0, height = 0, current = null, tallest = 0;
const frames = part('frames'), head = part('head'), note = part('note'), ring = part('ring');
// difference {
// How something has changed against the base, as flamegraph_change() has it, and the colour for that.
function changeOf(now, then) {
  const all = calls.old[0];
  return data.absolute ? (now - then) / (all || total) : now / total - (all && then / all);
}
function changeColour(by) {
  const step = data.steps.filter((least) => Math.abs(by) + 1e-9 >= least).length;
  return data.changes[data.steps.length + (by < 0 ? -step : step)];
}
function changeText(by) {
  const points = 100 * Math.abs(by);
  return points < 0.005 ? '0' : (by < 0 ? '−' : '+') + points.toFixed(points >= 0.995 ? 1 : 2);
}
function against(now, then) {
  const text = changeText(changeOf(now, then)), sign = now > then ? '+' : now < then ? '−' : '';
  return (then ? `in the base ${amount(then)}, ${percent(then, calls.old[0])}: ` : 'not in the base: ') +
      (data.absolute ? `${sign}${amount(Math.abs(now - then))}, ${text}%` : text + ' points');
}
const compared = () => ` · base ${amount(calls.old[0])} · ` + (data.absolute ? 'red: more, blue: less' : 'red: larger share, blue: smaller') +
    (gone ? ` · ${unsure ? 'at least ' : ''}${number(gone)} frame${gone === 1 ? '' : 's'} gone` : '');
// }
const summary = () => amount(total) + ' in all' + (chosen.apart ? '' : data.together) +
    compared() + // difference
    (data.figures ? ' · ' + metric().name + (!metric().idle ? '' : chosen.idle ? ', waiting included' : ', waiting left out') : '') + (data.subtitle && ' · ' + data.subtitle);
// The list of functions takes room at the side, or below where there is little.
let top = data.head, bottom = data.foot, side = 0, below = 0;
// Where every visible frame stands: the way to the chosen frame at full width, what is above it to
// scale. Children come by falling value, so what is too narrow is the end of a row of siblings.
function layout(target) {
  const inner = width - 2 * pad - side, scale = inner / value[target];
  const found = [];
  let hidden = 0;
  for (let i = target; i > 0;) {
    i = parent[i];
    found.unshift({frame: i, x: pad, width: inner, above: true});
  }
  found.forEach((box, level) => { box.level = level; });
  const open = [{frame: target, x: pad, width: inner, level: found.length}];
  for (const box of open) {
    found.push(box);
    if (chosen.callers) expand(box.frame);
    let child = first[box.frame], x = box.x;
    const end = child + children[box.frame], level = box.level + 1;
    for (; child < end && value[child] * scale >= data.narrow; child++) {
      open.push({frame: child, x, width: value[child] * scale, level});
      x += value[child] * scale;
    }
    let [left, sum] = folded[box.frame] ?? none;
    for (; child < end; child++) {
      left += size[child];
      sum += value[child];
    }
    hidden += left;
    if (left && sum * scale >= data.narrow)
      found.push({frame: box.frame, x, width: sum * scale, level, count: left, sum});
  }
  const levels = found.reduce((most, box) => Math.max(most, box.level + 1), 0);
  return {found, hidden, tall: Math.max(top + levels * row + bottom, side && top + 320)};
}
let describe = (box) => {
  if (box.count) {
    const what = number(box.count) + (box.count === 1 ? ' folded frame' : ' folded frames');
    return [what, `${amount(box.sum)}, ${percent(box.sum, total)} of all, too narrow to draw`];
  }
  const i = box.frame, own = Math.max(0, self[i]), caller = parent[i];
  if (chosen.callers) return [names[name[i]], `${amount(value[i])}, ${percent(value[i], total)} of all` + (caller ? `, ${percent(value[i], value[caller])} of what it called` : '')];
  return [names[name[i]], `${amount(value[i])}, ${percent(value[i], total)} of all` +
          (caller ? `, ${percent(value[i], value[caller])} of its caller` : '') +
          `, self ${amount(own)}`];
};
// difference {
const described = describe;
describe = (box) => {
  const [title, figures] = described(box), i = box.frame;
  return [title, box.count ? figures : `${figures}; ${against(value[i], old[i])}`];
};
// }
// A zoomed picture is as tall as its frames, so that no part of it is empty, but does not leave a window that
// the whole one fills.
function draw() {
  const held = boxes.find((box) => box.element === document.activeElement), before = height;
  drawHead();
  const {found, hidden, tall} = layout(zoomed);
  boxes = found;
  if (!zoomed) tallest = tall;
  height = whole ? Math.max(tall, Math.min(tallest, view().height)) : Math.min(tall, view().height);
  svg.removeAttribute('viewBox');
  put(svg, {width, height});
  frames.replaceChildren(...boxes.map(drawBox));
  paintHits();
  ring.setAttribute('visibility', 'hidden');
  const again = boxes.find((box) => held && box.frame === held.frame && !box.count === !held.count);
  (again ?? boxes[0]).element.setAttribute('tabindex', 0);
  if (held) (again ?? boxes[0]).element.focus({preventScroll: true});
  note.setAttribute('y', height - bottom + 22);
  note.textContent = fit((hidden ? `${number(hidden)} frames narrower than ${data.narrow} px are ` +
      'folded (hatched); zoom in to see them. ' : '') + data.kept, width - 2 * pad - side, '11px');
  drawList();
  if (!data.inverted && before) scrollBy(0, height - before); // every level stays where it is on the screen
  follow();
}
function drawBox(box) {
  const [title, figures] = describe(box);
  const y = data.inverted ? top + box.level * row : height - bottom - (box.level + 1) * row;
  const gap = box.width > 3 ? 1 : 0;
  const kind = box.count ? 'frame fold' : box.above ? 'frame above' : 'frame';
  const group = make('g', {class: kind, tabindex: -1, role: 'treeitem', 'aria-level': box.level + 1,
                           'aria-label': `${title}: ${figures}`});
  const tip = make('title');
  tip.textContent = `${title} (${figures})`;
  let fill = box.count ? 'url(#hatch)' : box.above ? '#e9ebef' : colours[name[box.frame]];
  if (!box.count && !box.above) fill = changeColour(changeOf(value[box.frame], old[box.frame])); // difference
  group.append(tip, make('rect', {x: box.x.toFixed(2), y, width: (box.width - gap).toFixed(2),
                                  height: row - 1, rx: box.width > 6 ? 2 : 0, fill}));
  const text = box.width < 20 || box.count ? '' : fit(title, box.width - gap - 8, '12px');
  if (text) {
    const label = make('text', {x: (box.x + 4).toFixed(2), y: y + row - 6});
    label.textContent = text;
    group.append(label);
  }
  group.box = box;
  box.y = y;
  box.element = group;
  return group;
}
function drawHead() {
  const room = Math.min(width - 2 * pad, Math.max(210, Math.min(330, width * 0.45)));
  const y = data.head - (data.facts ? 65 : 44);
  put(part('choices'), {width: width - 2 * pad, y});
  const taller = choices.childElementCount ? choices.offsetHeight + 6 : 0;
  put(part('choices'), {height: taller});
  put(part('detail'), {y: y + taller, width: width - 2 * pad});
  top = y + 44 + taller;
  side = chosen.functions && width >= 900 ? 380 : 0;
  below = chosen.functions && !side ? Math.max(130, Math.min(280, Math.round(view().height * 0.35))) : 0;
  bottom = data.foot + below;
  put(part('tools'), {width: room, x: width - pad - room});
  put(head.querySelector('rect'), {width, height: top - 4});
  put(part('matched'), {x: width - pad});
  part('title').textContent = fit(data.title, width - 3 * pad - room, '600 17px');
  reset.hidden = !zoomed;
}
const alone = svg === document.documentElement;
const view = () => alone ? {width: svg.clientWidth, height: svg.clientHeight} :
    {width: svg.parentElement.clientWidth, height: innerHeight};
// Where there is nothing to point with, a picture is taken, and Chromium takes a scrolled page for a blank one: what
// does not fit into the window is left out, until somebody is there.
let whole = !alone || data.inverted || !matchMedia('(any-pointer: none)').matches;
for (const sign of ['keydown', 'wheel', 'pointerdown', 'beforeprint'])
  addEventListener(sign, () => {
    if (whole) return;
    whole = true;
    draw();
  }, {capture: true, passive: true});
// The head stays in sight while a tall picture is scrolled, if the window has room for more than the head.
let seen = {};
function follow() {
  const above = view().height < 2 * top ? 0 : -svg.getBoundingClientRect().top;
  const moved = `translate(0 ${Math.max(0, Math.min(above, height - top))})`;
  head.setAttribute('transform', moved);
  part('list').setAttribute('transform', side ? moved : '');
  seen = {...view(), y: scrollY};
}
// Paper is narrower than windows, and is not scrolled: the picture shrinks to it (see the style), the head on top.
addEventListener('beforeprint', () => {
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  head.setAttribute('transform', 'translate(0 0)');
});
addEventListener('afterprint', () => {
  svg.removeAttribute('viewBox');
  follow();
});
// Scrolls no further than it must for the frame to be in sight below the head.
function reveal(box) {
  const {height: room} = view(), roof = room < 2 * top ? 0 : top, at = svg.getBoundingClientRect().top + box.y;
  if (!alone) box.element.scrollIntoView({block: 'nearest'});
  else if (at < roof) scrollBy(0, at - roof);
  else if (at + row + 8 > room) scrollBy(0, at + row + 8 - room);
  follow();
}
function focus(box) {
  box.element.focus({preventScroll: true});
  reveal(box);
}
// Where one was before the first zoom, to go back there.
let back = null;
function zoom(frame) {
  if (!(value[frame] > 0)) return;
  if (!zoomed) back = {frame, x: scrollX, y: scrollY, height};
  zoomed = frame;
  draw();
  reveal(boxes.find((box) => box.frame === frame));
}
function zoomOut() {
  if (!zoomed) return;
  const held = frames.contains(document.activeElement);
  zoomed = 0;
  draw();
  if (held) (boxes.find((box) => box.frame === back.frame) ?? boxes[0]).element.focus({preventScroll: true});
  scrollTo(back.x, back.y + (data.inverted ? 0 : height - back.height));
  follow();
}
// Search: what matches as plain text or as a regular expression. A frame below a match is part of
// that match's time, so only the topmost ones count.
function search(query) {
  marked = -1;
  for (const button of body.querySelectorAll('[aria-pressed=true]')) button.setAttribute('aria-pressed', false);
  let pattern = null;
  try { pattern = new RegExp(query, 'iu'); } catch { /* then it is plain text only */ }
  const plain = query.toLowerCase();
  hits = query && names.map((text) => text.toLowerCase().includes(plain) || !!pattern?.test(text));
  paintHits();
}
function matchedIn(start) {
  let sum = 0, unknown = 0;
  const open = [start];
  for (const i of open) {
    if (i && hits[calls.name[i]]) { sum += calls.value[i]; continue; }
    unknown += calls.folded[i]?.[1] ?? 0;
    for (let k = 0; k < calls.children[i]; k++) open.push(calls.first[i] + k);
  }
  return [sum, unknown];
}
function paintHits() {
  for (const box of boxes) {
    const hit = hits && !box.count && box.frame > 0 && hits[name[box.frame]];
    box.element.classList.toggle('hit', !!hit);
    box.element.classList.toggle('miss', !!hits && !hit);
  }
  showMatched();
}
function showMatched() {
  let text = '';
  if (hits) {
    const [sum, unknown] = matchedIn(0), [inView] = matchedIn(chosen.callers ? 0 : zoomed);
    text = `Matched: ${percent(sum, total)} (${amount(sum)})` +
        (zoomed && !chosen.callers ? `, ${percent(inView, value[zoomed])} of this view` : '') +
        (unknown * 1000 > total ? `, at most ${percent(unknown, total)} more in folded frames` : '');
  }
  const matched = part('matched'), room = width - 2 * pad;
  matched.textContent = fit(text, room, '600 12px');
  const taken = text ? matched.getComputedTextLength() + 2 * pad : 0;
  part('subtitle').textContent = fit(summary(), room - taken, '12px');
}
const hint = 'Click a frame to zoom, or walk with the arrow keys and Enter; Escape resets.';
function show(box) {
  const [title, figures] = box ? describe(box) : ['', hint];
  part('name').textContent = title;
  part('figures').textContent = figures;
}
// Keys: to the side along a row, up and down as it looks.
function neighbour(box, key) {
  const inwards = data.inverted ? 'ArrowDown' : 'ArrowUp', outwards = data.inverted ? 'ArrowUp' : 'ArrowDown';
  const level = box.level + (key === inwards ? 1 : key === outwards ? -1 : 0);
  const line = boxes.filter((other) => other.level === level).sort((a, b) => a.x - b.x);
  if (key === 'Home') return boxes[0];
  if (key === 'ArrowLeft') return line[line.indexOf(box) - 1];
  if (key === 'ArrowRight') return line[line.indexOf(box) + 1];
  if (key === outwards) return line.findLast((other) => other.x <= box.x + 0.01);
  if (key === inwards) return line.find((o) => o.x >= box.x - 0.01 && o.x < box.x + box.width ||
                                               o.x < box.x && o.x + o.width > box.x + 0.01);
}
// The parts that only work with a script are made by it: buttons, search field, detail line.
const reset = html('button', {type: 'button', id: 'reset', title: 'Show all frames again (Escape)'});
const field = html('input', {type: 'search', id: 'search', placeholder: 'Search (Ctrl-F)',
                             'aria-label': 'Search frames: text or regular expression',
                             title: 'Text or regular expression', spellcheck: 'false'});
const bar = html('div', {class: 'bar'}), detail = html('div', {class: 'detail', 'aria-hidden': true});
reset.textContent = 'Reset zoom';
bar.append(reset, field);
detail.append(html('div', {id: 'name'}), html('div', {id: 'figures'}));
part('tools').append(bar);
// What is chosen by a click: a button is there if it has anything to choose.
const choices = html('div', {class: 'bar choices', role: 'group', 'aria-label': 'What is shown'});
part('detail').before(make('foreignObject', {id: 'choices', x: pad}));
part('choices').append(choices);
// In a narrow window the facts take more lines than the one that they have in the file.
if (data.facts) {
  part('facts').remove();
  choices.append(html('div', {id: 'facts'}));
  choices.lastChild.textContent = data.facts;
}
function choice(key, label, title) {
  if (!has[key]) return;
  const button = html('button', {type: 'button', id: key, title, 'aria-pressed': chosen[key]});
  button.textContent = label;
  button.addEventListener('click', () => {
    chosen[key] = !chosen[key];
    button.setAttribute('aria-pressed', chosen[key]);
    if (key === 'functions') resize(true); else change();
  });
  choices.append(button);
}
choice('apart', 'Threads apart', 'One stack for each thread, or one of all together');
choice('idle', 'Waiting', 'With the time in which threads only waited, or without it');
if (has.metric) {
  const select = html('select', {id: 'metric', 'aria-label': 'What is measured', title: 'What is measured'});
  metrics.forEach(({name: text, at, idle}, i) => {
    if (!known[at] && !known[idle]) return;
    const option = html('option', {value: i});
    option.textContent = text;
    option.selected = i === chosen.metric;
    select.append(option);
  });
  select.addEventListener('change', () => {
    chosen.metric = Number(select.value);
    if (part('idle')) part('idle').disabled = !metric().idle;
    change();
  });
  choices.append(select);
}
if (part('idle')) part('idle').disabled = !metric().idle;
choice('functions', 'Functions', 'A list of the functions: what each took itself, and with all that it called');
choice('callers', 'Callers', 'What ran, and above it those that called it; or the calls from the start on');
choice('imports', 'Open imports', 'The frames of importlib one by one, or each run of them as one frame');
// Functions: a name without its line. Threads and what else stands for no code are none.
const functions = [], functionAt = new Map(), functionOf = names.map((text, word) => {
  if (!codes[word] && text[0] !== '[') return -1;
  const plain = text.replace(/:\d+\)$/, ')');
  if (!functionAt.has(plain)) functionAt.set(plain, functions.push(plain) - 1);
  return functionAt.get(plain);
});
// What each took in what is zoomed, recursion counted once: down the tree and back up.
function weigh() {
  const found = functions.map((text) => ({text, self: 0, total: 0})), open = new Int32Array(functions.length);
  const way = [chosen.callers ? 0 : zoomed];
  for (const one of found) one.was = one.old = 0; // difference
  while (way.length) {
    const i = way.pop(), word = functionOf[calls.name[i < 0 ? ~i : i]];
    if (i < 0) { open[word]--; continue; }
    if (word >= 0) {
      found[word].self += calls.self[i];
      found[word].was += calls.oldSelf[i], found[word].old += open[word] ? 0 : calls.old[i]; // difference
      if (!open[word]++) found[word].total += calls.value[i];
      way.push(~i);
    }
    for (let k = 0; k < calls.children[i]; k++) way.push(calls.first[i] + k);
  }
  for (const one of found) one.change = changeOf(one.self, one.was); // difference
  return found.map((one, at) => ({...one, at})).filter((one) => one.total > 0 || one.old > 0);
}
let order = 'self', marked = -1;
const rows = 100, list = html('div', {class: 'list'}), body = html('tbody'), caption = html('caption');
const heads = {self: 'Self', total: 'Total'};
heads.change = 'Change'; // difference
const table = html('table'), titles = html('tr');
for (const key in heads) {
  const cell = html('th', {scope: 'col'}), button = html('button', {type: 'button', id: 'by-' + key, title: 'Sort by it'});
  button.textContent = heads[key];
  button.addEventListener('click', () => { order = key; drawList(); });
  cell.append(button);
  titles.append(cell);
  heads[key] = cell;
}
heads.change.firstChild.title = 'Sort by how much more or less each took itself than in the base, in percent of all'; // difference
titles.append(html('th', {scope: 'col'}));
titles.lastChild.textContent = 'Function';
table.append(caption, html('thead'), body);
table.children[1].append(titles);
list.append(table);
svg.append(make('foreignObject', {id: 'list'}));
part('list').append(list);
function drawList() {
  const place = part('list');
  place.setAttribute('visibility', chosen.functions ? 'visible' : 'hidden');
  const held = body.contains(document.activeElement) ? document.activeElement.one.at : -1;
  body.replaceChildren();
  list.hidden = !chosen.functions;
  if (!chosen.functions) return;
  const tall = side ? Math.min(view().height, height) - top - 14 : below - 10;
  const box = {x: side ? width - pad - side + 16 : pad, y: side ? top : height - below, width: side ? side - 16 : width - 2 * pad, height: tall};
  put(place, box);
  list.style.height = tall + 'px';
  const inside = zoomed && !chosen.callers, found = weigh(), share = inside ? value[zoomed] : total;
  found.sort((a, b) => b[order] - a[order] || b.self - a.self || b.total - a.total || (a.text < b.text ? -1 : 1));
  if (order === 'change') found.sort((a, b) => Math.abs(b.change) - Math.abs(a.change) || (a.text < b.text ? -1 : 1)); // difference
  caption.textContent = `${found.length > rows ? number(rows) + ' of ' : ''}${number(found.length)} function${found.length === 1 ? '' : 's'}${inside ? ' in what is zoomed' : ''}`;
  for (const key in heads) heads[key].setAttribute('aria-sort', key === order ? 'descending' : 'none');
  for (const one of found.slice(0, rows)) {
    const line = html('tr'), button = html('button', {type: 'button', tabindex: -1, title: `${one.text}: self ${amount(one.self)}, total ${amount(one.total)}`, 'aria-pressed': one.at === marked});
    for (const key in heads) {
      const cell = html('td');
      cell.textContent = percent(one[key], share);
      if (key === 'change') cell.textContent = changeText(one.change); // difference
      line.append(cell);
    }
    button.title += `; self ${against(one.self, one.was)}`; // difference
    button.textContent = one.text;
    button.one = one;
    line.append(html('td'));
    line.lastChild.append(button);
    body.append(line);
  }
  const buttons = [...body.querySelectorAll('button')], again = buttons.find((button) => button.one.at === held);
  (again ?? buttons[0])?.setAttribute('tabindex', 0);
  if (held >= 0) (again ?? buttons[0])?.focus({preventScroll: true});
}
// A row marks its function in the picture; the same again, or Escape, takes that away.
function mark(at) {
  marked = at === marked ? -1 : at;
  field.value = marked < 0 ? '' : functions[at];
  hits = marked < 0 ? null : functionOf.map((one) => one === at);
  for (const button of body.querySelectorAll('button')) button.setAttribute('aria-pressed', button.one.at === marked);
  paintHits();
}
body.addEventListener('click', (event) => {
  const button = event.target.closest('tr')?.querySelector('button');
  if (button) mark(button.one.at);
});
body.addEventListener('keydown', (event) => {
  const buttons = [...body.querySelectorAll('button')], at = buttons.indexOf(document.activeElement);
  const next = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1}[event.key];
  if (next === undefined) return;
  event.preventDefault();
  if (!buttons[next]) return;
  buttons[at].setAttribute('tabindex', -1);
  buttons[next].setAttribute('tabindex', 0);
  buttons[next].focus();
});
// Another view: what was zoomed into stays so if it is there, too. Escape leads to the whole of it.
let turned = false;
function change() {
  const held = turned === chosen.callers && !turned ? origin[zoomed] : [0, 0];
  turned = chosen.callers;
  frames.setAttribute('aria-label', turned ? 'Callers' : 'Flame graph');
  build();
  zoomed = 0;
  tallest = 0;
  draw();
  if (alone && !data.inverted) scrollTo(scrollX, height);
  follow();
  const same = placed(...held);
  if (same) zoom(same);
}
part('detail').append(detail);
const boxOf = (event) => {
  const group = event.target.closest?.('.frame');
  return group && frames.contains(group) ? group.box : undefined;
};
frames.addEventListener('pointerover', (event) => show(boxOf(event) ?? current));
frames.addEventListener('pointerleave', () => show(current));
frames.addEventListener('click', (event) => { const box = boxOf(event); if (box) zoom(box.frame); });
// Not on `frames`: an SVG element that listens for focus gets it, too, and so a place for Tab.
document.addEventListener('focusin', (event) => {
  const box = boxOf(event);
  if (!box) return;
  current = box;
  frames.querySelector('[tabindex="0"]')?.setAttribute('tabindex', -1);
  box.element.setAttribute('tabindex', 0);
  show(box);
  const place = {x: box.x - 1, y: box.y - 1, width: Math.max(4, box.width + 1), height: row + 1};
  put(ring, place);
  ring.setAttribute('visibility', box.element.matches(':focus-visible') ? 'visible' : 'hidden');
});
document.addEventListener('focusout', () => {
  current = null;
  ring.setAttribute('visibility', 'hidden');
  show(null);
});
frames.addEventListener('keydown', (event) => {
  const box = boxOf(event);
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === 'Enter' || event.key === ' ') zoom(box.frame);
  else if (!/^(Arrow|Home)/.test(event.key)) return;
  else {
    const next = neighbour(box, event.key);
    if (next) focus(next);
  }
  event.preventDefault();
});
field.addEventListener('input', () => search(field.value));
reset.addEventListener('click', () => {
  const box = back.frame;
  zoomOut();
  (boxes.find((one) => one.frame === box) ?? boxes[0]).element.focus({preventScroll: true});
});
document.addEventListener('keydown', (event) => {
  const find = (event.ctrlKey || event.metaKey) && event.key === 'f' || event.key === '/';
  if (find && document.activeElement !== field) {
    event.preventDefault();
    field.focus({preventScroll: true});
    field.select();
  } else if (event.key === 'Escape') {
    field.value = '';
    search('');
    zoomOut();
    if (document.activeElement === field) boxes[0].element.focus({preventScroll: true});
  }
});
// What stood at the lower edge of the window stays there (at the upper one if the root is on top).
function resize(anyway) {
  const {width: room, height: tall} = view(), was = seen;
  const next = Math.max(data.least, data.fixed ? Math.min(data.width, room) : room);
  if (alone && !data.inverted && was.height) scrollTo(scrollX, was.y + was.height - tall);
  
  if (anyway !== true && !chosen.functions && next === width && !zoomed && whole) return follow();
  width = next;
  drawHead();
  tallest = layout(0).tall;
  draw();
  if (zoomed) reveal(boxes.find((box) => box.frame === zoomed));
}
addEventListener('resize', resize);
addEventListener('scroll', follow, {passive: true, capture: true});
build();
show(null);
resize();
resize(); // again: the first drawing may have brought a scroll bar
if (alone && !data.inverted) scrollTo(0, height);
follow();
