const svg = document.currentScript?.closest('svg') ?? document.documentElement;
const part = (id) => svg.querySelector('#' + id);
const make = (tag, attributes, space = 'http://www.w3.org/2000/svg') => {
  const element = document.createElementNS(space, tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  return element;
};
const html = (tag, attributes) => make(tag, attributes, 'http://www.w3.org/1999/xhtml');
const {names, colours, name, value, children, folded, pad, row, top, bottom} = data;
const total = value[0];
// The tree: frames stand in breadth-first order, so the children of a frame are neighbours.
const parent = new Int32Array(value.length), first = new Int32Array(value.length);
const size = new Float64Array(value.length).fill(1), self = Float64Array.from(value);
for (let i = 0, next = 1; i < value.length; i++) {
  first[i] = next;
  for (let k = children[i]; k > 0; k--) parent[next++] = i;
}
for (const i in folded) {
  size[i] += folded[i][0];
  self[i] -= folded[i][1];
}
for (let i = value.length - 1; i > 0; i--) {
  size[parent[i]] += size[i];
  self[parent[i]] -= value[i];
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
const amount = (n) => {
  n /= data.per;
  if (data.ns && n === 0) return '0 s';
  if (!data.ns) return count(n) + ' ' + (n === 1 ? data.unit.replace(/s$/, '') : data.unit);
  let time = n * data.ns, step = 0;
  while (step < 3 && time >= 999.5) time /= 1000, step++;
  const digits = step === 0 || time >= 99.95 ? 0 : time >= 9.995 ? 1 : 2;
  const text = time >= 999.5 ? number(Math.round(time)) : time.toFixed(digits);
  return text + ' ' + ['ns', 'µs', 'ms', 's'][step];
};
// Text that fits: measured in the font that is really there, cut between whole characters.
const pen = html('canvas').getContext('2d'), family = getComputedStyle(svg).fontFamily;
const wholes = typeof Intl === 'object' && Intl.Segmenter ? new Intl.Segmenter() : null;
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
const subtitle = amount(total) + ' in all' + data.together + (data.subtitle && ' · ' + data.subtitle);
// Where every visible frame stands: the way to the chosen frame at full width, what is above it to
// scale. Children come by falling value, so what is too narrow is the end of a row of siblings.
function layout(chosen) {
  const inner = width - 2 * pad, scale = inner / value[chosen];
  const found = [];
  let hidden = 0;
  for (let i = chosen; i > 0;) {
    i = parent[i];
    found.unshift({frame: i, x: pad, width: inner, above: true});
  }
  found.forEach((box, level) => { box.level = level; });
  const open = [{frame: chosen, x: pad, width: inner, level: found.length}];
  for (const box of open) {
    found.push(box);
    let child = first[box.frame], x = box.x;
    const end = child + children[box.frame], level = box.level + 1;
    for (; child < end && value[child] * scale >= data.narrow; child++) {
      open.push({frame: child, x, width: value[child] * scale, level});
      x += value[child] * scale;
    }
    let [left, sum] = folded[box.frame] ?? [0, 0];
    for (; child < end; child++) {
      left += size[child];
      sum += value[child];
    }
    hidden += left;
    if (left && sum * scale >= data.narrow)
      found.push({frame: box.frame, x, width: sum * scale, level, count: left, sum});
  }
  const levels = found.reduce((most, box) => Math.max(most, box.level + 1), 0);
  return {found, hidden, tall: top + levels * row + bottom};
}
function describe(box) {
  if (box.count) {
    const what = number(box.count) + (box.count === 1 ? ' folded frame' : ' folded frames');
    return [what, `${amount(box.sum)}, ${percent(box.sum, total)} of all, too narrow to draw`];
  }
  const i = box.frame, own = Math.max(0, self[i]), caller = parent[i];
  return [names[name[i]], `${amount(value[i])}, ${percent(value[i], total)} of all` +
          (caller ? `, ${percent(value[i], value[caller])} of its caller` : '') +
          `, self ${amount(own)}`];
}
// A zoomed picture is as tall as its frames, so that no part of it is empty, but does not leave a window that
// the whole one fills.
function draw() {
  const held = boxes.find((box) => box.element === document.activeElement), before = height;
  const {found, hidden, tall} = layout(zoomed);
  boxes = found;
  if (!zoomed) tallest = tall;
  height = whole ? Math.max(tall, Math.min(tallest, view().height)) : Math.min(tall, view().height);
  svg.removeAttribute('viewBox');
  svg.setAttribute('width', width);
  svg.setAttribute('height', height);
  frames.replaceChildren(...boxes.map(drawBox));
  paintHits();
  ring.setAttribute('visibility', 'hidden');
  const again = boxes.find((box) => held && box.frame === held.frame && !box.count === !held.count);
  (again ?? boxes[0]).element.setAttribute('tabindex', 0);
  if (held) (again ?? boxes[0]).element.focus({preventScroll: true});
  note.setAttribute('y', height - bottom + 22);
  note.textContent = fit((hidden ? `${number(hidden)} frames narrower than ${data.narrow} px are ` +
      'folded (hatched); zoom in to see them. ' : '') + data.kept, width - 2 * pad, '11px');
  drawHead();
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
  const fill = box.count ? 'url(#hatch)' : box.above ? '#e9ebef' : colours[name[box.frame]];
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
  const bar = Math.min(width - 2 * pad, Math.max(210, Math.min(330, width * 0.45)));
  part('tools').setAttribute('width', bar);
  part('tools').setAttribute('x', width - pad - bar);
  part('detail').setAttribute('width', width - 2 * pad);
  head.querySelector('rect').setAttribute('width', width);
  head.querySelector('rect').setAttribute('height', top - 4);
  part('matched').setAttribute('x', width - pad);
  part('title').textContent = fit(data.title, width - 3 * pad - bar, '600 17px');
  if (data.facts) part('facts').textContent = fit(data.facts, width - 2 * pad, '12px');
  reset.hidden = zoomed === 0;
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
  head.setAttribute('transform', `translate(0 ${Math.max(0, Math.min(above, height - top))})`);
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
    if (i && hits[name[i]]) { sum += value[i]; continue; }
    unknown += folded[i]?.[1] ?? 0;
    for (let k = 0; k < children[i]; k++) open.push(first[i] + k);
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
    const [sum, unknown] = matchedIn(0), [inView] = matchedIn(zoomed);
    text = `Matched: ${percent(sum, total)} (${amount(sum)})` +
        (zoomed ? `, ${percent(inView, value[zoomed])} of this view` : '') +
        (unknown * 1000 > total ? `, at most ${percent(unknown, total)} more in folded frames` : '');
  }
  const matched = part('matched'), room = width - 2 * pad;
  matched.textContent = fit(text, room, '600 12px');
  const taken = text ? matched.getComputedTextLength() + 2 * pad : 0;
  part('subtitle').textContent = fit(subtitle, room - taken, '12px');
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
  for (const side in place) ring.setAttribute(side, place[side]);
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
function resize() {
  const {width: room, height: tall} = view(), was = seen;
  const next = Math.max(data.least, data.fixed ? Math.min(data.width, room) : room);
  if (alone && !data.inverted && was.height) scrollTo(scrollX, was.y + was.height - tall);
  
  if (next === width && !zoomed && whole) return follow();
  width = next;
  tallest = layout(0).tall;
  draw();
  if (zoomed) reveal(boxes.find((box) => box.frame === zoomed));
}
addEventListener('resize', resize);
addEventListener('scroll', follow, {passive: true, capture: true});
show(null);
resize();
resize(); // again: the first drawing may have brought a scroll bar
if (alone && !data.inverted) scrollTo(0, height);
follow();
