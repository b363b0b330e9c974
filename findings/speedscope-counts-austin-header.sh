#!/usr/bin/env bash
# speedscope 1.25.0 with a file of austin 3.7.0: it takes the file's head and foot for stacks, and their numbers for time.
#
# austin-python's README (on PyPI, 2.4.0, Synopsis) says that the speedscope web application takes austin's own format
# as it is. That format is collapsed stacks with lines of the kind "# name: value" around them. speedscope's
# reader of collapsed stacks takes each line that ends in a blank and a whole number, so
#   "# interval: 10000" and "# duration: 561923" become functions of that name, with 10 ms and 562 ms. As the
#   duration is the sum of all the rest, half of every picture is "# duration:", and all percentages are half of
#   what they should be.
#   In memory mode "# memory: 24684092", the machine's memory, does the same.
#   In full mode (austin -f) a sample's line ends in "46608,0,954368": no whole number, left out. The
#   picture is then "# interval:", "# memory:" and "# duration:", not one function of the program. No error in either case.
# inferno and flameshow leave lines with a # out; austin2speedscope reads them for what they are.
# What speedscope understood is read from the file that its Export button writes. Needs node, and Debian's chromium
# (installed if it is not there); austin must be allowed to trace its children.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v chromium >/dev/null || apt-get -qq -y install chromium >/dev/null
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check austin-dist==3.7.0
npm install --silent --no-audit --no-fund speedscope@1.25.0 playwright-core@1.61.1 >/dev/null

cat >program.py <<'PROGRAM'
import time
def work():
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        pass
work()
PROGRAM
env/bin/austin --interval 10ms --output wall.austin env/bin/python -I program.py >/dev/null 2>&1
env/bin/austin --interval 10ms --full --output full.austin env/bin/python -I program.py >/dev/null 2>&1
grep -q 'program.py:work:' wall.austin
grep -q 'program.py:work:' full.austin

cat >look.mjs <<'LOOK'
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {createServer} from 'node:http';
import {extname, join} from 'node:path';
import {chromium} from 'playwright-core';

const types = {'.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm'};
const server = createServer((request, response) => {
  const {pathname} = new URL(request.url, 'http://localhost'), path = pathname === '/' ? '/index.html' : pathname;
  const folder = path.endsWith('.austin') ? '.' : 'node_modules/speedscope/dist/release';
  try {
    response.setHeader('content-type', types[extname(path)] ?? 'application/octet-stream');
    response.end(readFileSync(join(folder, path)));
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((ready) => { server.listen(0, '127.0.0.1', ready); });
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({executablePath: process.argv[2], chromiumSandbox: false, args: ['--disable-gpu']});

// The time of each root of the profile that speedscope shows, by name, and the names of all its frames.
async function shown(file) {
  const page = await browser.newPage();
  page.setDefaultTimeout(300000);
  await page.goto(`${origin}/#profileURL=${encodeURIComponent(`${origin}/${file}`)}`);
  await page.getByText('Time Order').first().waitFor();
  const saved = page.waitForEvent('download');
  await page.getByText('Export').first().click();
  const exported = JSON.parse(readFileSync(await (await saved).path(), 'utf8'));
  await page.close();
  const names = exported.shared.frames.map((frame) => frame.name), roots = new Map();
  let depth = 0, opened = 0;
  for (const event of exported.profiles[0].events) {
    if (event.type === 'O' && depth++ === 0) opened = event.at;
    if (event.type === 'C' && --depth === 0)
      roots.set(names[event.frame], (roots.get(names[event.frame]) ?? 0) + event.at - opened);
  }
  return {names, roots, whole: exported.profiles[0].endValue};
}

try {
  const wall = await shown('wall.austin'), full = await shown('full.austin');
  const share = wall.roots.get('# duration:') / wall.whole;
  assert.ok(share > 0.4 && wall.roots.get('# interval:') === 10000, JSON.stringify([...wall.roots]));
  assert.deepEqual([...full.names].sort(), ['# duration:', '# interval:', '# memory:']);
  console.log(`speedscope 1.25.0 with austin 3.7.0: ${(share * 100).toFixed(0)} % of the time is in "# duration:"; in ` +
              `full mode it shows ${full.names.join(', ')} and no function of the program`);
} finally {
  await browser.close();
  server.close();
}
LOOK
node look.mjs "$(command -v chromium)"
