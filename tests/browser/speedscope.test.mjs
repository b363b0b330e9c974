// pyprof-run's speedscope and pprof files in speedscope itself, served from its package.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {readFileSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:http';
import {dirname, extname, join} from 'node:path';
import {after, before, test} from 'node:test';
import {build, directory, launch, require} from './browser.mjs';

// Both threads live for a second; the line numbers stand in the expected stacks below.
const script = `import threading, time
def spin(end):
    count = 0
    while time.perf_counter() < end: count += 1
def busy_work():
    spin(time.perf_counter() + 1)
def nap():
    time.sleep(1)
def sleepy_work():
    nap()
threads = [threading.Thread(target=busy_work, name='busy "bee" ☕'),
           threading.Thread(target=sleepy_work, name='sleepy cat')]
for thread in threads: thread.start()
for thread in threads: thread.join()
`;
const release = join(dirname(require.resolve('speedscope/package.json')), 'dist', 'release');
const types = {'.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm',
               '.json': 'application/json'};
const busy = 'busy "bee" ☕', sleepy = 'sleepy cat';
let browser, server, origin;

// What pyprof-run makes of the script.
function record(...options) {
  const source = join(directory, 'two_threads.py'), path = join(directory, 'profile.json');
  writeFileSync(source, script);
  execFileSync(join(build, 'tools', 'pyprof-run'), ['-r', '200', '-f', 'speedscope', ...options, '-o', path, source],
               {stdio: 'inherit'});
  return JSON.parse(readFileSync(path, 'utf8'));
}

const sum = (numbers) => numbers.reduce((total, n) => total + n, 0);
const active = (profile) => sum(profile.weights.filter((_, i) => profile.samples[i].length));
const named = (file, name) => {
  const found = file.profiles.filter((profile) => profile.name === name);
  assert.equal(found.length, 1, `${found.length} profiles are named ${name}`);
  return found[0];
};
// How speedscope writes nanoseconds.
const shown = (n) => n / 1e9 >= 1 ? (n / 1e9).toFixed(2) + 's' : n / 1e6 >= 1 ? (n / 1e6).toFixed(2) + 'ms' :
                     n / 1e3 >= 1 ? (n / 1e3).toFixed(2) + 'µs' : n.toFixed(2) + 'ns';

before(async () => {
  server = createServer((request, response) => {
    const path = new URL(request.url, origin).pathname;
    const file = path.startsWith('/profile.') ? join(directory, path) : join(release, path === '/' ? 'index.html' : path);
    try {
      response.setHeader('content-type', types[extname(file)] ?? 'application/octet-stream');
      response.end(readFileSync(file));
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((ready) => { server.listen(0, '127.0.0.1', ready); });
  origin = `http://127.0.0.1:${server.address().port}`;
  browser = await launch();
});
after(async () => {
  await browser?.close();
  server?.close();
});

// Speedscope with the profile loaded, and its list of profiles as [name, total weight].
async function open() {
  const page = await browser.newPage({viewport: {width: 1200, height: 800}});
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (message) => { if (message.type() === 'error') problems.push(message.text()); });
  await page.goto(`${origin}/#profileURL=${encodeURIComponent(origin + '/profile.json')}`);
  const rows = page.locator('tr:has(td:nth-child(3))');
  await rows.first().waitFor({state: 'attached'});
  const profiles = await rows.evaluateAll((list) => list.map((row) => [1, 2].map((k) => row.cells[k].textContent)));
  return {page, problems, rows, profiles};
}

// The stack that speedscope tells, leaf first, when the frame of this depth is clicked in the heaviest stack.
async function stackAt(page, depth) {
  await page.getByText('Left Heavy').click();
  const chart = await page.locator('canvas').last().boundingBox();
  const axis = 32, row = 20; // where speedscope draws the middle of the first frame, and how high frames are
  const x = chart.x + chart.width / 4, y = chart.y + axis + depth * row;
  const detail = page.getByText('This Instance');
  // The chart is drawn with the next animation frames: a click before that selects nothing.
  for (let attempt = 0; attempt < 50 && !await detail.isVisible(); attempt++) {
    await page.mouse.move(x + attempt % 2, y);
    await page.mouse.click(x, y);
    await page.waitForTimeout(100);
  }
  const lines = (await page.locator('body').innerText()).split('\n').map((line) => line.replace(/^[>\s]+/, ''));
  return lines.filter((line) => / \(.*:\d+\)$/.test(line)).map((line) => line.replace(/\(.*\//, '('));
}

async function choose(page, rows, name) {
  await page.locator('span', {hasText: /\(\d+\/\d+\)$/}).first().click();
  await rows.filter({hasText: name}).click();
  await page.getByText(/\(\d+\/\d+\)/).first().waitFor();
}

test('the file holds against the schema that speedscope carries', () => {
  const Ajv = require('ajv');
  const validate = new Ajv({allowUnionTypes: true, strict: false})
      .compile(JSON.parse(readFileSync(join(release, 'file-format-schema.json'), 'utf8')));
  const file = record();
  assert.ok(validate(file), JSON.stringify(validate.errors?.slice(0, 3)));
  file.profiles[0].unit = 'parsecs';
  assert.equal(validate(file), false, 'the schema refuses nothing');
});

test('speedscope shows the threads, their weights and the busy stack', async () => {
  const file = record();
  const {page, problems, rows, profiles} = await open();
  assert.deepEqual(profiles.map(([name]) => name).sort(), ['MainThread', busy, sleepy].sort());
  for (const [name, weight] of profiles) {
    assert.equal(weight.replace('μ', 'µ'), shown(active(named(file, name))), name);
  }
  // The busy thread is busy for its second, the sleeping one is left out.
  assert.ok(active(named(file, busy)) > 0.8e9, `${active(named(file, busy))} ns`);
  assert.ok(active(named(file, sleepy)) < 0.1e9, `${active(named(file, sleepy))} ns`);
  assert.equal(new Set(file.profiles.map((profile) => sum(profile.weights))).size, 1, 'not on one time line');
  await choose(page, rows, busy);
  const stack = await stackAt(page, 4);
  assert.deepEqual(stack.slice(0, 2), ['spin (two_threads.py:4)', 'busy_work (two_threads.py:6)']);
  // Before CPython 3.11 there are no qualified names.
  const callers = stack.slice(2).map((line) => line.replace('Thread.', '').replace(/:\d+\)/, ''));
  assert.deepEqual(callers, ['run (threading.py', '_bootstrap_inner (threading.py', '_bootstrap (threading.py']);
  assert.deepEqual(problems, []);
  await page.close();
});

test('with --idle the sleeping stack is there, too', async () => {
  const file = record('--idle');
  assert.ok(active(named(file, sleepy)) > 0.8e9, `${active(named(file, sleepy))} ns`);
  const {page, problems, rows, profiles} = await open();
  assert.equal(profiles.find(([name]) => name === sleepy)[1], shown(active(named(file, sleepy))));
  await choose(page, rows, sleepy);
  const stack = await stackAt(page, 4);
  assert.deepEqual(stack.slice(0, 2), ['nap (two_threads.py:8)', 'sleepy_work (two_threads.py:10)']);
  assert.deepEqual(problems, []);
  await page.close();
});

// It takes a file of several gzip members, or one that it does not know, for an empty one, without a word.
test('speedscope reads pprof files, with the wall time of all threads', async () => {
  const source = join(directory, 'two_threads.py');
  writeFileSync(source, script);
  for (const name of ['profile.pb.gz', 'profile.pb']) {
    execFileSync(join(build, 'tools', 'pyprof-run'),
                 ['-r', '200', '-F', '-o', join(directory, name), '-o', join(directory, 'profile.json'), source], {stdio: 'inherit'});
    const file = JSON.parse(readFileSync(join(directory, 'profile.json'), 'utf8'));
    const page = await browser.newPage({viewport: {width: 1200, height: 800}});
    const problems = [];
    page.on('pageerror', (error) => problems.push(String(error)));
    await page.goto(`${origin}/#profileURL=${encodeURIComponent(`${origin}/${name}`)}`);
    await page.getByText('Sandwich').click();
    const spin = page.locator('tr', {hasText: 'spin'}).first();
    await spin.waitFor();
    // Of the frames of one name, how much time is in the thread's own: the weights of the same recording.
    const frames = file.shared.frames.map((frame) => frame.name);
    const self = sum(file.profiles.map((profile) => sum(profile.weights.filter(
        (_, i) => frames[profile.samples[i].at(-1)] === 'spin'))));
    assert.ok((await spin.innerText()).replace('μ', 'µ').includes(shown(self)), `${await spin.innerText()}, not ${shown(self)}`);
    assert.deepEqual(problems, []);
    await page.close();
  }
});
