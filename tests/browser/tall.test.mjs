// Pictures that are taller than the window: whatever is clicked, typed and searched in whatever order, frames are in
// sight, the frame that was chosen is among them, and Escape leads back to where one was.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, test} from 'node:test';
import {build, decode, directory, launch, source} from './browser.mjs';

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

// ---- ten pictures, the same in every run ----

function randomness(seed) {
  return () => {
    seed = seed + 0x6d2b79f5 | 0;
    let t = Math.imul(seed ^ seed >>> 15, 1 | seed);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 4294967296;
  };
}

// A tree of calls: step(depth, random) names the frames that stand for one call; it ends at `depth` calls.
function grow(lines, random, root, value, depth, step, split = 0.6) {
  const open = [{stack: root, value, level: 0}];
  for (const {stack, value: whole, level} of open) {
    let left = whole;
    while (level < depth && left > 300 && random() < (left === whole ? 0.95 : split)) {
      const share = Math.ceil(left * (0.2 + 0.75 * random()));
      left -= share;
      open.push({stack: [...stack, ...step(level, random)], value: share, level: level + 1});
    }
    if (left > 0) lines.push(stack.join(';') + ' ' + left);
  }
}

const tiny = (lines, root, count) => {
  for (let i = 0; i < count; i++) lines.push(`${root};tiny${i} (tiny.py:${i}) 200`);
};
const any = (random, limit) => Math.floor(random() * limit);
const main = ['thread MainThread', '<module> (main.py:1)'];

const pictures = {
  imports(lines, random) {
    grow(lines, random, main, 900000, 16, (_, r) => [
      '_find_and_load (<frozen importlib._bootstrap>:1007)', '_find_and_load_unlocked (<frozen importlib._bootstrap>:986)',
      '_load_unlocked (<frozen importlib._bootstrap>:680)', 'exec_module (<frozen importlib._bootstrap_external>:850)',
      '_call_with_frames_removed (<frozen importlib._bootstrap>:228)', `<module> (package${any(r, 9)}/module${any(r, 99)}.py:1)`]);
    tiny(lines, main.join(';'), 300);
  },
  pytest(lines, random) {
    const hooks = Array.from({length: 48}, (_, i) => `${['HookCaller.__call__', '_multicall', '_hookexec'][i % 3]} (pluggy/_${i}.py:9)`);
    grow(lines, random, [...main, ...hooks], 700000, 12, (level, r) => [`test_${any(r, 40)} (tests/test_${level}.py:3)`, 'call (fixtures.py:8)']);
    tiny(lines, main.join(';'), 50);
  },
  server(lines, random) {
    for (let i = 0; i < 200; i++)
      grow(lines, random, [`thread Thread-${i} (process_request_thread)`, 'run (threading.py:982)', 'finish_request (socketserver.py:360)'],
           9000, 30, (level, r) => [`layer${level}_${any(r, 3)} (middleware.py:${level})`], 0.3);
  },
  threads_apart(lines, random) {
    for (const name of ['MainThread', 'writer', 'reader', 'worker-1', 'worker-2', 'worker-33'])
      grow(lines, random, ['thread ' + name, 'run (threading.py:982)'], 300000, 55, (level, r) => [`${name}${level} (m${any(r, 9)}.py:5)`], 0.3);
  },
  recursion(lines) {
    const deep = [...main];
    for (let i = 0; i < 300; i++) {
      deep.push('walk (tree.py:7)');
      lines.push(deep.join(';') + ' 100');
    }
  },
  tower(lines, random) {
    for (let i = 0; i < 12; i++) lines.push(`${main.join(';')};plain${i} (plain.py:${i}) 100000`);
    grow(lines, random, [...main, 'narrow (tower.py:1)'], 9000, 90, (level) => [`floor${level} (tower.py:2)`], 0.1);
    tiny(lines, main.join(';'), 200);
  },
  asyncio(lines, random) {
    const loop = ['run (asyncio/runners.py:44)', 'run_until_complete (asyncio/base_events.py:630)', '_run_once (asyncio/base_events.py:1900)'];
    grow(lines, random, [...main, ...loop, ...loop], 800000, 25, (level, r) => [`Task.step${any(r, 5)} (asyncio/tasks.py:9)`, `handler${level} (app.py:${any(r, 90)})`], 0.4);
  },
  interpreters(lines, random) {
    for (let i = 0; i < 5; i++)
      grow(lines, random, ['thread plugin', `[interpreter ${i}: plugin ${i}]`], 200000, 45, (level, r) => [`größe_${level} 名前 (p${any(r, 7)}.py:1)`], 0.4);
  },
  inverted(lines, random) {
    grow(lines, random, main, 900000, 60, (level, r) => [`step${level} (m${any(r, 9)}.py:5)`], 0.5);
    tiny(lines, main.join(';'), 100);
  },
};
const options = {threads_apart: ['--threads'], inverted: ['--inverted']};

function drawPicture(name) {
  const lines = [], path = join(directory, name + '.svg');
  pictures[name](lines, randomness(name.length * 1000 + name.charCodeAt(0)));
  execFileSync(join(build, 'tools', 'pyprof-svg'), [...options[name] ?? [], '-', path], {input: lines.join('\n')});
  return path;
}

// ---- what is in sight ----

// Installed in the page. It knows of the picture what a reader sees: groups with the class frame, and their titles.
function helpers() {
  const roof = () => document.querySelector('#head').getBoundingClientRect().bottom;
  const nameOf = (group) => group.getAttribute('aria-level') + ' ' + group.getAttribute('aria-label');
  const inSight = () => {
    const least = roof() - 1, most = innerHeight + 1;
    return [...document.querySelectorAll('.frame')].filter((group) => {
      const box = group.querySelector('rect').getBoundingClientRect();
      return box.top >= least && box.bottom <= most && box.width > 0;
    });
  };
  window.tall = {
    settled: () => new Promise((done) => requestAnimationFrame(() => setTimeout(done))),
    names: () => inSight().map(nameOf),
    // All that tells where one is.
    place: () => inSight().map((group) => nameOf(group) + ' ' + Math.round(group.querySelector('rect').getBoundingClientRect().top)).join('\n') + ' at ' + Math.round(scrollY),
    // The middle of one of the frames in sight after scrolling to a share of the whole.
    choose: (share, which, least) => {
      if (share !== null) scrollTo(0, share * (document.documentElement.getBoundingClientRect().height - innerHeight));
      return tall.settled().then(() => {
        const wide = inSight().filter((group) => !group.classList.contains('above') && group.querySelector('rect').getBoundingClientRect().width > least);
        const group = wide[Math.floor(which * wide.length)];
        if (!group) return null;
        const box = group.querySelector('rect').getBoundingClientRect();
        return {name: nameOf(group), x: box.x + box.width / 2, y: box.y + 8, fold: group.classList.contains('fold'), place: tall.place()};
      });
    },
    focused: () => document.activeElement.classList.contains('frame') ? nameOf(document.activeElement) : '',
  };
}

async function open(path, width, height) {
  const context = await browser.newContext({viewport: {width, height}});
  await context.addInitScript(helpers);
  const page = await context.newPage();
  page.on('pageerror', (error) => { throw error; });
  await page.goto('file://' + path);
  await page.evaluate(() => tall.settled());
  return page;
}

async function assertInSight(page, name, what) {
  const names = await page.evaluate(async () => { await tall.settled(); return tall.names(); });
  assert.ok(names.length > 0, `a blank page ${what}`);
  if (name) assert.ok(names.includes(name), `${name} is out of sight ${what}`);
}

// The frame that was clicked, and after it one of: search, scroll to the far end, zoom further.
async function clickAround(page, i, random, what) {
  const at = await page.evaluate(([share, which]) => tall.choose(share, which, 3).then((one) => one ?? tall.choose(1, 0.5, 3)), [i % 3 ? random() : 1, random()]);
  assert.ok(at, `nothing to click ${what}`);
  await page.mouse.click(at.x, at.y);
  await assertInSight(page, at.fold ? null : at.name, `after a click on ${at.name} ${what}`);
  if (i % 4 === 1) {
    await page.keyboard.press('/');
    await page.keyboard.type('e');
    await assertInSight(page, at.fold ? null : at.name, `after a search ${what}`);
  } else if (i % 4 === 2) {
    for (const end of [0, 1e6]) {
      await page.evaluate((y) => scrollTo(0, y), end);
      await assertInSight(page, null, `at the end ${end} of what is zoomed ${what}`);
    }
  } else if (i % 4 === 3) {
    const next = await page.evaluate((which) => tall.choose(null, which, 3), random());
    if (next) {
      await page.mouse.click(next.x, next.y);
      await assertInSight(page, next.fold ? null : next.name, `after a second click on ${next.name} ${what}`);
    }
  }
  await page.mouse.move(1, 1);
  const reset = page.locator('#reset');
  if (i % 2 && await reset.isVisible()) await reset.click();
  await page.keyboard.press('Escape');
  const place = await page.evaluate(async () => { await tall.settled(); return tall.place(); });
  assert.equal(place, at.place, `not back where one was ${what}: ${at.name}`);
}

// Up by the arrow keys, zoomed by Enter, back by Escape, from where the focus is then.
async function walk(page, i, what, inverted) {
  const out = inverted ? 'ArrowDown' : 'ArrowUp';
  for (const key of [out, i % 2 ? 'ArrowRight' : 'ArrowLeft', out, ...i % 5 ? [out, out] : ['Home', out]]) {
    await page.keyboard.press(key);
    await assertInSight(page, await page.evaluate(() => tall.focused()), `after ${key} ${what}`);
  }
  const before = await page.evaluate(() => ({name: tall.focused(), place: tall.place(), fold: document.activeElement.classList.contains('fold')}));
  await page.keyboard.press('Enter');
  await assertInSight(page, before.fold ? null : before.name, `after Enter on ${before.name} ${what}`);
  if (i % 2) {
    await page.keyboard.press(out);
    await assertInSight(page, await page.evaluate(() => tall.focused()), `after ${out} in what is zoomed ${what}`);
  }
  await page.keyboard.press('Escape');
  const place = await page.evaluate(async () => { await tall.settled(); return tall.place(); });
  assert.equal(place, before.place, `not back where one was ${what}: ${before.name}`);
}

const clicks = 14;
for (const name of ['demo', ...Object.keys(pictures)]) {
  test(`no blank page: ${name}`, async () => {
    const path = name === 'demo' ? join(source, 'examples', 'demo.svg') : drawPicture(name);
    const random = randomness(7);
    for (const [width, height] of [[1400, 700], [500, 800]]) {
      const page = await open(path, width, height);
      const what = `(${name}, ${width} x ${height})`;
      for (let i = 0; i < clicks; i++) await clickAround(page, i, random, what);
      await page.reload();
      await page.keyboard.press('Tab');
      for (let i = 0; i < clicks; i++) await walk(page, i, what, name === 'inverted');
      await page.context().close();
    }
  });
}

for (const controls of [['callers'], ['apart'], ['imports'], ['functions'], ['callers', 'apart', 'functions']]) {
  test(`no blank page with ${controls}`, async () => {
    const lines = [], path = join(directory, 'chosen.svg'), random = randomness(11);
    for (const name of ['imports', 'tower', 'server']) pictures[name](lines, randomness(name.length));
    execFileSync(join(build, 'tools', 'pyprof-svg'), ['-', path], {input: lines.join('\n')});
    for (const [width, height] of [[1400, 700], [500, 800]]) {
      const page = await open(path, width, height), what = `(${controls}, ${width} x ${height})`;
      for (const id of controls) {
        await page.locator('#' + id).click();
        await assertInSight(page, null, `after ${id} ${what}`);
      }
      for (let i = 0; i < 8; i++) await clickAround(page, i, random, what);
      const at = await page.evaluate(() => tall.choose(0.5, 0.5, 3));
      await page.mouse.click(at.x, at.y);
      for (const id of controls) {
        await page.locator('#' + id).click();
        await assertInSight(page, null, `after ${id} in what is zoomed ${what}`);
      }
      await page.keyboard.press('Escape');
      await assertInSight(page, null, `after all ${what}`);
      await page.context().close();
    }
  });
}

test('no blank page while the window changes its size', async () => {
  const page = await open(drawPicture('pytest'), 1400, 700);
  const at = await page.evaluate(() => tall.choose(0.5, 0.5, 3));
  const sizes = [[500, 800], [1400, 300], [1400, 1500], [320, 250], [700, 5000], [1400, 700]];
  const resize = async ([width, height], what) => {
    await page.setViewportSize({width, height});
    await page.waitForFunction((w) => document.documentElement.getBoundingClientRect().width === Math.max(300, w), width);
    await assertInSight(page, null, `${what} at ${width} x ${height}`);
  };
  for (const size of sizes) await resize(size, 'unzoomed');
  await page.evaluate(() => tall.choose(0.5, 0.5, 3));
  await page.mouse.click(at.x, at.y);
  for (const size of sizes) {
    await resize(size, 'zoomed');
    for (const end of [0, 1e6]) {
      await page.evaluate((y) => scrollTo(0, y), end);
      await assertInSight(page, null, `zoomed and scrolled to ${end} at ${size}`);
    }
  }
  await page.keyboard.press('Escape');
  await assertInSight(page, null, 'after Escape');
  await page.context().close();
});

test('inside a page that scrolls', async () => {
  const svg = readFileSync(drawPicture('asyncio'), 'utf-8').replace(/^<\?xml.*\n/, '');
  const outer = join(directory, 'inline.html');
  writeFileSync(outer, `<!doctype html><body style="margin:0"><p style="height:900px">above</p>${svg}<p style="height:900px">below</p>`);
  const page = await open(outer, 1200, 700);
  for (let i = 0; i < 6; i++) {
    const at = await page.evaluate((i) => {
      const box = document.querySelectorAll('.frame:not(.fold)')[3 * i];
      box.scrollIntoView({block: 'center'});
      const rect = box.querySelector('rect').getBoundingClientRect();
      return {x: rect.x + rect.width / 2, y: rect.y + 8, name: box.getAttribute('aria-label')};
    }, i);
    await page.mouse.click(at.x, at.y);
    const sight = await page.evaluate(async (name) => {
      await tall.settled();
      const rect = [...document.querySelectorAll('.frame')].find((one) => one.getAttribute('aria-label') === name).getBoundingClientRect();
      return rect.top >= 0 && rect.bottom <= innerHeight;
    }, at.name);
    assert.ok(sight, `${at.name} is out of sight`);
    await page.keyboard.press('Escape');
  }
  await page.context().close();
});

// ---- chromium --headless --screenshot ----

function screenshot(url, width, height) {
  const path = join(directory, 'shot.png');
  execFileSync(process.env.PYPROF_CHROMIUM, ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', `--user-data-dir=${join(directory, 'profile')}`,
                                             `--window-size=${width},${height}`, `--screenshot=${path}`, url], {stdio: 'ignore'});
  return decode(readFileSync(path));
}

// The rows of pixels in which the colour fills a good part of the width.
function rowsOf(shot, colour) {
  const rows = [];
  for (let y = 0; y < shot.height; y++) {
    let count = 0;
    for (let x = 0; x < shot.width; x++) count += shot.colour(x, y) === colour;
    if (count > shot.width / 2) rows.push(y);
  }
  return rows;
}

test('a screenshot without a window shows the root and the head', async () => {
  const path = drawPicture('pytest');
  for (const [width, height] of [[1400, 700], [500, 800]]) {
    const shot = screenshot('file://' + path, width, height);
    assert.deepEqual([shot.width, shot.height], [width, height]);
    const root = rowsOf(shot, 'd5dae1');
    assert.ok(root.length >= 12 && root.at(-1) > height - 60, `the root is at ${root} of ${height}`);
    let ink = 0;
    for (let y = 10; y < 35; y++) for (let x = 12; x < 150; x++) ink += shot.colour(x, y) < '808080';
    assert.ok(ink > 100, 'there is no title');
  }
});

test('a tall picture as an image of a page', async () => {
  const page = join(directory, 'image.html');
  drawPicture('imports');
  writeFileSync(page, '<!doctype html><body style="margin:0"><img src="imports.svg">');
  assert.ok(rowsOf(screenshot('file://' + page, 1200, 4000), 'd5dae1').length >= 12, 'the root is not there');
});
