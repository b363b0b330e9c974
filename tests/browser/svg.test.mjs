// pyprof-svg's pictures in a real browser.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, test} from 'node:test';
import {build, decode, directory, launch} from './browser.mjs';

const collapsed = `
thread MainThread;<module> (prog.py:9);work (prog.py:3);parse (json/decoder.py:12) 300000
thread MainThread;<module> (prog.py:9);work (prog.py:3);parse (json/decoder.py:12);parse (json/decoder.py:40) 100000
thread MainThread;<module> (prog.py:9);work (prog.py:3);compress (gzip.py:7) 200000
thread MainThread;<module> (prog.py:9);größe_des_Verzeichnisses_名前を付けて保存 (prog.py:5) 150000
thread MainThread;<module> (prog.py:9) 50000
thread worker-0;Thread.run (threading.py:982);</script><script>window.hacked=1</script>"&amp 200000
`;
const insideWidth = (width) => width - 2 * 12;
let browser, page, problems;

before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

// Draws the text and opens it; whatever goes wrong in the page or is fetched fails the test.
async function open(text, args = [], {width = 1200, height = 800, javaScriptEnabled = true, together = false, colorScheme = 'light', figures = null} = {}) {
  const path = join(directory, 'picture.svg');
  if (figures) writeFileSync(path, execFileSync(join(build, 'tests', 'svg', 'svg_figures'), figures));
  else execFileSync(join(build, 'tools', 'pyprof-svg'), ['--unit', 'us', ...together ? [] : ['--threads'], ...args, '-', path], {input: text});
  const context = await browser.newContext({viewport: {width, height}, javaScriptEnabled, colorScheme});
  page = await context.newPage();
  problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (message) => problems.push(message.text()));
  page.on('request', (request) => { if (request.url() !== 'file://' + path) problems.push(request.url()); });
  await page.goto('file://' + path);
  return path;
}

function check(name, body) {
  test(name, async () => {
    try {
      await body();
      assert.deepEqual(problems, []);
    } finally {
      await page?.context().close();
      page = null;
    }
  });
}

// Every drawn frame as it stands on the screen.
const drawn = () => page.$$eval('.frame', (groups) => groups.map((group) => {
  const rect = group.querySelector('rect').getBBox(), label = group.querySelector('text');
  const text = label?.textContent ? label.getBBox() : null;
  return {
    title: group.querySelector('title').textContent, kind: group.getAttribute('class'),
    x: rect.x, y: rect.y, width: rect.width, height: rect.height,
    text: label?.textContent ?? '', textBox: text && {x: text.x, y: text.y, width: text.width, height: text.height},
  };
}));
const find = async (start) => {
  const found = (await drawn()).filter((frame) => frame.title.startsWith(start));
  assert.equal(found.length, 1, `${found.length} frames begin with ${start}`);
  return found[0];
};
const frame = (text) => page.locator('.frame', {has: page.locator('title', {hasText: text})}).first();
const shown = (id) => page.locator('#' + id).textContent();
const near = (a, b) => assert.ok(Math.abs(a - b) < 0.1, `${a} is not ${b}`);

function assertTextFits(frames) {
  for (const {text, textBox, x, y, width, height} of frames) {
    if (!text) continue;
    assert.ok(textBox.x >= x && textBox.x + textBox.width <= x + width + 0.01, `${text} sticks out to the side`);
    assert.ok(textBox.y >= y - 0.01 && textBox.y + textBox.height <= y + height + 1, `${text} sticks out in height`);
  }
}

check('the script draws what the still image shows', async () => {
  await open(collapsed, [], {javaScriptEnabled: false});
  const still = await drawn();
  assertTextFits(still);
  const title = (frame) => frame.title.replace(/ of all.*/, '');
  await page.context().close();
  await open(collapsed);
  const live = await drawn();
  const [root, stillRoot] = [live, still].map((all) => all.find((one) => one.title.startsWith('all (')));
  assert.deepEqual(live.map(title).sort(), still.map(title).sort());
  for (const one of live) {
    const other = still.find((frame) => title(frame) === title(one) && Math.abs(frame.x - one.x) < 0.1);
    assert.ok(other, one.title);
    near(one.width, other.width);
    near(root.y - one.y, stillRoot.y - other.y); // its head has buttons, too
    near(one.height, other.height);
  }
});

check('threads are together unless asked, and that is said', async () => {
  for (const javaScriptEnabled of [false, true]) {
    await page?.context().close();
    await open(collapsed + 'thread worker-1;Thread.run (threading.py:982) 200000\n', [], {javaScriptEnabled, together: true});
    assert.equal(await shown('subtitle'), '1.20 s in all, 3 threads together');
    near((await find('Thread.run')).width, insideWidth(1200) / 3 - 1);
    assert.ok(!(await drawn()).some((one) => one.title.startsWith('thread')));
  }
});

check('fractions read as in the still image', async () => {
  const text = 'a;b 1.5\na;c 2.25\na;d 0.0625\ne 1234.5\n', figures = [];
  for (const javaScriptEnabled of [false, true]) {
    await page?.context().close();
    await open(text, ['--unit', 'samples'], {javaScriptEnabled});
    figures.push((await drawn()).map((one) => one.title.replace(/ of all.*/, '')).sort());
  }
  assert.deepEqual(figures[1], figures[0]);
  assert.ok(figures[0].includes('b (1.50 samples, 0.12%'), figures[0].join());
});

check('hover shows the full name, the time and its shares', async () => {
  await open(collapsed);
  await frame('compress').hover();
  assert.equal(await shown('name'), 'compress (gzip.py:7)');
  assert.equal(await shown('figures'), '200 ms, 20.0% of all, 33.3% of its caller, self 200 ms');
  assert.match(await frame('compress').locator('title').textContent(), /^compress \(gzip\.py:7\) \(200 ms, 20\.0%/);
  await frame('work (prog').hover();
  assert.equal(await shown('figures'), '600 ms, 60.0% of all, 75.0% of its caller, self 0 s');
  await page.mouse.move(5, 5);
  assert.equal(await shown('name'), '');
});

check('a click zooms, callers stay in sight, the button resets', async () => {
  await open(collapsed);
  const before = await drawn();
  assert.equal(await page.locator('#reset').isVisible(), false);
  await frame('work (prog').click();
  near((await find('work (prog')).width, insideWidth(1200) - 1);
  near((await find('thread MainThread')).width, insideWidth(1200) - 1);
  near((await find('compress')).width, insideWidth(1200) * 200 / 600 - 1);
  const now = await drawn();
  assert.ok(!now.some((one) => one.title.startsWith('thread worker-0')), 'a sibling is still drawn');
  assert.equal(now.filter((one) => one.kind.includes('above')).length, 3);
  assertTextFits(now);
  await frame('thread MainThread').click();
  near((await find('work (prog')).width, insideWidth(1200) * 600 / 800 - 1);
  await page.locator('#reset').click();
  assert.deepEqual(await drawn(), before);
  assert.equal(await page.locator('#reset').isVisible(), false);
});

check('search tells the matched share and counts nested matches once', async () => {
  await open(collapsed);
  await page.keyboard.press('Control+f');
  await page.keyboard.type('parse');
  assert.equal(await shown('matched'), 'Matched: 40.0% (400 ms)');
  assert.equal(await page.locator('.frame.hit').count(), 2);
  const field = page.locator('#search');
  for (const [query, share, hits] of [['^(compress|gr)', '35.0% (350 ms)', 2], ['DECODER.py:4', '10.0% (100 ms)', 1],
                                      ['(prog.py:3)', '60.0% (600 ms)', 1], ['(', '100.0% (1.00 s)', 7],
                                      ['名前', '15.0% (150 ms)', 1], ['nowhere', '0% (0 s)', 0],
                                      ['^all$', '0% (0 s)', 0]]) {
    await field.fill(query);
    assert.equal(await shown('matched'), 'Matched: ' + share, query);
    assert.equal(await page.locator('.frame.hit').count(), hits, query);
  }
  await field.fill('compress');
  await frame('work (prog').click();
  assert.equal(await shown('matched'), 'Matched: 20.0% (200 ms), 33.3% of this view');
  assert.equal(await page.locator('.frame.hit').count(), 1);
  await page.keyboard.press('Escape');
  assert.equal(await shown('matched'), '');
  assert.equal(await field.evaluate((input) => input.value), '');
  assert.equal(await page.locator('.frame.hit, .frame.miss').count(), 0);
});

check('it works by keyboard', async () => {
  await open(collapsed);
  const focused = () => page.evaluate(() => document.activeElement.querySelector?.('title')?.textContent ?? '');
  const press = async (key, expected) => {
    await page.keyboard.press(key);
    const title = await focused();
    assert.ok(title.startsWith(expected), `${key} leads to '${title}', not to '${expected}'`);
  };
  await press('Tab', 'all (');
  assert.equal(await page.locator('#ring').getAttribute('visibility'), 'visible');
  assert.equal(await shown('name'), 'all');
  await press('ArrowUp', 'thread MainThread');
  await press('ArrowRight', 'thread worker-0');
  const ring = await page.locator('#ring').boundingBox(), box = await frame('thread worker-0').locator('rect').boundingBox();
  assert.ok(ring.x < box.x && ring.x + ring.width > box.x + box.width && ring.y < box.y, 'the ring is not around it');
  await press('ArrowRight', 'thread worker-0');
  await press('ArrowLeft', 'thread MainThread');
  await press('ArrowUp', '<module>');
  await press('ArrowUp', 'work (prog');
  await press('ArrowDown', '<module>');
  await press('ArrowUp', 'work (prog');
  await press('Enter', 'work (prog');
  near((await find('work (prog')).width, insideWidth(1200) - 1);
  assert.match(await shown('figures'), /^600 ms, 60\.0% of all/);
  await press('Escape', 'work (prog');
  near((await find('work (prog')).width, insideWidth(1200) * 0.6 - 1);
  await press('Home', 'all (');
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'search');
  await page.keyboard.type('gzip');
  assert.equal(await shown('matched'), 'Matched: 20.0% (200 ms)');
  await press('Escape', 'all (');
  assert.equal(await shown('matched'), '');
});

check('a screen reader finds a tree with names', async () => {
  await open(collapsed);
  const tree = page.getByRole('tree', {name: 'Flame graph'});
  assert.equal(await tree.getByRole('treeitem').count(), 11);
  const item = tree.getByRole('treeitem', {name: 'compress (gzip.py:7): 200 ms, 20.0% of all'});
  assert.equal(await item.getAttribute('aria-level'), '5');
  await page.getByRole('searchbox', {name: 'Search frames'}).fill('x');
});

check('text fits its box at every width and zoom', async () => {
  const wide = Array.from({length: 40}, (_, i) =>
    `r;${['größe', '名前を付けて保存', '🐍🧑‍🚀👨‍👩‍👧 emoji', 'مرحبا بالعالم', 'MMMMWWWW', 'illiljiljl'][i % 6]}.f${i} (m${i}.py:1) ${i < 8 ? 900 : 30}\n`);
  await open(wide.join(''));
  for (const width of [1200, 600, 333]) {
    await page.setViewportSize({width, height: 800});
    await page.waitForFunction((w) => document.documentElement.getBoundingClientRect().width === w, width);
    const frames = await drawn();
    near(frames.find((one) => one.title.startsWith('r (')).width, insideWidth(width) - 1);
    assertTextFits(frames);
    assert.ok(frames.some((one) => one.text.endsWith('…')), 'nothing is cut');
    for (const one of frames) {
      const name = one.title.replace(/ \([^()]*\)$/, '');
      assert.ok(one.text === name || one.text === '' || name.startsWith(one.text.slice(0, -1)), one.text);
      assert.ok(!/[\ud800-\udbff]…$/.test(one.text), 'cut inside a character');
    }
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, 'it scrolls sideways');
  }
  await page.setViewportSize({width: 1200, height: 800});
  assert.match((await find('MMMMWWWW.f4')).text, /^M.*…$/);
  await frame('MMMMWWWW.f4').click();
  assert.equal((await find('MMMMWWWW.f4')).text, 'MMMMWWWW.f4 (m4.py:1)');
  assertTextFits(await drawn());
});

check('--width is the widest it gets, and it shrinks with the window', async () => {
  await open(collapsed, ['--width', '700']);
  near((await find('all (')).width, insideWidth(700) - 1);
  await page.setViewportSize({width: 500, height: 800});
  await page.waitForFunction(() => document.documentElement.getBoundingClientRect().width === 500);
  near((await find('all (')).width, insideWidth(500) - 1);
});

check('folded frames are hatched, counted, and unfold when zoomed', async () => {
  await open('r;big (a.py:1) 900000\n' + Array.from({length: 1000}, (_, i) => `r;mid;small${i} (b.py:${i}) 100\n`).join(''));
  const folds = (await drawn()).filter((one) => one.kind.includes('fold'));
  assert.equal(folds.length, 1);
  near(folds[0].width, insideWidth(1200) / 10 - 1);
  assert.match(await shown('note'), /^1,000 frames narrower than 1 px are folded \(hatched\)/);
  await page.locator('.fold').hover();
  assert.equal(await shown('name'), '1,000 folded frames');
  assert.match(await shown('figures'), /^100 ms, 10\.0% of all, too narrow to draw/);
  await page.locator('#search').fill('small7');
  assert.equal(await shown('matched'), 'Matched: 1.1% (11.1 ms)');
  await page.locator('.fold').click();
  assert.equal((await drawn()).filter((one) => one.title.startsWith('small')).length, 1000);
  assert.equal(await shown('note'), '');
  await page.keyboard.press('Escape');
  assert.equal((await drawn()).filter((one) => one.title.startsWith('small')).length, 0);
});

check('what the file leaves out is said, also by the search', async () => {
  await open(Array.from({length: 30000}, (_, i) => `r;f${i % 100};g${i} ${i < 15000 ? 2 : 1}\n`).join(''));
  assert.match(await shown('note'), /This file describes the largest 20,000 of 30,102 frames\.$/);
  await page.locator('#search').fill('^g');
  // 15,000 + 4,898 of the g frames are in the file, worth 34,898 of 45,000.
  assert.match(await shown('matched'), /^Matched: 77\.6% \(34\.9 ms\), at most 22\.4% more in folded frames$/);
});

check('root on top: arrow keys go as it looks', async () => {
  await open(collapsed, ['--inverted']);
  assert.ok((await find('all (')).y < (await find('compress')).y);
  await page.keyboard.press('Tab');
  await page.keyboard.press('ArrowDown');
  assert.equal(await shown('name'), 'thread MainThread');
  await page.keyboard.press('ArrowUp');
  assert.equal(await shown('name'), 'all');
});

check('names are text, never markup', async () => {
  await open(collapsed);
  await frame('</script>').hover();
  assert.equal(await shown('name'), '</script><script>window.hacked=1</script>"&amp');
  assert.equal(await page.evaluate(() => window.hacked), undefined);
});

check('the head stays in sight while a tall picture scrolls', async () => {
  await open(Array.from({length: 200}, (_, i) => 'f' + i).join(';') + ' 5\n');
  assert.ok(await page.evaluate(() => scrollY) > 3000, 'it does not open at the root');
  const box = await page.locator('#search').boundingBox();
  assert.ok(box.y >= 0 && box.y < 60, `the search field is at ${box.y}`);
  await page.evaluate(() => scrollTo(0, 1000));
  await page.waitForFunction(() => document.querySelector('#search').getBoundingClientRect().y < 60);
});

check('paper holds the whole width, the head on top', async () => {
  const deep = Array.from({length: 100}, (_, i) => `f${i} (x.py:${i})`).join(';') + ' 1000\n';
  await open(deep);
  await page.evaluate(() => scrollTo(0, 300));
  await page.waitForFunction(() => document.querySelector('#head').getAttribute('transform') === 'translate(0 300)');
  await page.emulateMedia({media: 'print'});
  const printed = await page.evaluate(() => { // a window that is wider than the paper
    const svg = document.documentElement, [width, height] = [svg.getAttribute('width'), svg.getAttribute('height')];
    window.dispatchEvent(new window.Event('beforeprint'));
    for (const [side, size] of [['width', width], ['height', height]]) svg.setAttribute(side, 3 * size);
    const {width: shown, height: tall} = svg.getBoundingClientRect();
    const head = document.querySelector('#head').getAttribute('transform');
    for (const [side, size] of [['width', width], ['height', height]]) svg.setAttribute(side, size);
    window.dispatchEvent(new window.Event('afterprint'));
    return {fits: shown <= innerWidth, ratio: tall / shown * width / height, head, after: svg.getAttribute('viewBox')};
  });
  near(printed.ratio, 1);
  assert.deepEqual({...printed, ratio: 1}, {fits: true, ratio: 1, head: 'translate(0 0)', after: null});
});

check('it works inside an HTML page', async () => {
  const path = await open(collapsed);
  const outer = join(directory, 'page.html');
  writeFileSync(outer, `<!doctype html><body style="margin:0"><iframe src="${path}" width="800" height="500" style="border:0">`);
  problems = [];
  page.removeAllListeners('request');
  await page.goto('file://' + outer);
  const inner = page.frameLocator('iframe');
  await inner.locator('.frame', {has: page.locator('title', {hasText: 'work (prog'})}).first().click();
  assert.equal(await inner.locator('#reset').isVisible(), true);
});

check('no samples: the picture says so', async () => {
  await open('');
  assert.equal(await shown('none'), 'No samples.');
});

// ---- what is chosen by a click ----

const boot = '_find_and_load (<frozen importlib._bootstrap>:1178);exec_module (<frozen importlib._bootstrap_external>:940);import_module (importlib/__init__.py:126)';
const imports = `
thread MainThread;<module> (prog.py:9);${boot};<module> (a.py:1) 300000
thread MainThread;<module> (prog.py:9);${boot};<module> (b.py:1);${boot} 200000
thread MainThread;<module> (prog.py:9);${boot} 50000
thread worker-0;run (threading.py:982);version (importlib/metadata/__init__.py:5);work (prog.py:3) 450000
thread worker-1;run (threading.py:982);work (prog.py:3) 250000
thread worker-2;run (threading.py:982);work (prog.py:4) 50000
`;
const stacks = async () => (await drawn()).map((one) => `${one.title} at ${one.x.toFixed(1)} ${one.width.toFixed(1)}`).sort();
const pressed = (id) => page.locator('#' + id).getAttribute('aria-pressed');

// Tab leads to the control, wherever the focus is.
async function tabTo(id) {
  for (let i = 0; i < 12; i++) {
    if (await page.evaluate(() => document.activeElement?.id) === id) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`Tab does not lead to ${id}`);
}

// The control's two ways to be used; afterwards it has the focus.
const ways = {
  mouse: async (id) => page.locator('#' + id).click(),
  keyboard: async (id) => {
    await tabTo(id);
    await page.keyboard.press('Space');
  },
};

for (const way in ways) {
  check(`threads apart and together by ${way}`, async () => {
    await open(imports, [], {together: false});
    const apart = await stacks(), subtitle = await shown('subtitle');
    await page.context().close();
    await open(imports, [], {together: true});
    const together = await stacks();
    assert.equal(await shown('subtitle'), '1.30 s in all, 4 threads together');
    assert.ok(!together.some((one) => one.startsWith('thread')));
    assert.equal(await pressed('apart'), 'false');
    await ways[way]('apart');
    assert.equal(await pressed('apart'), 'true');
    assert.deepEqual(await stacks(), apart);
    assert.equal(await shown('subtitle'), subtitle);
    assert.ok(apart.some((one) => one.startsWith('thread worker-# (3 threads) (750 ms')), apart.join('\n'));
    await ways[way]('apart');
    assert.deepEqual(await stacks(), together);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'apart');
  });

  check(`imports closed and open by ${way}`, async () => {
    await open(imports, [], {together: true});
    const closed = await stacks(), titles = () => drawn().then((all) => all.map((one) => one.title.replace(/, .*/, '')).sort());
    assert.deepEqual(await titles(), ['<module> (a.py:1) (300 ms', '<module> (b.py:1) (200 ms', '<module> (prog.py:9) (550 ms', 'all (1.30 s', 'import (200 ms', 'import (550 ms',
      'run (threading.py:982) (750 ms', 'version (importlib/metadata/__init__.py:5) (450 ms', 'work (prog.py:3) (250 ms', 'work (prog.py:3) (450 ms', 'work (prog.py:4) (50.0 ms'].sort());
    await ways[way]('imports');
    assert.equal((await titles()).filter((one) => one.includes('importlib')).length, 7);
    assert.ok((await titles()).includes('import_module (importlib/__init__.py:126) (550 ms'));
    assert.ok(!(await titles()).some((one) => one.startsWith('import (')));
    await ways[way]('imports');
    assert.deepEqual(await stacks(), closed);
  });
}

check('what is zoomed stays zoomed in another view, and Escape leads to all of it', async () => {
  await open(imports, [], {together: true});
  await frame('b.py').click();
  await page.locator('#imports').click();
  near((await find('<module> (b.py:1)')).width, insideWidth(1200) - 1);
  await page.locator('#apart').click();
  near((await find('<module> (b.py:1)')).width, insideWidth(1200) - 1);
  near((await find('thread MainThread')).width, insideWidth(1200) - 1);
  await page.keyboard.press('Escape');
  near((await find('thread MainThread')).width, insideWidth(1200) * 550 / 1300 - 1);
  assert.equal(await page.locator('#reset').isVisible(), false);
});

const recursive = 'r;f (a.py:1);g (b.py:5);f (a.py:2);g (b.py:6) 30\nr;f (a.py:1) 20\nr;h (c.py:3) 40\nr;g (b.py:5) 10\n';
const listed = () => page.$$eval('#list tbody tr', (lines) => lines.map((line) => [...line.children].map((cell) => cell.textContent).join(' ')));
const hitTitles = () => page.$$eval('.frame.hit title', (titles) => titles.map((title) => title.textContent.replace(/ \(\d.*/, '')).sort());

for (const way in ways) {
  check(`the functions as a list by ${way}`, async () => {
    await open(recursive, ['--unit', 'samples'], {width: 1400});
    const before = await stacks();
    await ways[way]('functions');
    const bySelf = ['40.0% 40.0% g (b.py)', '40.0% 40.0% h (c.py)', '20.0% 50.0% f (a.py)', '0% 100.0% r'];
    assert.deepEqual(await listed(), bySelf);
    assert.equal(await page.locator('#list caption').textContent(), '4 functions');
    near((await find('r (')).width, insideWidth(1400) - 380 - 1);
    await ways[way]('by-total');
    assert.deepEqual((await listed()).map((line) => line.split(' ')[2]), ['r', 'f', 'g', 'h']);
    assert.equal(await page.locator('#list th[aria-sort=descending]').textContent(), 'Total');
    await ways[way]('by-self');
    assert.deepEqual(await listed(), bySelf);
    if (way === 'mouse') {
      await page.locator('#list tr', {hasText: 'f (a.py)'}).locator('td').first().click();
    } else {
      for (const key of ['Tab', 'Tab', 'ArrowDown', 'End', 'Home', 'ArrowUp', 'ArrowDown', 'ArrowDown', 'Enter']) await page.keyboard.press(key);
    }
    assert.deepEqual(await hitTitles(), ['f (a.py:1)', 'f (a.py:2)']);
    assert.equal(await shown('matched'), 'Matched: 50.0% (50 samples)');
    assert.equal(await page.locator('#list [aria-pressed=true]').textContent(), 'f (a.py)');
    await page.keyboard.press('Escape');
    assert.equal(await page.locator('.frame.hit, #list tbody [aria-pressed=true]').count(), 0);
    assert.equal(await shown('matched'), '');
    await frame('f (a.py:1)').click();
    assert.deepEqual(await listed(), ['60.0% 60.0% g (b.py)', '40.0% 100.0% f (a.py)']);
    assert.equal(await page.locator('#list caption').textContent(), '2 functions in what is zoomed');
    await page.keyboard.press('Escape');
    await ways[way]('functions');
    assert.deepEqual(await stacks(), before);
    assert.equal(await page.locator('#list table').isVisible(), false);
  });
}

check('the list is below in a narrow window, and beside in sight while a tall picture scrolls', async () => {
  await open(Array.from({length: 150}, (_, i) => `f${i} (x.py:${i})`).join(';') + ' 5\n', [], {width: 500, height: 700});
  await page.locator('#functions').click();
  const root = await frame('all (').boundingBox(), list = await page.locator('#list table').boundingBox();
  assert.ok(list.y > root.y + root.height && list.y < 700 && root.y > 0, `the list is at ${list.y}, the root at ${root.y}`);
  assert.equal((await listed()).length, 100);
  assert.equal(await page.locator('#list caption').textContent(), '100 of 150 functions');
  await page.setViewportSize({width: 500, height: 450}); // some of the frames stay in sight
  await page.waitForFunction(() => document.querySelector('#list table').getBoundingClientRect().y < 440);
  const low = await frame('all (').boundingBox(), edge = await page.locator('#head').boundingBox();
  assert.ok(low.y > edge.y + edge.height, `the root is at ${low.y}, below a head of ${edge.height}`);
  await page.setViewportSize({width: 1300, height: 700});
  await page.waitForFunction(() => document.documentElement.getBoundingClientRect().width > 1200);
  for (const y of [1e6, 1000, 0]) {
    await page.evaluate((to) => scrollTo(0, to), y);
    await page.waitForFunction(() => {
      const box = document.querySelector('#list table').getBoundingClientRect(), edge = document.querySelector('#head').getBoundingClientRect();
      return box.x > 900 && box.top >= edge.bottom - 1 && box.top < edge.bottom + 20;
    });
  }
});

// The pictures that begin with what is chosen; each is as the file draws it, too.
async function begun(...figures) {
  await page?.context().close();
  await open('', [], {figures, javaScriptEnabled: false});
  const still = (await drawn()).map((one) => one.title.replace(/ of all.*/, '')).sort(), subtitle = await shown('subtitle');
  await page.context().close();
  await open('', [], {figures});
  assert.deepEqual((await drawn()).map((one) => one.title.replace(/ of all.*/, '')).sort(), still);
  assert.equal(await shown('subtitle'), subtitle);
  return {stacks: await stacks(), subtitle};
}

for (const way in ways) {
  check(`metric and waiting by ${way}`, async () => {
    const wanted = {};
    for (const [metric, idle] of [['0'], ['0', 'idle'], ['1', 'idle'], ['2', 'idle'], ['3', 'idle'], ['3']])
      wanted[metric + (idle ?? '')] = await begun(metric, ...idle ? [idle] : []);
    await begun('0');
    const choose = async (metric) => {
      if (way === 'mouse') return page.locator('#metric').selectOption(metric);
      await tabTo('metric');
      for (let i = 0; i < 4 && await page.locator('#metric').evaluate((one) => one.value) !== metric; i++) await page.keyboard.press('ArrowDown');
    };
    const assertShown = async (key) => {
      assert.deepEqual(await stacks(), wanted[key].stacks);
      assert.equal(await shown('subtitle'), wanted[key].subtitle);
    };
    assert.equal(wanted['0'].subtitle, '1.00 s in all, 2 threads together · wall time, waiting left out');
    assert.equal(wanted['1idle'].subtitle, '600 ms in all, 2 threads together · CPU time');
    assert.equal(wanted['3'].subtitle, '100 samples in all, 2 threads together · samples, waiting left out');
    await assertShown('0');
    await ways[way]('idle');
    assert.equal(await pressed('idle'), 'true');
    await assertShown('0idle');
    for (const metric of ['1', '2', '3']) {
      await choose(metric);
      assert.equal(await page.locator('#idle').isDisabled(), metric !== '3');
      await assertShown(metric + 'idle');
    }
    await ways[way]('idle');
    await assertShown('3');
    await page.locator('#functions').click();
    assert.equal((await listed())[0], '60.0% 80.0% run (a.py)');
  });
}

// Every frame with those that it stands on, by what is seen: the text of its label.
const towers = async () => {
  const all = await drawn();
  return all.map((one) => {
    const below = all.filter((other) => other.y > one.y && other.x <= one.x + 0.1 && other.x + other.width >= one.x + one.width - 0.1);
    return [...below.sort((a, b) => b.y - a.y), one].map((frame) => frame.title.replace(/ \(\d.*/, '')).join(' < ');
  }).sort();
};

for (const way in ways) {
  check(`callers by ${way}`, async () => {
    await open('a;b;leaf 30\na;c;leaf 20\na;c 10\nleaf 40\n');
    const before = await stacks();
    await ways[way]('callers');
    assert.deepEqual(await towers(), ['all', 'all < c', 'all < c < a', 'all < leaf', 'all < leaf < b', 'all < leaf < b < a', 'all < leaf < c', 'all < leaf < c < a']);
    near((await find('leaf')).width, insideWidth(1200) * 0.9 - 1);
    near((await find('b (')).width, insideWidth(1200) * 0.3 - 1);
    assert.equal(await page.getByRole('tree', {name: 'Callers'}).getByRole('treeitem').count(), 8);
    await frame('b (').hover();
    assert.equal(await shown('figures'), '30.0 \xb5s, 30.0% of all, 33.3% of what it called');
    await page.mouse.move(1, 1);
    await page.locator('#search').fill('^c$');
    assert.equal(await shown('matched'), 'Matched: 30.0% (30.0 \xb5s)');
    assert.equal(await page.locator('.frame.hit').count(), 2);
    await frame('leaf').click();
    near((await find('b (')).width, insideWidth(1200) / 3 - 1);
    await page.keyboard.press('Escape');
    near((await find('leaf')).width, insideWidth(1200) * 0.9 - 1);
    await ways[way]('callers');
    assert.deepEqual(await stacks(), before);
  });
}

check('callers of threads apart end with the thread, and imports are one frame there, too', async () => {
  await open(imports, [], {together: true});
  for (const id of ['callers', 'apart']) await page.locator('#' + id).click();
  const found = await towers();
  assert.ok(found.includes('all < <module> (a.py:1) < import < <module> (prog.py:9) < thread MainThread'), found.join('\n'));
  assert.ok(found.includes('all < work (prog.py:4) < run (threading.py:982) < thread worker-#'), found.join('\n'));
});

// How often V8 has entered a function or a block of one since it was last asked.
async function executed(session) {
  const {result} = await session.send('Profiler.takePreciseCoverage');
  return result.flatMap(({functions}) => functions).flatMap(({ranges}) => ranges).reduce((sum, {count}) => sum + count, 0);
}

check('20,000 frames: what a click does grows with them, and no faster', async () => {
  const random = (i) => Math.abs(Math.sin(i * 12.9898) * 43758.5453) % 1;
  const deep = Array.from({length: 2500}, (_, i) => `thread T${'ab'[i % 2]};` + Array.from({length: 12}, (_, d) => `f${Math.floor(random(i * 31 + d) * (d < 4 ? 3 : 40))} (m${d}.py:${d})`).join(';') + ` ${100 + i % 70}\n`);
  await open(deep.join(''), ['--min-width', '0.05'], {together: true});
  const frames = await page.locator('.frame').count();
  assert.ok(frames > 10000);
  const session = await page.context().newCDPSession(page);
  await session.send('Profiler.enable');
  await session.send('Profiler.startPreciseCoverage', {callCount: true, detailed: true});
  for (const id of ['apart', 'callers', 'functions', 'callers', 'apart']) {
    await executed(session);
    await page.evaluate((one) => document.querySelector('#' + one).click(), id);
    const count = await executed(session) / frames;
    assert.ok(count > 1 && count < 50, `${id}: ${count} for each frame`);
  }
});

check('one value: no metric to choose', async () => {
  await open(collapsed);
  assert.equal(await page.locator('#metric, #idle').count(), 0);
});

check('threads with too many frames for one file: the small ones are one, and nothing is lost', async () => {
  const letters = (i) => String.fromCharCode(97 + i % 26, 97 + Math.floor(i / 26) % 26);
  const lines = Array.from({length: 300 * 200}, (_, i) => `thread ${letters(i % 300)};f (a.py:1);leaf${Math.floor(i / 300)} (b.py:1) ${400 - i % 300}\n`);
  await open(lines.join(''), [], {together: true});
  const all = (await find('all (')).title;
  await page.locator('#apart').click();
  const found = (await drawn()).filter((one) => one.title.startsWith('thread'));
  const others = found.filter((one) => /^thread \.\.\. \(1\d\d other threads\)/.test(one.title));
  assert.equal(others.length, 1, found.map((one) => one.title).slice(0, 3).join());
  assert.equal(found.length + Number(others[0].title.match(/\((\d+)/)[1]) - 1, 300);
  assert.equal((await find('all (')).title, all);
  near(found.reduce((sum, one) => sum + one.width + 1, 0), insideWidth(1200));
});

check('nothing to choose, no button', async () => {
  await open('r;a 1\n');
  assert.equal(await page.locator('#apart, #imports').count(), 0);
});

// ---- differences ----

const difference = `
thread MainThread;main (a.py:1);slow (a.py:2) 100 400
thread MainThread;main (a.py:1);slow (a.py:2);leaf (b.py:9) 100 100
thread MainThread;main (a.py:1);fast (a.py:3) 400 200
thread MainThread;main (a.py:1);fast (a.py:3);leaf (b.py:9) 200 100
thread MainThread;main (a.py:1);old (c.py:4);older (c.py:5) 200 0
thread worker;new (d.py:6) 0 200
`; // 1000 each
const coloured = async () => Object.fromEntries(await page.$$eval('.frame', (groups) => groups.map((group) =>
  [group.querySelector('title').textContent.replace(/ \(\d.*/, ''), group.querySelector('rect').getAttribute('fill')])));

check('a difference is the same with a script and without', async () => {
  for (const args of [[], ['--absolute'], ['--threads']]) {
    const still = [], moving = [];
    for (const [javaScriptEnabled, found] of [[false, still], [true, moving]]) {
      await page?.context().close();
      await open(difference, ['--diff', ...args], {javaScriptEnabled, together: true});
      const told = (title) => title.replace(/, [\d.]+% of its caller|, self [\d.]+ \S+?(?=;)/g, '');
      found.push((await drawn()).map((one) => `${told(one.title)} ${one.width.toFixed(1)}`).sort(), await coloured(), await shown('subtitle'));
    }
    assert.deepEqual(moving, still);
    assert.ok(moving[0].includes('new (d.py:6) (200 \xb5s, 20.0% of all; not in the base: +20.0 ' + 'points) 234.2') || args[0] === '--absolute', moving[0].join());
    assert.ok(!moving[0].some((one) => one.startsWith('old')), 'what is gone has no width');
    assert.match(moving[2], /^1\.00 ms in all(, 2 threads together)? · base 1\.00 ms · red: .* · 2 frames gone$/);
  }
});

for (const way in ways) {
  check(`a difference by ${way}: what has changed is a list, and stays so zoomed, apart and turned`, async () => {
    await open(difference, ['--diff'], {together: true, width: 1400});
    await ways[way]('functions');
    assert.equal(await page.locator('#list caption').textContent(), '7 functions');
    assert.equal((await listed())[0], '40.0% 50.0% +30.0 slow (a.py)'); // by self
    await ways[way]('by-change');
    assert.equal(await page.locator('#list th[aria-sort=descending]').textContent(), 'Change');
    assert.deepEqual(await listed(), ['40.0% 50.0% +30.0 slow (a.py)', '20.0% 30.0% −20.0 fast (a.py)', '20.0% 20.0% +20.0 new (d.py)',
      '0% 0% −20.0 older (c.py)', '20.0% 20.0% −10.0 leaf (b.py)', '0% 80.0% 0 main (a.py)', '0% 0% 0 old (c.py)']);
    const gone = page.locator('#list tbody button', {hasText: 'older (c.py)'});
    assert.equal(await gone.getAttribute('title'), 'older (c.py): self 0 s, total 0 s; self in the base 200 \xb5s, 20.0%: −20.0 points');
    await ways[way]('functions');
    await frame('slow (').hover();
    assert.equal(await shown('figures'), '500 \xb5s, 50.0% of all, 62.5% of its caller, self 400 \xb5s; in the base 200 \xb5s, 20.0%: +30.0 points');
    const before = await coloured();
    await page.mouse.move(1, 1);
    await ways[way]('callers');
    const turned = await coloured();
    assert.deepEqual([turned.all, turned['leaf (b.py:9)'], turned['new (d.py:6)']], ['#e8eaed', '#6aa5f0', '#f0705a']);
    assert.ok((await find('leaf (')).title.endsWith('in the base 300 \xb5s, 30.0%: −10.0 points)'));
    assert.ok(!Object.keys(turned).some((name) => name.startsWith('older')));
    await ways[way]('callers');
    assert.deepEqual(await coloured(), before);
    await ways[way]('apart');
    const apart = await coloured();
    assert.deepEqual([apart['thread MainThread'], apart['thread worker']], ['#6aa5f0', '#f0705a']);
    assert.ok((await find('thread MainThread')).title.includes('in the base 1.00 ms, 100.0%: −20.0 points'));
    if (way === 'mouse') await frame('main (').click();
    else {
      await frame('main (').focus();
      await page.keyboard.press('Enter');
    }
    assert.equal((await coloured())['slow (a.py:2)'], '#f0705a');
    assert.ok((await find('slow (')).title.includes('in the base 200 \xb5s, 20.0%: +30.0 points'));
    await page.keyboard.press('Escape');
    assert.deepEqual(await coloured(), apart);
  });
}

check('the facts are whole in a narrow window, and what comes below them is clear of them', async () => {
  await open('', [], {figures: ['0'], javaScriptEnabled: false});
  const facts = await shown('facts'), heights = [];
  assert.match(facts, /a_program_of_some_length .* 12,345 samples, 67 lost$/);
  await page.context().close();
  await open('', [], {figures: ['0']});
  for (const width of [1200, 500, 300]) {
    await page.setViewportSize({width, height: 800});
    await page.waitForFunction((w) => document.documentElement.getBoundingClientRect().width === w, width);
    const [box, above, below] = await Promise.all(['facts', 'subtitle', 'apart'].map((id) => page.locator('#' + id).boundingBox()));
    const text = await page.locator('#facts').evaluate((one) => {
      const range = document.createRange();
      range.selectNodeContents(one);
      return {shown: range.toString(), right: range.getBoundingClientRect().right};
    });
    assert.deepEqual([text.shown, text.right <= width - 12], [facts, true]);
    assert.ok(above.y + above.height <= box.y + 3 && box.y + box.height <= below.y, `${width}: the facts are at ${box.y}, ${box.height} high`);
    const root = await frame('all (').boundingBox(), edge = await page.locator('#head').boundingBox();
    assert.ok(root.y > edge.y + edge.height, `the root is at ${root.y}, below a head of ${edge.height}`);
    heights.push(box.height);
  }
  assert.ok(heights[0] < 20 && heights[1] > heights[0] && heights[2] > heights[1], heights.join());
});

check('each metric has a base of its own', async () => {
  const {subtitle} = await begun('0', 'no', 'base');
  assert.equal(subtitle, '1.00 s in all, 2 threads together \xb7 base 500 ms \xb7 red: larger share, blue: smaller \xb7 wall time, waiting left out');
  assert.deepEqual([...new Set(Object.values(await coloured()))], ['#e8eaed']);
  await page.locator('#metric').selectOption('1');
  const cpu = await coloured();
  assert.deepEqual([cpu.import, cpu['run (a.py:5)'], cpu.all], ['#f0705a', '#e8eaed', '#e8eaed']);
  assert.ok((await find('import')).title.endsWith('; not in the base: +16.7 points)'));
  assert.equal((await begun('1', 'no', 'base')).subtitle.split(' \xb7 ')[1], 'base 250 ms');
  assert.equal((await begun('0', 'yes', 'base')).subtitle.split(' \xb7 ')[1], 'base 1.00 s');
});

// ---- light and dark ----

const linear = (channel) => channel <= 0.03928 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const contrast = (a, b) => {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
};

// Each text of the picture with its colour, and that of what it stands on: a frame's own, over the paper.
const inks = () => page.evaluate(() => {
  const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
  const over = (top, share, below) => below.map((one, i) => top[i] * share + one * (1 - share));
  const paper = parse(getComputedStyle(document.querySelector('.paper')).fill), found = [];
  for (const text of document.querySelectorAll('text')) {
    if (!text.textContent) continue;
    const rect = text.parentElement.matches('.frame') && getComputedStyle(text.parentElement.querySelector('rect'));
    found.push([text.textContent, parse(getComputedStyle(text).fill), rect ? over(parse(rect.fill), Number(rect.fillOpacity), paper) : paper]);
  }
  for (const part of document.querySelectorAll('button, input, select, #facts, #name, #figures, #list td, #list th, #list caption')) {
    let under = part;
    while (under.parentElement && parse(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
    found.push([part.id, parse(getComputedStyle(part).color).slice(0, 3), parse(getComputedStyle(under).backgroundColor).slice(0, 3)]);
  }
  const field = document.querySelector('#search');
  if (field) {
    const hint = getComputedStyle(field, '::placeholder');
    const ground = parse(getComputedStyle(field).backgroundColor).slice(0, 3);
    found.push(['placeholder', over(parse(hint.color), Number(hint.opacity), ground), ground]);
  }
  return found;
});

async function assertReadable(what, least) {
  const found = await inks();
  assert.ok(found.length > least, `${found.length} texts ${what}`);
  for (const [text, ink, ground] of found)
    assert.ok(contrast(ink, ground) >= 4.5, `${text}: ${contrast(ink, ground).toFixed(2)} ${what}: ${ink} on ${ground}`);
}

const many = Array.from({length: 60}, (_, i) => `r;f${i} (file${i}.py:1) 90\nr;f${i} (file${i}.py:1);<module> (<frozen a>:1) 90\n`).join('');

for (const colorScheme of ['light', 'dark']) {
  check(`every text has a contrast of 4.5 at least: ${colorScheme}`, async () => {
    for (const javaScriptEnabled of [false, true]) {
      await page?.context().close();
      await open(many, ['--subtitle', 'what was measured', '--width', '6000'], {colorScheme, javaScriptEnabled, width: 6000});
      await assertReadable(`${colorScheme}, scripts ${javaScriptEnabled}`, 60);
    }
    await page.locator('#functions').click();
    await page.locator('#list tbody button').nth(2).click();
    await page.locator('#list tr').nth(5).hover();
    await assertReadable(`${colorScheme}, a function chosen`, 200);
    await page.locator('#search').fill('file3');
    await frame('r (').click();
    await frame('f3 (').hover();
    assert.ok(await page.locator('.frame.hit').count() > 10 && await page.locator('.frame.above').count() > 0);
    await assertReadable(`${colorScheme}, searched and zoomed`, 60);
    await page.context().close();
    await open('', [], {colorScheme, figures: ['1']});
    await page.locator('#apart').click();
    await assertReadable(`${colorScheme}, figures`, 10);
    await page.context().close();
    const steps = Array.from({length: 40}, (_, i) => `r;f${i} (a.py:${i}) ${900 + 5 * i * i} 900\nr;g${i} (a.py:${i}) 900 ${900 + 5 * i * i}\n`);
    await open(steps.join(''), ['--diff'], {colorScheme, width: 6000});
    assert.ok(new Set(Object.values(await coloured())).size > 10);
    await assertReadable(`${colorScheme}, difference`, 80);
    await page.locator('#functions').click();
    await page.locator('#by-change').click();
    await page.locator('#search').fill('f1');
    await assertReadable(`${colorScheme}, difference searched`, 80);
    await page.context().close();
    await open('', [], {colorScheme});
    await assertReadable(`${colorScheme}, without samples`, 3);
  });

  check(`it follows the viewer's setting: ${colorScheme}`, async () => {
    const path = await open(collapsed, [], {colorScheme});
    const paper = colorScheme === 'dark' ? '#0d1117' : '#ffffff';
    const corner = async () => '#' + decode(await page.screenshot()).colour(3, 3);
    assert.equal(await corner(), paper);
    const outer = join(directory, 'image.html');
    writeFileSync(outer, `<!doctype html><meta name="color-scheme" content="light dark"><body style="margin:0"><img src="${path}">`);
    page.removeAllListeners('request');
    await page.goto('file://' + outer);
    assert.equal(await corner(), paper);
    await page.emulateMedia({media: 'print'});
    await page.goto('file://' + path);
    assert.equal(await page.locator('.paper').first().evaluate((one) => getComputedStyle(one).fill), 'rgb(255, 255, 255)');
  });
}
